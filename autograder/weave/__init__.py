"""Weave lessons and solutions into nbgrader's notebooks."""

from .course import Course, find_course
from .errors import WeaveError
from .release import build, differences, generate
from .settings import refresh_source, settings

__all__ = ["Course", "WeaveError", "build", "differences", "find_course", "generate", "refresh_source", "settings"]
