"""What an exercise is: a target, cases, checks worth points, mistakes that can be named, hints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from autograder.case import Recipe
from autograder.checks import Check, FunctionSubject, ModuleSubject, Parameter, Subject, Target
from autograder.checks.objects import Remote, is_class, is_function
from autograder.kernels.placing import beside_the_gpu

__all__ = ["Choice", "Exercise", "Hints", "Mistake", "Number", "NumericSlip"]

Hints = tuple[str, str, str]
"""From a nudge to a near-answer."""


@dataclass(frozen=True)
class Mistake:
    """A mutant of the formula that a report can name.

    name: a few words. question: what to ask the student. formula: the mutant, taking the exercise's inputs by name and
    returning results by name; it is compared with what the student's code gives on the failing cases.
    """

    name: str
    question: str
    formula: Callable[..., Mapping[str, Tensor]]


@dataclass(frozen=True)
class Exercise:
    """One solution cell and its grade cell, for a function or (where `parameters` is not None) a module.

    used_as: where set, makes of a student's object what the checks see, in place of a FunctionSubject or ModuleSubject:
    object, positional arguments, parameters -> Subject. A class that is no module has `parameters` ().
    kernels: the work is done by Triton kernels, so a report says whether they ran on a GPU.
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

    @property
    def kind(self) -> str:
        """ "function" or "module"."""
        return "function" if self.parameters is None else "module"

    @property
    def points(self) -> float:
        """Marks to be had."""
        return float(sum(check.points for check in self.checks))

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
