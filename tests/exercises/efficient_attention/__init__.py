"""Right writings and mutants of `efficient_attention`."""
