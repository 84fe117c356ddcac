"""The exercises, by assignment and in course order. Calling the package, `exercises()`, gives their names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from autograder.exercises.exercise import Choice, Exercise, Mistake, Number, NumericSlip

__all__ = [
    "ASSIGNMENTS",
    "IN_WORDS",
    "LIST_ALL",
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

IN_WORDS: Mapping[str, str] = {
    "what_is_attention": "basic_attention",
    "what_is_shared_attention": "shared_attention",
    "what_are_heads": "multi_head_attention",
    "how_to_generate": "text_generation",
    "why_flash_is_faster": "efficient_attention",
    "attention_for_long_texts": "efficient_attention",
    "explain_flash_attention": "gpu_kernels",
}
"""The questions that are answered in words, for a person to mark, and their assignments. The lessons hold them."""

NEAREST = 3
LIST_ALL = "autograder.exercises() lists them all, and `attn hint` in a terminal"
"""How to see all names."""

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
    """The exercise of that name. Raises: ValueError, with the nearest names, if there is none."""
    every = {exercise.name: exercise for stem in ASSIGNMENTS for exercise in in_assignment(stem)}
    if name in every:
        return every[name]
    if name in IN_WORDS:
        raise ValueError(
            f"{name!r} is answered in words, for a person to mark: it has neither checks nor hints. A model answer and its "
            f"rubric stand in course/lessons/{IN_WORDS[name]}.md."
        )
    near = get_close_matches(str(name), every, n=NEAREST)
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"no exercise {name!r}.{guess} {LIST_ALL}.")


class _Exercises(ModuleType):
    """The public `autograder.exercises()` and this package share a name, so the package itself can be called."""

    def __call__(self) -> tuple[str, ...]:
        return tuple(exercise.name for stem in ASSIGNMENTS for exercise in in_assignment(stem))


sys.modules[__name__].__class__ = _Exercises
