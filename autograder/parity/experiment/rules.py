"""Rules that say whether a result is close enough: the derived one, and those in use elsewhere.

Each yields a ratio of error to allowance, at most 1 where it accepts. All are given the float64 result to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from autograder.parity.cases import dtype_of
from autograder.parity.comparison import Oracle
from autograder.parity.experiment.kernel import Kernel, Plan
from autograder.parity.experiment.right import run_eager

__all__ = ["DERIVED", "RULES", "Bench", "Rule"]


@dataclass(frozen=True)
class Bench:
    """What a rule may look at: the oracle, and eager attention of the same precision."""

    oracle: Oracle

    @cached_property
    def eager(self) -> Mapping[str, Tensor]:
        """Its results by name; in tf32 those of one block, since torch has no tf32 on a CPU."""
        inputs, precision = self.oracle.inputs, self.oracle.precision
        if precision == "tf32":
            return dict(Kernel(inputs, precision, Plan(block=1 << 20)).run())
        return run_eager(inputs)


Rule = Callable[[Bench, str, Tensor, str], float]
"""(bench, quantity, actual, baseline) -> ratio."""

DERIVED = "derived"
ASSERT_CLOSE = {
    torch.float32: (1.3e-6, 1e-5),
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
}
"""torch.testing.assert_close's rtol and atol by dtype."""


def _derived(bench: Bench, quantity: str, actual: Tensor, baseline: str) -> float:
    return bench.oracle.compare(quantity, actual, baseline).ratio


def _worst(error: Tensor, allowance: Tensor) -> float:
    ratio = torch.where(error == 0, 0.0, error / allowance)
    return float(ratio.nan_to_num(nan=torch.inf, posinf=torch.inf).max())


def _gap(oracle: Oracle, quantity: str, actual: Tensor) -> tuple[Tensor, Tensor]:
    """The error and the right result, elementwise; infinities that agree are no error."""
    right, got = oracle.exact[quantity].value, actual.double()
    return torch.where(got == right, 0.0, (got - right).abs()), right.abs().nan_to_num(posinf=0.0)


def _fixed(rtol: float, atol: float) -> Rule:
    """|actual - right| <= atol + rtol |right| for each element."""

    def rule(bench: Bench, quantity: str, actual: Tensor, baseline: str) -> float:
        error, size = _gap(bench.oracle, quantity, actual)
        return _worst(error, atol + rtol * size)

    return rule


def _kept_in(bench: Bench, quantity: str) -> torch.dtype:
    """The dtype that a quantity is kept in: the log-sum-exp is float32 in every precision."""
    return torch.float32 if quantity == "log_sum_exp" else dtype_of(bench.oracle.precision)


def _assert_close(bench: Bench, quantity: str, actual: Tensor, baseline: str) -> float:
    return _fixed(*ASSERT_CLOSE[_kept_in(bench, quantity)])(bench, quantity, actual, baseline)


def _twice_eager(bench: Bench, quantity: str, actual: Tensor, baseline: str) -> float:
    """The largest error is at most twice that of eager attention of the same precision, plus twice the rounding of the
    right result shifted by 0.3 and back: the rule of flash-attn's own tests."""
    error, right = _gap(bench.oracle, quantity, actual)
    reference, _ = _gap(bench.oracle, quantity, bench.eager[quantity])
    stored = right.to(_kept_in(bench, quantity))
    shift = (stored + 0.3 - 0.3 - stored).abs().max().double()
    return _worst(error.max(), 2 * reference.max() + 2 * shift)


RULES: Mapping[str, Rule] = {
    DERIVED: _derived,
    "torch.allclose": _fixed(1e-5, 1e-8),
    "assert_close": _assert_close,
    "atol 1e-2": _fixed(0.0, 1e-2),
    "2 x eager + atol": _twice_eager,
    "rtol = atol = 1e-2": _fixed(1e-2, 1e-2),
}
