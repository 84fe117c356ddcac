"""Mistakes as rows of a table: a name, a question, and a formula whose one result a report can compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from autograder.exercises.exercise import Mistake

__all__ = ["Slip", "named"]

Slip = tuple[str, str, Callable[..., Tensor]]
"""Name, question and formula of a mistake; the formula takes the exercise's inputs by name."""


def named(output: str, slips: Iterable[Slip]) -> tuple[Mistake, ...]:
    """The slips as mistakes of an exercise whose one result is `output`."""
    return tuple(
        Mistake(name, question, partial(_result, output, formula)) for name, question, formula in slips
    )


def _result(output: str, formula: Callable[..., Tensor], **inputs: Any) -> Mapping[str, Tensor]:
    return {output: formula(**inputs)}
