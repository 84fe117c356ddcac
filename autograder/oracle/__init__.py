"""Oracles: float64 formulas written out, and the tolerance derived from them. Never a solution."""

from autograder.oracle.quantity import Quantity, Rounder, exact, rounder, whole
from autograder.oracle.tolerance import Comparison, compare, within_rounding

__all__ = ["Comparison", "Quantity", "Rounder", "compare", "exact", "rounder", "whole", "within_rounding"]
