"""`efficient_attention`: exact attention in blocks, to a part of the pairs, and by features, mixtures, memories, latents."""

from __future__ import annotations

from autograder.exercises.gathering import gathered

__all__ = ["EXERCISES"]

EXERCISES = gathered(__name__)
"""In the order in which the lesson sets them."""
