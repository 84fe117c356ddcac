"""The grader of `text_generation` on right writings and on mutants."""

from tests.exercises.promises import *  # noqa: F403

STEM = "text_generation"
