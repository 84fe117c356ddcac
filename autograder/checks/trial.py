"""One exercise, one subject, one case: what every check is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from autograder.case import Case, Draw
from autograder.checks.failure import Failure, student_code
from autograder.checks.subject import Subject
from autograder.oracle import Comparison, Quantity, compare, rounder

__all__ = ["Target", "Trial"]

Formula = Callable[..., Mapping[str, Quantity]]
HALF = (torch.float16, torch.bfloat16)
PLAIN = (Tensor, nn.Parameter)


@dataclass(frozen=True)
class Target:
    """What a subject must compute: the names of its results, and the float64 formula that yields them."""

    name: str
    outputs: tuple[str, ...]
    formula: Formula


class Trial:
    """Calls the student's code on one case and knows what should come out.

    Every call gets fresh clones, so a solution that writes into its inputs harms no later check.
    """

    def __init__(self, target: Target, subject: Subject, case: Case):
        self.target, self.subject, self.case = target, subject, case
        with student_code():
            prepared = subject.prepare(case)
        weights = {name: weight.to(self._dtype(case.inputs)) for name, weight in prepared.items()}
        self.weights = tuple(weights)
        self.inputs: dict[str, Any] = {**case.inputs, **weights}
        self.draw = Draw(case.number + 2)

    @staticmethod
    def _dtype(inputs: Mapping[str, Any]) -> torch.dtype:
        """The dtype of the inputs' first floating tensor."""
        for value in inputs.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                return value.dtype
        return torch.get_default_dtype()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that results must have."""
        return self._dtype(self.inputs)

    @property
    def differentiable(self) -> tuple[str, ...]:
        """Names of the floating inputs, weights included."""
        return tuple(n for n, v in self.inputs.items() if isinstance(v, Tensor) and v.is_floating_point())

    def changed(self, **changes: Any) -> dict[str, Any]:
        """The inputs with some of them replaced."""
        return {**self.inputs, **changes}

    def run(self, inputs: Mapping[str, Any]) -> Any:
        """The student's raw result on exactly these objects. Raises: Failure if the student's code raises."""
        with student_code():
            return self.subject.call(self.case, inputs)

    def __call__(self, **changes: Any) -> dict[str, Tensor]:
        """The student's results by name, for the case's inputs with `changes`; kinds and shapes are checked.

        Raises: Failure if the student's code raises, or returns anything but tensors of the right shapes.
        """
        inputs = self.changed(**changes)
        results = self.named(self.run({name: _clone(value) for name, value in inputs.items()}))
        expected = {name: tuple(quantity.value.shape) for name, quantity in self.expect(**changes).items()}
        got = {name: tuple(results[name].shape) for name in expected}
        wrong = next((name for name in expected if got[name] != expected[name]), None)
        if wrong is None:
            return results
        turned = list(got.values()) == list(expected.values())[::-1]
        raise Failure(
            f"{wrong} has shape {got[wrong]}; expected {expected[wrong]}."
            + (f" Is the order ({', '.join(expected)})?" if turned else "")
            + (" Is an axis of size 1 squeezed away?" if _squeezed(got[wrong], expected[wrong]) else ""),
            mistake="results in the wrong order" if turned else f"{wrong} has the wrong shape",
        )

    def named(self, result: Any) -> dict[str, Tensor]:
        """A raw result by name. Raises: Failure if it is not the tensors that the target names."""
        names = self.target.outputs
        wanted = names[0] if len(names) == 1 else f"({', '.join(names)})"
        values = [result] if len(names) == 1 else result
        if not isinstance(values, (tuple, list)) or len(values) != len(names):
            raise Failure(
                f"must return {wanted}; it returned {_kind(result)}.",
                mistake="does not return what is asked for",
            )
        for name, value in zip(names, values, strict=True):
            # A subclass of Tensor could answer comparisons as it likes, and isinstance believes what __class__ says.
            if type(value) not in PLAIN:
                raise Failure(
                    f"must return {wanted} as torch tensors; {name} is {_kind(value)}.",
                    mistake="does not return what is asked for",
                )
        return dict(zip(names, values, strict=True))

    def expect(self, **changes: Any) -> Mapping[str, Quantity]:
        """The formula's float64 results for the same inputs; those for the case as it is are kept."""
        if not changes:
            return self._expected
        return self.target.formula(**{n: _exact(v) for n, v in self.changed(**changes).items()})

    @cached_property
    def _expected(self) -> Mapping[str, Quantity]:
        return self.target.formula(**{n: _exact(v) for n, v in self.inputs.items()})

    def baselines(self, **changes: Any) -> list[Mapping[str, Quantity]]:
        """The formula with every step rounded to the inputs' dtype: what a right computation may lose.

        In half precision the formula is rounded in several ways: what one of them loses is a chance draw.
        """
        exact = {n: _exact(v) for n, v in self.changed(**changes).items()}
        dithers: tuple[int | None, ...] = (None, 1, 2, 3, 4) if self.dtype in HALF else (None,)
        return [self.target.formula(**exact, round=rounder(self.dtype, dither)) for dither in dithers]

    def compare(
        self, name: str, actual: Tensor, expected: Tensor | None = None, **changes: Any
    ) -> Comparison:
        """Compare one result with the formula, or with `expected` under the formula's tolerance for it."""
        exact = self.expect(**changes)[name]
        shift = None if expected is None else expected.detach().to("cpu", torch.float64)
        around = exact if shift is None else _around(exact, shift)
        # The baselines only widen the allowance: most results are right without them.
        found = compare(actual, around, (), self.dtype)
        if found.close:
            return found
        rounded = [baseline[name].value for baseline in self.baselines(**changes)]
        if shift is not None:
            rounded = [one - exact.value + shift for one in rounded]
        return compare(actual, around, rounded, self.dtype)

    def require(
        self,
        name: str,
        actual: Tensor,
        claim: str,
        *,
        expected: Tensor | None = None,
        mistake: str | None = None,
        **changes: Any,
    ) -> None:
        """Raises: Failure, saying `claim` with both numbers, if a result is beyond the tolerance."""
        found = self.compare(name, actual, expected, **changes)
        if not found.close:
            place = f"[{', '.join(map(str, found.where))}]" if found.where else ""
            digits = next((n for n in (6, 9, 12) if f"{found.got:.{n}g}" != f"{found.expected:.{n}g}"), 17)
            raise Failure(
                f"{claim}: {name}{place} is {found.got:.{digits}g}, expected {found.expected:.{digits}g} "
                f"(+-{found.slack:.1g} by rounding in {str(self.dtype).removeprefix('torch.')}).",
                mistake=mistake,
            )


def _around(exact: Quantity, expected: Tensor) -> Quantity:
    """The formula's tolerance around another value."""
    return Quantity(expected, torch.maximum(exact.magnitude, expected.abs()), exact.growth)


def _squeezed(got: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return len(got) < len(expected) and [n for n in got if n != 1] == [n for n in expected if n != 1]


def _clone(value: Any) -> Any:
    """A copy that shares no memory but has the same strides, where they are strides of a dense tensor."""
    return value.clone(memory_format=torch.preserve_format) if isinstance(value, Tensor) else value


def _exact(value: Any) -> Any:
    return value.to(torch.float64) if isinstance(value, Tensor) and value.is_floating_point() else value


def _kind(value: Any) -> str:
    if isinstance(value, Tensor) and type(value) not in PLAIN:
        return f"an object of type {type(value).__name__}, not a plain tensor"
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return "None (is a return missing?)" if value is None else f"an object of type {type(value).__name__}"
