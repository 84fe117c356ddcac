"""The grader of `efficient_attention` on right writings and on mutants."""

from tests.exercises.promises import *  # noqa: F403

STEM = "efficient_attention"
