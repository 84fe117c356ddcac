"""Exercise `adaptive_span_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.averaging import finite_when
from autograder.checks.conduct import FUSED, obeys
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.reach import adaptive_span_attention as formula
from autograder.situations import DTYPES, MODULE_AXES, Group, Situations, drawn_by, groups
from autograder.situations.factors import LONG_PRIMES, Factor
from autograder.situations.space import GRADIENT

__all__ = ["ADAPTIVE_SPAN_ATTENTION"]

OUTPUTS = ("output", "weights", "penalty")
FORMULA, SPAN = "agrees with the formula", "spans"
SHAPES = {"query": "... H S D", "key": "... H S D", "value": "... H S D_v"}
_heads = drawn_by(SHAPES, leading=1, high=6)
Spans = Callable[[Tensor], Tensor]


def draw(
    draw: Draw, *, spans: Spans = lambda some: some, ramp: float = 2.25, **options: Any
) -> dict[str, Any]:
    """query, key and value of H heads, what `spans` makes of a span for each head, between 0.3 and 3.7, and the ramp.

    Where spans are drawn, span + ramp is no whole number: whether a key is just behind it must not hang on rounding.
    """
    inputs = _heads(draw, **options)
    H = inputs["query"].shape[-3]
    some = 0.5 + draw.uniform(H, low=-0.2, high=0.2) + torch.arange(H) % 4
    return inputs | {"span": spans(some).to(inputs["query"].dtype), "ramp": ramp}


LENGTHS: Factor = {
    "several positions": {"S": (6, 10)},
    "a single position": {"S": 1},
    "as many positions as features": {"S": "D", "D": (5, 7), "D_v": "D"},
    "over a thousand positions": {"S": LONG_PRIMES[:1], "axes": 0, "H": 1, "D": 2, "D_v": 2},
    "over 256 positions in bfloat16":
        {"S": [263, 269], "axes": 0, "H": 1, "D": 3, "D_v": 2, "dtype": torch.bfloat16},
}  # fmt: skip
HEADS: Factor = {
    "several heads": {"H": (3, 4)},
    "one head": {"H": 1},
    "as many heads as positions": {"H": "S"},
}
SPANS: Factor = {
    "a span for each head": {},
    "spans longer than the text": {"spans": lambda some: some + 20.0},
    "no span": {"spans": lambda some: some * 0.0},
    "no span and a short ramp": {"spans": lambda some: some * 0.0, "ramp": 0.25},
    "whole numbers": {"spans": lambda some: some.round(), "ramp": 2.0},
    "one span for all heads": {"spans": lambda some: torch.full_like(some, 1.5)},
    "a long ramp": {"ramp": 30.25},
}


def _huge(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    return {**inputs, "query": inputs["query"] * (1e5 if inputs["query"].dtype == torch.float64 else 100.0)}


def _low(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """All scores but the first row's equal, and below -1e4; far lower still where rounding hides nothing."""
    far = (1024.0, 1024.0) if inputs["query"].dtype == torch.float64 else (256.0, 128.0)
    made = {name: torch.zeros_like(inputs[name]) for name in ("query", "key")}
    made["query"][..., 1:, 0], made["key"][..., 0] = far[0], -far[1]
    return {**inputs, **made}


def _huge_far_back(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """The score of the last query and the first key is huge, which spans may hide; all others are as they were."""
    far = 128.0 if inputs["query"].dtype == torch.float16 else 2.0**10
    query, key = inputs["query"].clone(), inputs["key"].clone()
    query[..., 0] = key[..., 0] = 0.0
    query[..., -1, 0], key[..., 0, 0] = far, far
    return {**inputs, "query": query, "key": key}


def _zeros(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """A key of nothing but zeros: not every score of 0 is a hidden one."""
    key = inputs["key"].clone()
    key[..., key.shape[-2] // 2, :] = 0.0
    return {**inputs, "key": key}


SCORES: Factor = {
    "ordinary scores": {}, "huge scores": _huge, "all scores low": _low,
    "a huge score far back": _huge_far_back, "a key of zeros": _zeros,
}  # fmt: skip

Mask = Callable[[Tensor, float, Tensor], Tensor]
"""span (H, 1, 1), ramp and i - j (S, S) -> the mask (H, S, S)."""


def _soft(span: Tensor, ramp: float, back: Tensor) -> Tensor:
    return ((ramp + span - back) / ramp).clamp(0, 1)


def _past(scores: Tensor) -> Tensor:
    return torch.ones(scores.shape[-2:], dtype=torch.bool).tril()


def _seen(scores: Tensor, mask: Tensor, top: Tensor) -> Tensor:
    seen = mask * torch.exp(scores - top.amax(-1, keepdim=True))
    return seen / seen.sum(-1, keepdim=True)


def _weigh(scores: Tensor, mask: Tensor, hidden: float = -torch.inf) -> Tensor:
    """The right weights, but for what hidden scores are set to."""
    low = scores.masked_fill(mask == 0, hidden)
    return _seen(low, mask, low)


def _of_the_past(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A softmax over the past of what is made of scores and mask."""
    return lambda s, m: change(s, m).masked_fill(~_past(s), -torch.inf).softmax(-1)


def _masked_later(scores: Tensor, mask: Tensor) -> Tensor:
    return _of_the_past(lambda s, m: s)(scores, mask) * mask


def _added_to_the_sum(scores: Tensor, mask: Tensor) -> Tensor:
    seen = _masked_later(scores, mask)
    return seen / (seen.sum(-1, keepdim=True) + 1e-8)


def _steps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    span: Tensor,
    ramp: float,
    *,
    mask: Mask = _soft,
    causal: bool = True,
    weigh: Callable[[Tensor, Tensor], Tensor] = _weigh,
    scale: Callable[[int], float] = lambda D: D**-0.5,
    penalty: Callable[[Tensor, float], Tensor] = lambda span, ramp: span.mean(),
) -> Mapping[str, Tensor]:
    """The function in steps."""
    place = torch.arange(query.shape[-2])
    back = (place[:, None] - place).to(query.dtype)
    allowed = mask(span[:, None, None], ramp, back)
    if causal:
        allowed = allowed.masked_fill(back < 0, 0.0)
    weights = weigh(query @ key.mT * scale(query.shape[-1]), allowed)
    return {"output": weights @ value, "weights": weights, "penalty": penalty(span, ramp)}


SHAPE = "m(x) = (ramp + span - x) / ramp, clamped to [0, 1]: one up to the span, zero from span + ramp on."
AGAIN = "The weights are m exp(score) over the sum of m exp(score): they sum to one after the mask, too."
PAYS = "The penalty is the mean of span over the heads."

SLIPS: Slips = {
    SHAPE + " A hard edge sends no gradient to the span.": {"hard span": {"mask": lambda z, R, x: (x <= z).to(z.dtype)}},
    SHAPE: {
        "hard span with the ramp": {"mask": lambda z, R, x: (x <= z + R).to(z.dtype)},
        "ramp ends at the span": {"mask": lambda z, R, x: ((z - x) / R).clamp(0, 1)},
        "mask not clamped": {"mask": lambda z, R, x: ((R + z - x) / R).clamp_min(0)},
    },
    "x is the distance back from the query, i - j. Is it j, the place from the start?": {
        "span counted from the start of the text": {"mask": lambda z, R, x: _soft(z, R, torch.arange(len(x), dtype=x.dtype))},
    },
    SHAPE + " Is it counted from the wrong end?": {
        "span turned round: far keys seen, near ones not":
            {"mask": lambda z, R, x: 1 - _soft(z, R, x), "weigh": lambda s, m: _weigh(s, m).nan_to_num()},
    },
    "Each head has a span of its own.": {
        "one span for all heads": {"mask": lambda z, R, x: _soft(z.mean(), R, x).expand(len(z), -1, -1)},
    },
    "Does span enter the mask?": {"span ignored": {"mask": lambda z, R, x: torch.ones(len(z), *x.shape, dtype=x.dtype)}},
    "ramp is a number of positions, and need not be whole.": {
        "ramp cut to a whole number": {"mask": lambda z, R, x: _soft(z, max(1, int(R)), x)},
    },
    "Positions j > i lie in the future: their weight is 0.": {"not causal": {"causal": False}},
    "Positions j > i lie in the future.": {
        "not causal, distances on both sides": {"causal": False, "mask": lambda z, R, x: _soft(z, R, x.abs())},
    },
    AGAIN: {"not normalised again after the mask": {"weigh": _masked_later}},
    "After a softmax over the whole past, what the span leaves can be smaller than what is added. Is the softmax taken over "
    "the keys with m > 0? Then the sum is never zero.": {"a small number added to the sum": {"weigh": _added_to_the_sum}},
    "Is the maximum that is subtracted that of the keys with m > 0? A position always sees itself.": {
        "a hidden score empties the row": [
            {"weigh": lambda s, m: _seen(s, m, s.masked_fill(~_past(s), -torch.inf))},
            {"weigh": lambda s, m: _seen(s, m, s)},
        ],
    },
    "Is the mask value -inf or the dtype's lowest number, or merely a low one?": {
        "mask value is not low enough": [{"weigh": lambda s, m, low=low: _weigh(s, m, low)} for low in (-1e4, -65504.0, -1e5)],
    },
    "A score of 0 still gets weight exp(0) = 1. The mask multiplies exp(score).": {
        "mask multiplies the scores": {"weigh": _of_the_past(lambda s, m: s * m)},
    },
    "The mask multiplies exp(score).": {"mask added to the scores": {"weigh": _of_the_past(lambda s, m: s + m)}},
    "Divide the scores by sqrt(D).": {"not scaled": {"scale": lambda D: 1.0}, "divided by D": {"scale": lambda D: 1 / D}},
    PAYS: {
        "penalty is the sum of the spans": {"penalty": lambda z, R: z.sum()},
        "penalty counts the ramp": {"penalty": lambda z, R: (z + R).mean()},
        "penalty is the largest span": {"penalty": lambda z, R: z.max()},
        "penalty squares the spans": {"penalty": lambda z, R: (z * z).mean()},
    },
}  # fmt: skip

ADAPTIVE_SPAN_ATTENTION = Exercise(
    name="adaptive_span_attention",
    assignment="efficient_attention",
    target=Target("adaptive_span_attention", OUTPUTS, formula),
    positional=(*SHAPES, "span", "ramp"),
    situations=Situations(
        draw=draw,
        factors={"spans": SPANS, "dtype": DTYPES, "heads": HEADS, "lengths": LENGTHS, "scores": SCORES, "axes": MODULE_AXES},
        axes=SHAPES,
        groups=groups(
            "values averaged by m(i - j) exp(score) over the past, the weights, and the mean of span", 2.0,
            (Group(SPAN, "longer than the text, none at all, different for each head, with any ramp", 1.25, ("spans", "heads")),),
            lengths=0.5, scores=1.0, gradient=0.5, dtypes=0.25, calls=0.75,
        ),
        never=({"spans": ("whole numbers", "no span"), "gradient": GRADIENT},  # a corner of m has no derivative
               {"scores": "all scores low", "lengths": "a single position"}),  # no position hidden
    ),
    recipes=(Recipe("plain", draw),),
    checks=(
        Check("own work", "attention is written out", 0.25, ("plain",), obeys(FUSED, "attention"), FORMULA, binding=True),
    ),
    diagnoses={
        "": (finite_when("huge scores", "all scores low"),
             responds({**dict.fromkeys(SHAPES, ("output",)), "span": OUTPUTS}, mixing="value")),
    },
    mistakes=slips(_steps, SLIPS),
    hints=(
        "How far back does key j lie from query i, and what is m of that distance? Draw it for span 2 and ramp 2.",
        "The (H, S, S) mask comes from span[:, None, None] and the table of i - j; the future is 0. The maximum that is "
        "subtracted before exp must be that of the keys with m > 0.",
        "`mask = ((ramp + span[:, None, None] - back) / ramp).clamp(0, 1)`, zero where back < 0; scores to -inf where "
        "mask == 0; `seen = mask * torch.exp(scores - scores.amax(-1, keepdim=True))`, divided by its sum; the penalty is "
        "`span.mean()`.",
    ),
)  # fmt: skip
