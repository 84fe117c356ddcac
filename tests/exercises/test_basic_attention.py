"""The grader of `basic_attention` on right writings and on mutants."""

from tests.exercises.promises import *  # noqa: F403

STEM = "basic_attention"
