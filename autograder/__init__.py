"""The autograder of attention-coursework: checks that name a student's mistake.

>>> from autograder import check
>>> check("attention", attention)        # a Report: passed, score, points, verdicts, mistakes

The names below are imported when they are first used, so that the command line can speak before PyTorch is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autograder import exercises
    from autograder.grading import check, grade, hint, inputs
    from autograder.verdict import Report

__all__ = ["Report", "check", "exercises", "grade", "hint", "inputs"]

_HOMES = {"Report": "autograder.verdict"}


def __getattr__(name: str) -> Any:
    if name == "exercises":
        return import_module("autograder.exercises")
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "autograder.grading")), name)
    raise AttributeError(f"module 'autograder' has no attribute {name!r}; it has: {', '.join(__all__)}")
