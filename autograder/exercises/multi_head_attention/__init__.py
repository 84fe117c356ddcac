"""`multi_head_attention`: cutting features into heads, multi-head attention, the Transformer block, and questions."""

from __future__ import annotations

from autograder.exercises.gathering import gathered

__all__ = ["EXERCISES"]

EXERCISES = gathered(__name__)
"""In the order in which the lesson sets them."""
