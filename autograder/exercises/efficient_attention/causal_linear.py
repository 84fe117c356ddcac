"""Exercise `causal_linear_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.carrying import StateSubject, pieces_agree, texts_in_turn
from autograder.checks.conduct import affordable, half_the_pairs
from autograder.checks.customary import COUNTS, FORMULA, conduct
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.efficient_attention.linear import FEATURE_SLIPS, Map, elu_plus_one, small_features
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.linear import causal_linear_attention as formula
from autograder.oracle.linear import features

__all__ = ["CAUSAL_LINEAR_ATTENTION"]

OUTPUTS = ("output", "kv", "z")
STATE = "the state"
HANDED_ON = "state handed on"
BLOCK = 160
"""Positions that may be compared with each other at once, by those who work in blocks."""


def _inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    shift: float = 0.0,
    length: int = 0,
    seen: int = 0,
    high: int = 9,
) -> dict[str, Any]:
    """query and key (..., S, D), value (..., S, D_v), all sizes different; the state that `seen` positions left, if any."""
    *lead, S, D, D_v = draw.sizes(axes + 3, 2, high)
    if length > 9:
        D, D_v = draw.sizes(2, 3, 5)
    S = length or S
    inputs = {
        "query": draw.normal(*lead, S, D, dtype=dtype) * size + shift,
        "key": draw.normal(*lead, S, D, dtype=dtype) * size + shift,
        "value": draw.normal(*lead, S, D_v, dtype=dtype),
    }
    if seen:
        phi, value = (
            features(draw.normal(*lead, seen, D, dtype=torch.float64)).value,
            draw.normal(*lead, seen, D_v),
        )
        inputs |= {"kv": (phi.mT @ value.double()).to(dtype), "z": phi.sum(-2).to(dtype)}
    return inputs


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("large inputs", size=3.0),
    _recipe("with a state", seen=4),
    _recipe("pieces", length=9),
    _recipe("one position", length=1),
    _recipe("two leading axes", axes=2, seen=3),
    _recipe("small, float64", axes=0, dtype=torch.float64, high=6, seen=2),
    _recipe("float64", dtype=torch.float64),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16, seen=3),
    _recipe("long sequences", axes=0, length=1000),
    _recipe("small features, float64", dtype=torch.float64, shift=-10.0),
)


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


def _variant(
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
    """The function with knobs.

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


ON = (
    "What comes back must stand for every position seen so far: the given state, and this piece on top, once."
)
CAUSAL = "Position i sees positions 0..i: is it a running sum (cumsum) over the positions, its own included?"

SLIPS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("sum over all positions", "The future is in it. " + CAUSAL, {"see": lambda table: table}),
    (
        "a position does not see itself",
        CAUSAL,
        {"see": lambda table: table.tril(-1), "divide": lambda above, below: (above / below).nan_to_num()},
    ),
    (
        "future instead of past",
        CAUSAL,
        {"see": torch.triu},
    ),
    (
        "not normalised",
        "Divide by phi(q) . z, z the running sum of phi(k).",
        {"divide": lambda above, below: above},
    ),
    ("state not read", "Does the given state enter the output?", {"read": (0.0, 0.0)}),
    ("state not handed on", ON, {"read": (0.0, 0.0), "kept": (0.0, 0.0)}),
    (
        "z of the state not read",
        "kv is read, z is not. The denominator counts the past, too.",
        {"read": (1.0, 0.0)},
    ),
    ("given state not in the returned one", ON, {"kept": (0.0, 0.0)}),
    ("given state returned as it is", ON, {"added": False}),
    ("state handed on twice", ON, {"kept": (2.0, 2.0)}),
    ("state read twice", "The given state counts once in the output.", {"read": (2.0, 2.0)}),
    ("last position not in the state", ON, {"left": lambda rows: rows[..., :-1, :]}),
)


def _last_sum(
    query: Tensor, key: Tensor, value: Tensor, kv: Tensor | None = None, z: Tensor | None = None
) -> Mapping[str, Tensor]:
    plain = _variant(query, key, value, kv, z, divide=lambda above, below: above)
    return {**plain, "output": plain["output"] / (elu_plus_one(query) @ plain["z"].unsqueeze(-1))}


MISTAKES = (
    *(
        Mistake(name, question, partial(_variant, **knobs))
        for name, question, knobs in (*FEATURE_SLIPS, *SLIPS)
    ),
    Mistake(
        "normalised by the last sum",
        "Each position has a z of its own: the sum up to it, not that of the whole piece.",
        _last_sum,
    ),
)


CAUSAL_LINEAR_ATTENTION = Exercise(
    name="causal_linear_attention",
    assignment="efficient_attention",
    target=Target("causal_linear_attention", OUTPUTS, formula),
    positional=("query", "key", "value"),
    used_as=StateSubject,
    recipes=RECIPES,
    checks=(
        Check(
            COUNTS,
            "output and state change with what they are made of",
            0.5,
            ("unequal sizes",),
            responds({"query": ("output",), "key": OUTPUTS, "value": ("output", "kv")}, mixing="value"),
        ),
        Check(
            FORMULA,
            "without a state, position i averages the values 0..i by phi(q) . phi(k)",
            1.0,
            ("unequal sizes", "large inputs"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            STATE,
            "kv is the sum of phi(k) v^T, z that of phi(k)",
            0.5,
            ("unequal sizes", "large inputs"),
            agrees("kv", "z"),
            COUNTS,
        ),
        Check(
            "small features",
            "nothing is added to the denominator, and none is kept above a bound",
            0.25,
            ("small features, float64",),
            small_features("output"),
            FORMULA,
        ),
        Check(
            HANDED_ON,
            "a given state is read, and handed on with this piece added",
            1.0,
            ("with a state",),
            agrees(*OUTPUTS),
            (FORMULA, STATE),
        ),
        Check(
            "pieces",
            "a sequence in pieces gives what it gives as a whole, to the last single position",
            0.5,
            ("pieces", "one position"),
            pieces_agree(("query", "key", "value"), ("kv", "z")),
            HANDED_ON,
        ),
        Check(
            "two texts in turn",
            "each goes on from the state that it is handed",
            0.25,
            ("pieces",),
            texts_in_turn(("query", "key", "value"), ("kv", "z")),
            "pieces",
        ),
        Check(
            "linear cost",
            "work and memory grow with the length, not with its square",
            0.75,
            ("long sequences",),
            affordable(_flops, _largest, half_the_pairs),
            (FORMULA, STATE),
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"query": 2, "key": 2, "value": 2, "kv": 2, "z": 1}, OUTPUTS),
            HANDED_ON,
        ),
        *conduct(
            (FORMULA, STATE, HANDED_ON),
            outputs=OUTPUTS,
            gradient="backward() gives the derivative, for a given state too",
            untouched=("unequal sizes", "with a state"),
        ),
    ),
    mistakes=MISTAKES,
    hints=(
        (
            "Without a mask, one kv and one z serve all queries. With a causal one, position i needs those of "
            "positions 0..i. What turns a sum over positions into all its partial sums?"
        ),
        (
            "The outer products phi(k) v^T of all positions are (..., S, D, D_v); their cumsum over the "
            "positions is the state after each of them. A given state is added to every partial sum, and the "
            "last partial sum is what you return."
        ),
        (
            "`kv = (phi_k.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(-3)`, `z = phi_k.cumsum(-2)`, plus the "
            "state if there is one; output `(phi_q.unsqueeze(-2) @ kv).squeeze(-2)` divided by "
            "`(phi_q * z).sum(-1, keepdim=True)`; return it with `(kv[..., -1, :, :], z[..., -1, :])`."
        ),
    ),
)
