"""One exercise, one subject, one case: what every check is given to work with."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from autograder.case import Case, Draw
from autograder.checks.failure import Failure, student_code
from autograder.checks.subject import ModuleSubject, Subject, is_remote
from autograder.circumstance import ORDINARY, Circumstance, modes_kept, performed, under
from autograder.oracle import Comparison, Quantity, compare, rounder, whole, within_rounding
from autograder.oracle.quantity import Dithered
from autograder.oracle.tolerance import unit_roundoff
from autograder.remembered import shared
from autograder.trees import each_once, mapped

__all__ = ["Target", "Trial"]

Formula = Callable[..., Mapping[str, Quantity]]
Formulas = list[Mapping[str, Quantity]]
Derivatives = dict[str, tuple[Tensor, tuple[Tensor | None, ...]]]
"""For each result the factors of its elements, and the gradients of their sum with respect to some inputs."""
HALF = (torch.float16, torch.bfloat16)
DITHERS, STEP = 3, 2.0**-44
"""How often, and by which share, results are moved to see what rounding does to a gradient."""
PLAIN = (Tensor, nn.Parameter)
REMEMBERED = 16
SIGNATURE = re.compile(
    r"TypeError: .*\(\) (got an unexpected keyword argument|takes \d+ positional argument|missing \d+ required)"
)


@dataclass(frozen=True)
class Target:
    """What a subject must compute: the names of its results, and the float64 formula that yields them.

    whole: the results are whole numbers, plain ints and not tensors. on_request: results that some cases do not ask for: where
    the formula gives none, None must come back. statistics: results that are float32 whatever the inputs' dtype. detached:
    results that must carry no gradient; others that the formula gives none may.
    """

    name: str
    outputs: tuple[str, ...]
    formula: Formula
    whole: bool = False
    on_request: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()


class Trial:
    """Calls the student's code on one case and knows what should come out.

    Every call gets fresh clones, so a solution that writes into its inputs harms no later check.
    """

    def __init__(self, target: Target, subject: Subject, case: Case):
        self.target, self.subject, self.case = target, subject, case
        self.circumstance = ORDINARY
        with student_code():
            prepared = subject.prepare(case)
        weights = {name: weight.to(self._dtype(case.inputs)) for name, weight in prepared.items()}
        self.weights = tuple(weights)
        self.inputs: dict[str, Any] = {**case.inputs, **weights}
        if case.adjust is not None:
            self.inputs |= case.adjust(self.inputs)
        self.draw = Draw(case.number + 2)
        self.known: dict[tuple[Any, ...], tuple[Mapping[str, Any], Formulas]] = {}

    @staticmethod
    def _dtype(inputs: Mapping[str, Any]) -> torch.dtype:
        """The dtype of the inputs' first floating tensor."""
        for value in inputs.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                return value.dtype
        return torch.get_default_dtype()

    @contextlib.contextmanager
    def within(self, circumstance: Circumstance) -> Iterator[None]:
        """A block whose calls are made in that circumstance."""
        before, self.circumstance = self.circumstance, circumstance
        try:
            with under(circumstance):
                yield
        finally:
            self.circumstance = before

    @property
    def size(self) -> int:
        """How many numbers its inputs hold."""
        return sum(value.numel() for value in self.inputs.values() if isinstance(value, Tensor))

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

    def fresh(self, **changes: Any) -> dict[str, Any]:
        """The same, in copies that a call may spoil; what is one object under two names stays one."""
        return each_once(self.changed(**changes), _clone)

    def run(self, inputs: Mapping[str, Any]) -> Any:
        """The student's raw result on exactly these objects. Raises: Failure if the student's code raises."""
        try:
            with student_code():
                there, several = is_remote(self.subject), getattr(self.subject, "several_calls", False)
                if there and not several:
                    return self.subject.call(self.case, inputs)  # who calls there looks at it there
                if self.circumstance == ORDINARY:
                    with modes_kept():
                        return self.subject.call(self.case, inputs)
                given, weights = list(inputs.values()), [inputs[name] for name in self.weights]
                if (
                    there
                ):  # each call by itself in this circumstance, and what comes before them before them all
                    before = Circumstance(before=self.circumstance.before)
                    with under(replace(self.circumstance, before="")):
                        return performed(
                            lambda change: self._handed(inputs, change), given, before, weights=weights
                        )
                module = self.subject.module(self.case) if isinstance(self.subject, ModuleSubject) else None
                return performed(
                    lambda change: self._handed(inputs, change),
                    given,
                    self.circumstance,
                    module,
                    weights=weights,
                )
        except Failure as failure:
            if failure.errored and failure.mistake is None and SIGNATURE.search(failure.message):
                failure.mistake = "an argument that it does not take"
            raise

    def _handed(self, inputs: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> Any:
        changed = mapped(dict(inputs), lambda one: change(one) if isinstance(one, Tensor) else one)
        return self.subject.call(self.case, changed)

    def __call__(self, **changes: Any) -> dict[str, Tensor]:
        """The student's results by name, for the case's inputs with `changes`; kinds and shapes are checked.

        Raises: Failure if the student's code raises, or returns anything but tensors of the right shapes.
        """
        return self.shaped(self.run(self.fresh(**changes)), **changes)

    def shaped(self, result: Any, **changes: Any) -> dict[str, Tensor]:
        """A raw result for the case's inputs with `changes`, by name. Raises: Failure if kinds or shapes are wrong."""
        results = self.named(result, **changes)
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

    def named(self, result: Any, **changes: Any) -> dict[str, Tensor]:
        """A raw result by name, without what the case does not ask for. Raises: Failure if it is not the tensors that the
        target names."""
        names = self.target.outputs
        wanted = names[0] if len(names) == 1 else f"({', '.join(names)})"
        values = [result] if len(names) == 1 else result
        if not isinstance(values, (tuple, list)) or len(values) != len(names):
            raise Failure(
                f"must return {wanted}; it returned {_kind(result)}.",
                mistake="does not return what is asked for",
            )
        if self.target.whole:
            return {name: _whole(name, value) for name, value in zip(names, values, strict=True)}
        asked = self.expect(**changes) if self.target.on_request else names
        for name, value in zip(names, values, strict=True):
            if name not in asked:
                if value is None:
                    continue
                raise Failure(
                    f"{name} must be None where none are asked for; it is {_kind(value)}.",
                    mistake=f"{name} come without being asked for",
                )
            # A subclass of Tensor could answer comparisons as it likes, and isinstance believes what __class__ says.
            if type(value) not in PLAIN:
                raise Failure(
                    f"must return {wanted} as torch tensors; {name} is {_kind(value)}.",
                    mistake="does not return what is asked for",
                )
        return {name: value for name, value in zip(names, values, strict=True) if name in asked}

    def expect(self, **changes: Any) -> Mapping[str, Quantity]:
        """The formula's float64 results for the same inputs."""
        return self._known(changes, lambda: [self.target.formula(**self._exact(changes))])[0]

    def shared(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` yields of the inputs and the formula, once for all trials of the same case; not to be written to."""
        return shared(self.case, (self.case.number, self.weights, key), make)

    def derivatives(self, wanted: tuple[str, ...], scale: float) -> Derivatives:
        """For each result of the formula that depends on these inputs: factors of its elements, times scale, and the
        gradients of their sum with respect to each. `expect` knows the results then.
        """

        plain, found = self.shared(
            ("derivatives", wanted, scale), lambda: self._derived(self.exact, wanted, scale)
        )
        self.known[("",)] = {}, [plain]
        return found

    def _derived(
        self, exact: Mapping[str, Any], wanted: tuple[str, ...], scale: float
    ) -> tuple[Mapping[str, Quantity], Derivatives]:
        leaves = {n: exact[n].detach().requires_grad_() for n in wanted}
        draw, found = Draw(self.case.number + 4), Derivatives()
        results = self.target.formula(**{**exact, **leaves})
        for name, one in results.items():
            if one.value.requires_grad:
                factors = draw.normal(*one.value.shape, dtype=torch.float64) * scale
                made = torch.autograd.grad(
                    (one.value * factors).sum(),
                    list(leaves.values()),
                    allow_unused=True,
                    retain_graph=True,
                )
                found[name] = factors, made
        plain = {
            n: replace(q, value=q.value.detach(), magnitude=q.magnitude.detach()) for n, q in results.items()
        }
        return plain, found

    def unsteady(self, wanted: tuple[str, ...], scale: float) -> Derivatives:
        """The same derivatives as `derivatives`, each as what it loses where every step, forward and backward, is rounded once
        in the inputs' dtype."""

        def make() -> Derivatives:
            sure = self.derivatives(wanted, scale)
            lost = Derivatives()
            for dither in range(DITHERS):
                with Dithered(Draw(self.case.number + 6 + dither).generator, STEP):
                    _, moved = self._derived(self.exact, wanted, scale)
                for name, (factors, made) in moved.items():
                    gaps = tuple(
                        None
                        if one is None or right is None
                        else (one - right).abs() * (unit_roundoff(self.dtype) / STEP)
                        for one, right in zip(made, sure[name][1], strict=True)
                    )
                    before = lost[name][1] if name in lost else gaps
                    lost[name] = (
                        factors,
                        tuple(
                            None if gap is None or old is None else gap.maximum(old)
                            for gap, old in zip(gaps, before, strict=True)
                        ),
                    )
            return lost

        found: Derivatives = self.shared(("unsteady", wanted, scale), make)
        return found

    @cached_property
    def exact(self) -> dict[str, Any]:
        """The case's inputs, floating ones in float64."""
        return {n: _exact(v) for n, v in self.inputs.items()}

    def _exact(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.exact, **{n: _exact(v) for n, v in changes.items()}}

    def _known(self, changes: Mapping[str, Any], make: Callable[[], Formulas], kind: str = "") -> Formulas:
        """What `make` yields, once for the same objects; the latest few are kept."""
        tensors = [v for v in self.changed(**changes).values() if isinstance(v, Tensor)]
        if any(v.requires_grad for v in tensors):
            return make()  # its graph serves one backward pass
        key = (kind, *((name, id(value)) for name, value in changes.items()))
        if key not in self.known:
            while len(self.known) >= REMEMBERED:
                del self.known[next(iter(self.known))]
            found = make() if changes else self.shared(kind, make)
            self.known[key] = changes, found  # the changes stay alive, and so their ids stay theirs
        return self.known[key][1]

    def baseline(self, dither: int | None, changes: Mapping[str, Any]) -> Mapping[str, Quantity]:
        """The formula with every step rounded to the inputs' dtype: what a right computation may lose.

        dither: the seed of another right way to round (None rounds to nearest).
        """

        def make() -> Formulas:
            return [self.target.formula(**self._exact(changes), round=rounder(self.dtype, dither))]

        return self._known(changes, make, f"rounded {dither}")[0]

    def close(self, name: str, actual: Tensor, expected: Tensor | None = None, **changes: Any) -> bool:
        """Whether a result is the formula's, or `expected`, within the formula's tolerance for it; a count has none."""
        if self.target.whole:
            return torch.equal(actual.double(), self.expect(**changes)[name].value.double())
        around, _ = self._around(name, expected, changes)
        # Most right results are within the rounding of their own sums, and need no baseline.
        return (
            within_rounding(actual, around, self.dtype)
            or self.compare(name, actual, expected, **changes).close
        )

    def compare(
        self, name: str, actual: Tensor, expected: Tensor | None = None, **changes: Any
    ) -> Comparison:
        """Compare one result with the formula, or with `expected` under the formula's tolerance for it."""
        around, moved = self._around(name, expected, changes)
        # Baselines only widen the allowance: most results are right without them, or with the first. In half precision
        # few are without one, and what one of them loses is a chance draw.
        half, rounded = self.dtype in HALF, list[Tensor]()
        if not half and (found := compare(actual, around, rounded, self.dtype)).close:
            return found
        for dither in (None, 1, 2, 3, 4) if half else (None,):
            rounded.append(self.baseline(dither, changes)[name].value + moved)
            if (found := compare(actual, around, rounded, self.dtype)).close:
                break
        return found

    def _around(
        self, name: str, expected: Tensor | None, changes: Mapping[str, Any]
    ) -> tuple[Quantity, Tensor | float]:
        """The formula's result moved to `expected`, and by how much it was moved."""
        exact = self.expect(**changes)[name]
        if expected is None:
            return exact, 0.0
        there = expected.detach().to("cpu", torch.float64)
        magnitude = torch.maximum(exact.magnitude, there.abs())
        return Quantity(there, magnitude, exact.growth), there - exact.value

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
        if not self.close(name, actual, expected, **changes):
            found = self.compare(name, actual, expected, **changes)
            place = f"[{', '.join(map(str, found.where))}]" if found.where else ""
            digits = next((n for n in (6, 9, 12) if f"{found.got:.{n}g}" != f"{found.expected:.{n}g}"), 17)
            raise Failure(
                f"{claim}: {name}{place} is {found.got:.{digits}g}, expected {found.expected:.{digits}g} "
                f"(+-{found.slack:.1g} by rounding in {str(self.dtype).removeprefix('torch.')}).",
                mistake=mistake,
            )


def _whole(name: str, value: Any) -> Tensor:
    """A plain int as a tensor. Raises: Failure if it is anything else."""
    if type(value) is int:
        return whole(value)
    if type(value) is float:
        raise Failure(
            f"must return {name} as a whole number (int); it returned the float {value!r}. Is it / where // is meant?",
            mistake="not a whole number",
        )
    raise Failure(
        f"must return {name} as a whole number (int); it returned {_kind(value)}.",
        mistake="does not return what is asked for",
    )


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
