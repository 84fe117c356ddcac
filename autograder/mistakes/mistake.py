"""A mistake is a formula in named steps, one of which is exchanged; a table of them is written question by question."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

__all__ = ["Mistake", "Slips", "Step", "slips"]

Step = Mapping[str, Any] | Callable[..., Any]
"""The steps of a formula that are exchanged, as keyword arguments; or another formula."""

Slips = Mapping[str, Mapping[str, "Step | list[Step]"]]
"""Question -> name of the mistake -> how it is made, in one way or in several."""


@dataclass(frozen=True)
class Mistake:
    """A mutant of the formula that a report can name.

    name: a few words. question: what to ask the student. formula: the mutant, taking the exercise's inputs by name and
    returning results by name; it is compared with what the student's code gives on the failing cases.
    """

    name: str
    question: str
    formula: Callable[..., Mapping[str, Tensor]]


def slips(
    formula: Callable[..., Any],
    *tables: Slips,
    output: str = "",
    without: Collection[str] = (),
    steps: str = "",
) -> tuple[Mistake, ...]:
    """The mistakes of one or more tables, made with `formula`, which takes its steps as keyword arguments.

    output: where a formula gives one tensor and not results by name, the name of the result. without: names to leave out:
    here they are no mistake, or the same as another. steps: where the formula takes all its steps in one mapping, the
    argument's name.
    """
    return tuple(
        Mistake(name, question, _made(formula, way, output, steps))
        for table in tables
        for question, rows in table.items()
        for name, ways in rows.items()
        if name not in without
        for way in (ways if isinstance(ways, list) else [ways])
    )


def _made(
    formula: Callable[..., Any], way: Step, output: str, steps: str
) -> Callable[..., Mapping[str, Tensor]]:
    if callable(way):
        wrong = way
    elif steps:
        wrong = partial(formula, **{steps: way})
    else:
        wrong = partial(formula, **way)
    return partial(_result, output, wrong) if output else wrong


def _result(output: str, wrong: Callable[..., Tensor], **inputs: Any) -> Mapping[str, Tensor]:
    return {output: wrong(**inputs)}
