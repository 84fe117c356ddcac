"""The exercises, by assignment and in course order. Calling the package, `exercises()`, gives their names."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from autograder.exercises.exercise import Choice, Exercise, Mistake, Number, NumericSlip

__all__ = [
    "ASSIGNMENTS",
    "AnyExercise",
    "Choice",
    "Exercise",
    "Mistake",
    "Number",
    "NumericSlip",
    "find",
    "in_assignment",
]

ASSIGNMENTS: tuple[str, ...] = (
    "basic_attention",
    "shared_attention",
    "multi_head_attention",
    "text_generation",
    "efficient_attention",
    "gpu_kernels",
)
"""Stems of the assignments, in course order."""

AnyExercise = Exercise | Choice | Number


def in_assignment(stem: str) -> tuple[AnyExercise, ...]:
    """The exercises of one assignment, in the order in which its lesson sets them.

    Raises: ValueError if there is no such assignment.
    """
    if stem not in ASSIGNMENTS:
        raise ValueError(f"no assignment {stem!r}; there are: {', '.join(ASSIGNMENTS)}.")
    exercises: tuple[AnyExercise, ...] = import_module(f"autograder.exercises.{stem}").EXERCISES
    return exercises


def find(name: str) -> AnyExercise:
    """The exercise of that name. Raises: ValueError, with the nearest name, if there is none."""
    every = {exercise.name: exercise for stem in ASSIGNMENTS for exercise in in_assignment(stem)}
    if name not in every:
        near = get_close_matches(str(name), every, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no exercise {name!r}.{guess} There are: {', '.join(every)}.")
    return every[name]


class _Exercises(ModuleType):
    """The public `autograder.exercises()` and this package share a name, so the package itself can be called."""

    def __call__(self) -> tuple[str, ...]:
        return tuple(exercise.name for stem in ASSIGNMENTS for exercise in in_assignment(stem))


sys.modules[__name__].__class__ = _Exercises
