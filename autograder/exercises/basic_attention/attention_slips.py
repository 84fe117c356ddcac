"""The mistakes of attention that a report can name: each a setting of the knobs of `attend`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autograder.exercises.basic_attention.variants import Allow, Weigh, dead_to_zero, weigh
from autograder.oracle.attention import allowed_keys

__all__ = [
    "ATTENTION_SLIPS",
    "CAUSAL_SLIPS",
    "MASK_SLIPS",
    "PRODUCT_SLIPS",
    "SCALE_SLIPS",
    "WEIGHT_SLIPS",
    "Slip",
]

Slip = tuple[str, str, dict[str, Any]]
"""Name, question and knobs of a mistake."""


def _triangle(shape: tuple[int, ...], diagonal: int, upper: bool = False) -> Tensor:
    ones = torch.ones(shape, dtype=torch.bool)
    return ones.triu(diagonal) if upper else ones.tril(diagonal)


def _causal(triangle: Callable[[tuple[int, ...]], Tensor]) -> Allow:
    """Another idea of what is_causal allows."""

    def allow(shape: tuple[int, ...], attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        allowed = triangle(shape) if is_causal else torch.ones(shape, dtype=torch.bool)
        return allowed if attn_mask is None else allowed & attn_mask

    return allow


def _mask(change: Callable[[Tensor], Tensor]) -> Allow:
    """Another idea of what attn_mask allows."""
    return lambda shape, attn_mask, is_causal: allowed_keys(
        shape, None if attn_mask is None else change(attn_mask), is_causal
    )


def _either(shape: tuple[int, ...], attn_mask: Tensor | None, is_causal: bool) -> Tensor:
    if attn_mask is None or not is_causal:
        return allowed_keys(shape, attn_mask, is_causal)
    return attn_mask | allowed_keys(shape, None, True)


def _softmax_over(axis: int) -> Weigh:
    return lambda scores, allowed: scores.masked_fill(~allowed, -torch.inf).softmax(axis).nan_to_num()


def _additive(scores: Tensor, allowed: Tensor) -> Tensor:
    return scores if bool(allowed.all()) else scores + allowed


SCALE = "Dot products of width D have variance D. Is it divided by sqrt(D), the last axis of query and key?"
HIDE = "Should forbidden scores be -inf before the softmax?"
ALIGNED = "With is_causal, query i sees keys 0..i, counted from the start of both sequences. Is it tril() of (S_q, S_k)?"

SCALE_SLIPS: tuple[Slip, ...] = (
    ("not scaled", SCALE, {"scale": lambda q, k, v: 1.0}),
    ("multiplied by sqrt(D)", SCALE, {"scale": lambda q, k, v: math.sqrt(q.shape[-1])}),
    ("divided by D", SCALE, {"scale": lambda q, k, v: 1 / q.shape[-1]}),
    ("divided by sqrt(D_v)", SCALE, {"scale": lambda q, k, v: 1 / math.sqrt(v.shape[-1])}),
    ("divided by sqrt(S_k)", SCALE, {"scale": lambda q, k, v: 1 / math.sqrt(k.shape[-2])}),
    ("divided by sqrt(S_q)", SCALE, {"scale": lambda q, k, v: 1 / math.sqrt(q.shape[-2])}),
    ("divided by the fourth root of D", SCALE, {"scale": lambda q, k, v: q.shape[-1] ** -0.25}),
    ("divided by 8", "sqrt(64) is 8, for vectors of width 64. " + SCALE, {"scale": lambda q, k, v: 1 / 8}),
    (
        "divided by the root of axis 0",
        "Is a number written where shape[-1] is meant?",
        {"scale": lambda q, k, v: q.shape[0] ** -0.5},
    ),
    (
        "divided by the root of axis 1",
        "Is a number written where shape[-1] is meant?",
        {"scale": lambda q, k, v: q.shape[1] ** -0.5},
    ),
    (
        "divided by the root of axis 2",
        "Is a number written where shape[-1] is meant?",
        {"scale": lambda q, k, v: q.shape[2] ** -0.5},
    ),
)

WEIGHT_SLIPS: tuple[Slip, ...] = (
    (
        "softmax over the queries",
        "Along which axis must a query's weights sum to one? The keys are the last.",
        {"weigh": _softmax_over(-2)},
    ),
    (
        "softmax over the first axis",
        "Is a number written where dim=-1 is meant?",
        {"weigh": _softmax_over(0)},
    ),
    ("softmax over the second axis", "Is dim=1 written where dim=-1 is meant?", {"weigh": _softmax_over(1)}),
    ("softmax over the third axis", "Is dim=2 written where dim=-1 is meant?", {"weigh": _softmax_over(2)}),
    (
        "no softmax",
        "Raw scores can be negative and do not sum to one. Where is the softmax?",
        {"weigh": lambda s, a: s.masked_fill(~a, 0.0)},
    ),
    (
        "scores divided by their sum",
        "Scores can be negative, and so can their sum. Should exp come first?",
        {"weigh": lambda s, a: (s * a) / (s * a).sum(-1, keepdim=True)},
    ),
    (
        "scores divided by the sum of their sizes",
        "Nothing makes such numbers positive. Should exp come first?",
        {"weigh": lambda s, a: s * a / (s * a).abs().sum(-1, keepdim=True).clamp_min(1e-12)},
    ),
    (
        "scores divided by their length",
        "F.normalize divides by a norm. Where is the softmax?",
        {"weigh": lambda s, a: s * a / (s * a).norm(dim=-1, keepdim=True).clamp_min(1e-12)},
    ),
    (
        "exp without the division",
        "exp makes scores positive. What makes a row sum to one?",
        {"weigh": lambda s, a: s.exp() * a},
    ),
    (
        "relu where exp is meant",
        "A negative score should get little weight, not none. Where is exp?",
        {"weigh": lambda s, a: s.relu() * a / (s.relu() * a).sum(-1, keepdim=True).clamp_min(1e-12)},
    ),
    (
        "log_softmax where softmax is meant",
        "Logarithms of weights are negative. Is exp missing?",
        {"weigh": lambda s, a: s.masked_fill(~a, -1e30).log_softmax(-1) * a},
    ),
    (
        "absolute value of the scores",
        "Should a key that points the other way get as much weight?",
        {"weigh": lambda s, a: weigh(s.abs(), a)},
    ),
    (
        "2 to the power of the scores where exp is meant",
        "Which base does the softmax have?",
        {"weigh": lambda s, a: weigh(s * math.log(2), a)},
    ),
    (
        "sigmoid of each score",
        "Do the keys of a row compete with each other?",
        {"weigh": lambda s, a: s.sigmoid() * a},
    ),
    (
        "one-hot maximum",
        "Should every allowed key get some weight?",
        {"weigh": lambda s, a: weigh(s * 1e9, a)},
    ),
    (
        "softmax applied twice",
        "Are the weights normalised a second time?",
        {"weigh": lambda s, a: weigh(weigh(s, a), a)},
    ),
    (
        "equal weights for all keys",
        "Do the scores enter the weights?",
        {"weigh": lambda s, a: weigh(torch.zeros_like(s), a)},
    ),
    ("sign turned round", "Does the best key get the smallest weight?", {"weigh": lambda s, a: weigh(-s, a)}),
    (
        "mask applied after the softmax",
        HIDE + " Only then does the rest still sum to one.",
        {"weigh": lambda s, a: s.softmax(-1) * a},
    ),
    ("mask applied after the softmax", HIDE + " Only then does the rest still sum to one.", {"late": True}),
    (
        "mask added to the scores",
        "A bool mask adds only 0 or 1. " + HIDE,
        {"weigh": lambda s, a: _additive(s, a).softmax(-1)},
    ),
    (
        "mask added to the scores",
        "A bool mask adds only 0 or 1. " + HIDE,
        {"weigh": lambda s, a: dead_to_zero(_additive(s, a).softmax(-1), a)},
    ),
    (
        "masked scores set to zero",
        "exp(0) is 1: a score of zero still gets weight. " + HIDE,
        {"weigh": lambda s, a: (s * a).softmax(-1)},
    ),
    (
        "masked scores set to zero",
        "exp(0) is 1: a score of zero still gets weight. " + HIDE,
        {"weigh": lambda s, a: dead_to_zero((s * a).softmax(-1), a)},
    ),
    (
        "nan where no key is allowed",
        "A row of nothing but -inf has no softmax. Are dead rows set to zero?",
        {"weigh": lambda s, a: s.masked_fill(~a, -torch.inf).softmax(-1)},
    ),
    (
        "uniform weights where no key is allowed",
        "Are dead rows set to zero after the softmax?",
        {"weigh": lambda s, a: s.masked_fill(~a, -1e30).softmax(-1)},
    ),
)

MASK_SLIPS: tuple[Slip, ...] = (
    (
        "mask ignored",
        "Is attn_mask used at all?",
        {"allow": lambda shape, m, c: allowed_keys(shape, None, c)},
    ),
    (
        "mask turned round",
        "True means allowed. Is it the False places that are hidden?",
        {"allow": _mask(lambda m: ~m)},
    ),
    (
        "mask turned round",
        "True means allowed. Is it the False places that are hidden?",
        {"allow": _mask(lambda m: ~m), "weigh": lambda s, a: s.masked_fill(~a, -torch.inf).softmax(-1)},
    ),
    (
        "mask of the first query used for all",
        "Each query has a row of attn_mask to itself. Is one row taken for all?",
        {"allow": _mask(lambda m: m[..., :1, :])},
    ),
    (
        "mask of the first batch element used for all",
        "Do the leading axes of attn_mask count?",
        {"allow": _mask(lambda m: m.reshape(-1, *m.shape[-2:])[0])},
    ),
)

CAUSAL_SLIPS: tuple[Slip, ...] = (
    (
        "is_causal ignored",
        "Is is_causal used at all?",
        {"allow": lambda shape, m, c: allowed_keys(shape, m, False)},
    ),
    (
        "always causal",
        "Should the triangle apply only if is_causal is True?",
        {"allow": lambda shape, m, c: allowed_keys(shape, m, True)},
    ),
    (
        "causal mask aligned at the bottom right",
        ALIGNED,
        {"allow": _causal(lambda s: _triangle(s, s[-1] - s[-2]))},
    ),
    (
        "causal mask hides the present",
        "May a position see itself? " + ALIGNED,
        {"allow": _causal(lambda s: _triangle(s, -1))},
    ),
    (
        "causal mask hides the present",
        "May a position see itself? " + ALIGNED,
        {
            "allow": _causal(lambda s: _triangle(s, -1)),
            "weigh": lambda s, a: s.masked_fill(~a, -torch.inf).softmax(-1),
        },
    ),
    ("causal mask shows one key of the future", ALIGNED, {"allow": _causal(lambda s: _triangle(s, 1))}),
    (
        "causal mask turned round",
        "Is the past hidden and the future shown? " + ALIGNED,
        {"allow": _causal(lambda s: _triangle(s, 0, upper=True))},
    ),
    (
        "causal mask turned round",
        "Is the past hidden and the future shown? " + ALIGNED,
        {"allow": _causal(lambda s: _triangle(s, 1, upper=True))},
    ),
    (
        "attn_mask replaces the causal mask",
        "With both given, a key must be allowed by both.",
        {"allow": lambda shape, m, c: allowed_keys(shape, m, c and m is None)},
    ),
    (
        "the causal mask replaces attn_mask",
        "With both given, a key must be allowed by both.",
        {"allow": lambda shape, m, c: allowed_keys(shape, None if c else m, c)},
    ),
    (
        "allowed by one mask is enough",
        "With both given, a key must be allowed by both: & or |?",
        {"allow": _either},
    ),
)

PRODUCT_SLIPS: tuple[Slip, ...] = (
    (
        "cosine where the scaled dot product is meant",
        "Are query and key normalised? Their length should count.",
        {
            "score": lambda q, k: (q / q.norm(dim=-1, keepdim=True)) @ (k / k.norm(dim=-1, keepdim=True)).mT,
            "scale": lambda q, k, v: 1.0,
        },
    ),
    (
        "negative distance where the dot product is meant",
        "Is it the product that is asked for?",
        {"score": lambda q, k: -torch.cdist(q, k)},
    ),
    ("keys not transposed", "Should it be key.transpose(-2, -1)?", {"score": lambda q, k: q @ k}),
    (
        "all axes of the keys reversed",
        "Does .T turn the batch axes round as well? Only the last two should swap.",
        {"score": lambda q, k: q @ k.permute(*reversed(range(k.dim())))},
    ),
    (
        "elementwise product where a matrix product is meant",
        "Is it * where @ is meant?",
        {"score": lambda q, k: q * k.mT},
    ),
    (
        "elementwise product where a matrix product is meant",
        "Is it * where @ is meant?",
        {"average": lambda w, v, s: w * v},
    ),
    (
        "output made of the scores, not of the weights",
        "Which of the two tables is multiplied by the values?",
        {"average": lambda w, v, s: s @ v},
    ),
    (
        "scores returned as weights",
        "The second result is the weights, after the softmax. Are the scores returned?",
        {"returned": lambda w, s: s},
    ),
    (
        "weights returned before the mask",
        "Are the returned weights those that made the output?",
        {"returned": lambda w, s: s.softmax(-1)},
    ),
)

ATTENTION_SLIPS = SCALE_SLIPS + MASK_SLIPS + CAUSAL_SLIPS + WEIGHT_SLIPS + PRODUCT_SLIPS
