"""Kernels against the float64 oracle: which backend of which precision is how far off, and how far it may be."""
