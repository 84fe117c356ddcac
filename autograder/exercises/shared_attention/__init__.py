"""`shared_attention`: one matrix, one projection, shared heads, a shared layer, a shared backbone, and what it saves."""

from __future__ import annotations

from autograder.exercises.gathering import gathered

__all__ = ["EXERCISES"]

EXERCISES = gathered(__name__)
"""In the order in which the lesson sets them."""
