"""`text_generation`: masks, perplexity, sampling, the loop, the cache, beam search, a translator, and questions."""

from __future__ import annotations

from autograder.exercises.gathering import gathered

__all__ = ["EXERCISES"]

EXERCISES = gathered(__name__)
"""In the order in which the lesson sets them."""
