"""Weave lessons and solutions into nbgrader's notebooks."""

from autograder.weave.course import Course, find_course
from autograder.weave.errors import WeaveError
from autograder.weave.release import build, differences, generate
from autograder.weave.settings import refresh_source, settings

__all__ = [
    "Course",
    "WeaveError",
    "build",
    "differences",
    "find_course",
    "generate",
    "refresh_source",
    "settings",
]
