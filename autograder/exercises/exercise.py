"""What an exercise is: a target, cases, checks worth points, mistakes that can be named, hints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

from autograder.case import CASES_PER_SEED, Case, Draw, Recipe, draw_case
from autograder.checks import Check, FunctionSubject, ModuleSubject, Parameter, Probe, Subject, Target
from autograder.checks.objects import Remote, is_class, is_function
from autograder.kernels.placing import beside_the_gpu
from autograder.mistakes import Mistake
from autograder.remembered import remembered
from autograder.situations import Row, Situations
from autograder.situations.factors import WEIGHTS

__all__ = ["Choice", "Exercise", "Hints", "Mistake", "Number", "NumericSlip"]

Hints = tuple[str, str, str]
"""From a nudge to a near-answer."""


@dataclass(frozen=True)
class Exercise:
    """One solution cell and its grade cell, for a function or (where `parameters` is not None) a module.

    used_as: where set, makes of a student's object what the checks see, in place of a FunctionSubject or ModuleSubject:
    object, positional arguments, parameters -> Subject. A class that is no module has `parameters` ().
    kernels: the work is done by Triton kernels, so a report says whether they ran on a GPU. situations: in which ways its
    inputs and circumstances differ; their cases follow those of the recipes, and their groups are checks, too. diagnoses: what to
    try on a failing case where no mistake fits, for its name: probes by the input without which they make no sense, or "".
    """

    name: str
    assignment: str
    target: Target
    positional: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    checks: tuple[Check, ...]
    mistakes: tuple[Mistake, ...]
    hints: Hints
    parameters: tuple[Parameter, ...] | None = None
    used_as: Callable[[Any, tuple[str, ...], Any], Subject] | None = None
    kernels: bool = False
    situations: Situations | None = None
    diagnoses: Mapping[str, tuple[Probe, ...]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """ "function" or "module"."""
        return "function" if self.parameters is None else "module"

    @property
    def points(self) -> float:
        """Marks to be had."""
        return float(sum(check.points for check in self.every_check))

    @property
    def every_check(self) -> tuple[Check, ...]:
        """The written checks and the groups of situations, in the order in which a report has them."""
        if self.situations is None:
            return self.checks
        return tuple(self.situations.arranged(self.checks))

    def case(self, number: int) -> Case:
        """The case of that number. Raises: ValueError if there is none."""
        seed, place = divmod(number, CASES_PER_SEED)
        space, first = self.situations, len(self.recipes)
        if space is None or number < 0 or not first <= place < first + space.places:
            return draw_case(self.recipes, number)
        return self.case_in(space.row(seed, place - first), number)

    def case_in(self, row: Row, number: int) -> Case:
        """A case of that situation, drawn by that number; for an exercise that has situations."""
        space = cast("Situations", self.situations)

        def drawn() -> Case:
            inputs = space.inputs(Draw(number), row)
            adjust, init = inputs.pop(WEIGHTS, None), inputs.pop("init", {})
            label = ", ".join(space.departures(row).values()) or "ordinary"
            return Case(number, label, inputs, init, row, adjust)

        return remembered(space, (number, *row.values()), drawn)

    def subject(self, obj: Any) -> Subject:
        """A student's object as the checks see it. Raises: TypeError if it cannot be called."""
        if not callable(obj):
            kind = "function" if self.parameters is None else "class"
            raise TypeError(f"{self.name} must be a {kind}; it is a {type(obj).__name__}.")
        if self.parameters is None and is_class(obj):
            raise TypeError(f"{self.name} must be a function; it is a class.")
        if self.parameters is not None and is_function(obj):
            raise TypeError(f"{self.name} must be a class; it is a function.")
        if self.parameters is not None and isinstance(obj, nn.Module):
            raise TypeError(
                f"{self.name} must be the class itself; it is an object made from {type(obj).__name__}."
            )
        if self.used_as is not None:
            return self.used_as(obj, self.positional, self.parameters)
        if self.parameters is None:
            return FunctionSubject(_beside_the_gpu(obj) if self.kernels else obj, self.positional)
        return ModuleSubject(obj, self.positional, self.parameters)


def _beside_the_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    return function.beside_the_gpu() if isinstance(function, Remote) else beside_the_gpu(function)


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question: the answer is a letter. explanations says for each letter why, or why not."""

    name: str
    assignment: str
    claim: str
    prompt: str
    answer: str
    points: float
    explanations: Mapping[str, str]
    hints: Hints
    kind: str = field(default="choice", init=False)


@dataclass(frozen=True)
class NumericSlip:
    """A wrong number that a report can name."""

    name: str
    value: float
    question: str


@dataclass(frozen=True)
class Number:
    """A question whose answer is a number: a whole one exactly, another one within the relative `tolerance`.

    The prompt says what is near enough where that is more than float64's rounding.
    """

    name: str
    assignment: str
    claim: str
    prompt: str
    answer: float
    points: float
    explanation: str
    slips: tuple[NumericSlip, ...]
    hints: Hints
    tolerance: float = 1e-9
    kind: str = field(default="number", init=False)
