"""`basic_attention`: softmax, five kinds of scores, attention, self- and cross-attention, and questions."""

from __future__ import annotations

from autograder.exercises.gathering import gathered

__all__ = ["EXERCISES"]

EXERCISES = gathered(__name__)
"""In the order in which the lesson sets them."""
