"""The student's own answer where it passes its checks, and a stand-in where it does not yet."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

from autograder.grading import check

__all__ = ["solved"]

Obj = TypeVar("Obj")


def solved(name: str, own: Any, stand_in: Obj) -> Obj:
    """`own` if it passes all checks of the exercise `name`, else `stand_in`; says which of the two it is."""
    passed = check(name, own).passed
    who = "yours" if passed else "a stand-in, until yours passes its checks"
    sys.stdout.write(f"{name}: {who}\n")
    return own if passed else stand_in
