"""Planted bugs: the made-up kernel with one mistake each."""

from __future__ import annotations

from collections.abc import Callable

from autograder.parity.cases import Shape
from autograder.parity.experiment.kernel import Plan
from autograder.parity.experiment.right import Implementation, made_up

__all__ = ["BUGS", "NO_OPS", "applies"]

Matters = Callable[[Shape, str, str], bool]
"""Whether a bug can show, given a shape, a distribution and a precision."""


def _always(shape: Shape, distribution: str, precision: str) -> bool:
    return True


def _causal(shape: Shape, distribution: str, precision: str) -> bool:
    return shape.is_causal


def _grouped(shape: Shape, distribution: str, precision: str) -> bool:
    return shape.H_kv < shape.H_q


def _several(shape: Shape, distribution: str, precision: str) -> bool:
    return shape.S_k > BLOCK


def _ragged(shape: Shape, distribution: str, precision: str) -> bool:
    return shape.S_k % BLOCK > 0


def _half(shape: Shape, distribution: str, precision: str) -> bool:
    return precision in ("float16", "bfloat16")


def _dead(shape: Shape, distribution: str, precision: str) -> bool:
    return distribution == "dead rows"


BLOCK = Plan().block
NO_OPS = ("no bug: another order of blocks", "no bug: key heads in turn where there is one")
"""Planted to see that the rules do not reject for the sake of rejecting."""

_SLIPS: dict[str, Matters] = {
    "the accumulator is not rescaled": _several,
    "the sum is not rescaled": _several,
    "rescaled by the inverse factor": _several,
    "block weights use the maximum before the block": _several,
    "the maximum of the first block is kept": _several,
    "no maximum is taken off": _always,
    "divided by the sum of the last block": _several,
    "the tail is not masked": _ragged,
    "the ragged last block is dropped": _ragged,
    "the last key is dropped": _always,
    "the last query is not written": _always,
    "dead rows are not zeroed": _dead,
    "causal hides a query's own position": _causal,
    "causal shows the next position": _causal,
    "causal is aligned at the other end": lambda shape, *_: shape.is_causal and shape.S_q != shape.S_k,
    "causal skips the block on the diagonal": _causal,
    "query heads read key heads in turn": lambda shape, *_: 1 < shape.H_kv < shape.H_q,
    "every query head reads key head 0": lambda shape, *_: shape.H_kv > 1,
    "sqrt(D) is missing": _always,
    "sqrt(D) divides twice": _always,
    "sqrt of D padded to a power of two": lambda shape, *_: bool(shape.D & (shape.D - 1)),
    "scale 1 % too large": _always,
    "exp2 without log2(e)": _always,
    "the accumulator is kept in half precision": _half,
    "the sum is kept in half precision": _half,
    "weights of too few bits": _always,
    "scores rounded to half precision": _always,
    "log-sum-exp without the maximum": _always,
    "log-sum-exp in units of log 2": _always,
    "delta is missing": _always,
    "delta of the row before": _always,
    "dV from weights that do not sum to 1": _always,
    "dQ of the last block overwrites": _several,
    "dQ without the scale": _always,
    "dK without the scale": _always,
    "dK and dV of the last query head only": _grouped,
    "backward forgets the causal mask": _causal,
    "gradients 2 % too large": _always,
}
_SPLIT_SLIPS = ("splits are averaged", "the last split is forgotten")
_MATTERS: dict[str, Matters] = {
    **_SLIPS,
    **dict.fromkeys(_SPLIT_SLIPS, _always),
    NO_OPS[0]: _always,
    NO_OPS[1]: lambda shape, *_: shape.H_kv == 1,
}

BUGS: tuple[Implementation, ...] = (
    *(made_up(name, Plan(slip=name)) for name in _SLIPS),
    *(made_up(name, Plan(splits=3, slip=name)) for name in _SPLIT_SLIPS),
    made_up(NO_OPS[0], Plan(order="backward")),
    made_up(NO_OPS[1], Plan(slip="query heads read key heads in turn")),
)


def applies(bug: str, shape: Shape, distribution: str, precision: str) -> bool:
    """Whether the bug can show in that case."""
    return _MATTERS[bug](shape, distribution, precision)
