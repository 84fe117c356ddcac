"""Exercise `causal_linear_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.carrying import StateSubject
from autograder.checks.conduct import affordable, half_the_pairs
from autograder.checks.structure import responds
from autograder.exercises.efficient_attention.linear import (
    FEATURE_SLIPS,
    FEATURES,
    IN_DOUBLE,
    Map,
    elu_plus_one,
)
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.linear import causal_linear_attention as formula
from autograder.oracle.linear import features
from autograder.situations import DTYPES, MODULE_AXES, Group, Situations, drawn_by, groups
from autograder.situations.factors import LONG_PRIMES, Factor

__all__ = ["CAUSAL_LINEAR_ATTENTION"]

OUTPUTS = ("output", "kv", "z")
FORMULA = "agrees with the formula"
SHAPES = {"query": "... S D", "key": "... S D", "value": "... S D_v"}
STATE = {"kv": "... D D_v", "z": "... D"}
BLOCK = 160
"""Positions that may be compared with each other at once, by those who work in blocks."""
_piece = drawn_by(SHAPES, leading=1, high=8)


def draw(draw: Draw, *, seen: int | None = None, **options: Any) -> dict[str, Any]:
    """A piece, and the state that `seen` positions before it have left, if any."""
    inputs = _piece(draw, **options)
    if seen is None:
        return inputs
    (*lead, _, D), D_v, dtype = inputs["key"].shape, inputs["value"].shape[-1], inputs["key"].dtype
    phi, value = (
        features(draw.normal(*lead, seen, D, dtype=torch.float64)).value,
        draw.normal(*lead, seen, D_v),
    )
    return inputs | {"kv": (phi.mT @ value.double()).to(dtype), "z": phi.sum(-2).to(dtype)}


LONG = {"S": LONG_PRIMES, "axes": 0, "D": (2, 4), "D_v": (2, 4)}
LENGTHS: Factor = {
    "several positions": {"S": (3, 9)},
    "a single position": {"S": 1},
    "as many positions as features": {"S": "D", "D_v": "D"},
    "over a thousand positions": {**LONG, "seen": None},
    "over a thousand positions, in whole blocks, after a state": {**LONG, "S": [1024], "seen": 5},
}
GIVEN: Factor = {
    "no state": {},
    "a state": {"seen": 4},
    "the state of one position": {"seen": 1},
    "the state of a long text": {"seen": 300},
    "a state of zeros": {"seen": 0},
}


def _sizes(inputs: Mapping[str, Any]) -> tuple[int, int, int, int]:
    (S, D), D_v = inputs["query"].shape[-2:], inputs["value"].shape[-1]
    return inputs["query"][..., 0, 0].numel(), S, D, D_v


def _flops(inputs: Mapping[str, Any]) -> int:
    """State and output of each position, four times over; or blocks of positions compared with each other."""
    elements, S, D, D_v = _sizes(inputs)
    return elements * 2 * S * (8 * D * D_v + BLOCK * (D + D_v))


def _largest(inputs: Mapping[str, Any]) -> int:
    elements, S, D, D_v = _sizes(inputs)
    return elements * S * max(2 * D * D_v, BLOCK)


def _steps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kv: Tensor | None = None,
    z: Tensor | None = None,
    *,
    of_query: Map = elu_plus_one,
    of_key: Map = elu_plus_one,
    see: Map = torch.tril,
    divide: Callable[[Tensor, Tensor], Tensor] = lambda above, below: above / below,
    read: tuple[float, float] = (1.0, 1.0),
    kept: tuple[float, float] = (1.0, 1.0),
    added: bool = True,
    left: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> Mapping[str, Tensor]:
    """The function in steps.

    see: a change of the table (S, S). divide: numerator and denominator -> output. read: what the given kv and z count
    for in the output; kept: in the state that is returned. added: this piece is in the state. left: the positions that are.
    """
    phi_q, phi_k = of_query(query), of_key(key)
    sums = phi_k.new_zeros(*phi_k.shape[:-2], phi_k.shape[-1], value.shape[-1]) if kv is None else kv
    norms = phi_k.new_zeros(*phi_k.shape[:-2], phi_k.shape[-1]) if z is None else z
    table = see(phi_q @ phi_k.mT)
    above = table @ value + read[0] * (phi_q @ sums)
    below = table.sum(-1, keepdim=True) + read[1] * (phi_q @ norms.unsqueeze(-1))
    more = (left(phi_k).mT @ left(value), left(phi_k).sum(-2)) if added else (0.0, 0.0)
    return {"output": divide(above, below), "kv": kept[0] * sums + more[0], "z": kept[1] * norms + more[1]}


def _last_sum(query: Tensor, key: Tensor, value: Tensor, **state: Any) -> Mapping[str, Tensor]:
    plain = _steps(query, key, value, **state, divide=lambda above, below: above)
    return {**plain, "output": plain["output"] / (elu_plus_one(query) @ plain["z"].unsqueeze(-1))}


ON = (
    "What comes back must stand for every position seen so far: the given state, and this piece on top, once."
)
CAUSAL = "Position i sees positions 0..i: is it a running sum (cumsum) over the positions, its own included?"

SLIPS: Slips = {
    "The future is in it. " + CAUSAL: {"sum over all positions": {"see": lambda table: table}},
    CAUSAL: {
        "a position does not see itself": {"see": lambda table: table.tril(-1), "divide": lambda a, b: (a / b).nan_to_num()},
        "future instead of past": {"see": torch.triu},
    },
    "Divide by phi(q) . z, z the running sum of phi(k).": {"not normalised": {"divide": lambda above, below: above}},
    "Is a small number added to the denominator, or is that clamped? Features are positive.": {
        "a small number in the denominator": [
            *({"divide": lambda a, b, add=add: a / (b + add)} for add in (1e-6, 1e-8, 1e-12)),
            *({"divide": lambda a, b, low=low: a / b.clamp_min(low)} for low in (1e-6, 1e-8)),
        ],
    },
    "Does the given state enter the output?": {"state not read": {"read": (0.0, 0.0)}},
    ON: {
        "state not handed on": {"read": (0.0, 0.0), "kept": (0.0, 0.0)},
        "given state not in the returned one": {"kept": (0.0, 0.0)},
        "given state returned as it is": {"added": False},
        "state handed on twice": {"kept": (2.0, 2.0)},
        "last position not in the state": {"left": lambda rows: rows[..., :-1, :]},
    },
    "kv is read, z is not. The denominator counts the past, too.": {"z of the state not read": {"read": (1.0, 0.0)}},
    "The given state counts once in the output.": {"state read twice": {"read": (2.0, 2.0)}},
    "Each position has a z of its own: the sum up to it, not that of the whole piece.": {"normalised by the last sum": _last_sum},
}  # fmt: skip

CAUSAL_LINEAR_ATTENTION = Exercise(
    name="causal_linear_attention",
    assignment="efficient_attention",
    target=Target("causal_linear_attention", OUTPUTS, formula),
    positional=("query", "key", "value"),
    used_as=StateSubject,
    situations=Situations(
        draw=draw,
        factors={"given": GIVEN, "lengths": LENGTHS, "scores": FEATURES, "dtype": DTYPES, "axes": MODULE_AXES},
        axes=SHAPES | STATE,
        groups=groups(
            "without a state, position i averages the values 0..i by phi(q) . phi(k); kv and z are the sums", 1.5,
            (Group("state handed on", "a given state is read, and handed on with this piece added", 1.75, ("given",)),),
            lengths=0.5, scores=0.25, gradient=0.5, dtypes=0.25, calls=0.75,
        ),
        never=(IN_DOUBLE,),
    ),
    recipes=(
        Recipe("long sequences", partial(draw, axes=0, S=1000, D=(3, 4), D_v=(3, 5))),
        Recipe("a batch after a state", partial(draw, axes=2, S=(780, 800), D=(3, 4), D_v=(3, 5), seen=5)),
    ),
    checks=(
        Check("linear cost", "work and memory grow with the length, not with its square", 0.75,
              ("long sequences", "a batch after a state"), affordable(_flops, _largest, half_the_pairs),
              (FORMULA, "state handed on")),
    ),
    diagnoses={
        "": (responds({"query": ("output",), "key": OUTPUTS, "value": ("output", "kv")}, mixing="value"),),
    },
    mistakes=slips(_steps, FEATURE_SLIPS, SLIPS),
    hints=(
        "Without a mask, one kv and one z serve all queries. With a causal one, position i needs those of positions 0..i. "
        "What turns a sum over positions into all its partial sums?",
        "The outer products phi(k) v^T of all positions are (..., S, D, D_v); their cumsum over the positions is the state after "
        "each of them. A given state is added to every partial sum, and the last partial sum is what you return.",
        "`kv = (phi_k.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(-3)`, `z = phi_k.cumsum(-2)`, plus the state if there is one; "
        "output `(phi_q.unsqueeze(-2) @ kv).squeeze(-2)` divided by `(phi_q * z).sum(-1, keepdim=True)`; return it with "
        "`(kv[..., -1, :, :], z[..., -1, :])`.",
    ),
)  # fmt: skip
