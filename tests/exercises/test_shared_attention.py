"""The grader of `shared_attention` on right writings and on mutants."""

from tests.exercises.promises import *  # noqa: F403

STEM = "shared_attention"
