"""Attention in named steps, in float64, and the mistakes that students make in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from autograder.mistakes.mistake import Slips
from autograder.oracle.attention import allowed_keys

__all__ = ["ATTENTION_SLIPS", "CAUSAL_SLIPS", "MASK_SLIPS", "PRODUCT_SLIPS", "SCALE_SLIPS", "WEIGHT_SLIPS", "Allow", "Weigh",
           "attend", "dead_to_zero", "only", "weigh"]  # fmt: skip

Scale = Callable[[Tensor, Tensor, Tensor], float]
Weigh = Callable[[Tensor, Tensor], Tensor]
Allow = Callable[[tuple[int, ...], "Tensor | None", bool], Tensor]


def one(*_: Tensor) -> float:
    """No scale."""
    return 1.0


def sqrt_width(query: Tensor, key: Tensor, value: Tensor) -> float:
    """The right scale: 1 / sqrt(D)."""
    return 1 / math.sqrt(query.shape[-1])


def dead_to_zero(weights: Tensor, allowed: Tensor) -> Tensor:
    """The weights with rows that allow no key set to zero."""
    return weights.masked_fill(~allowed.any(-1, keepdim=True), 0.0)


def weigh(scores: Tensor, allowed: Tensor) -> Tensor:
    """The right weights: softmax over the allowed keys, dead rows zero."""
    hidden = scores.masked_fill(~allowed, -torch.inf)
    return dead_to_zero(hidden.softmax(-1).nan_to_num(), allowed)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    scale: Scale = sqrt_width,
    weigh: Weigh = weigh,
    allow: Allow = allowed_keys,
    score: Callable[[Tensor, Tensor], Tensor] = lambda query, key: query @ key.mT,
    average: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda weights, value, scores: weights @ value,
    late: bool = False,
    returned: Callable[[Tensor, Tensor], Tensor] = lambda weights, scores: weights,
) -> Mapping[str, Tensor]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v) -> output (..., S_q, D_v), weights (..., S_q, S_k).

    scale: factor of the scores. weigh: scores and allowed keys -> weights. allow: shape, attn_mask, is_causal -> allowed
    keys. score, average: the two products. late: attn_mask multiplies the weights. returned: what is handed out as weights.
    """
    scores = score(query, key) * scale(query, key, value)
    allowed = allow(tuple(scores.shape), None if late else attn_mask, is_causal)
    weights = weigh(scores, allowed)
    if late and attn_mask is not None:
        weights = weights * attn_mask
    return {"output": average(weights, value, scores), "weights": returned(weights, scores)}


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

SCALE_SLIPS: Slips = {
    SCALE: {
        "not scaled": {"scale": one},
        "multiplied by sqrt(D)": {"scale": lambda q, k, v: math.sqrt(q.shape[-1])},
        "divided by D": {"scale": lambda q, k, v: 1 / q.shape[-1]},
        "divided by sqrt(D_v)": {"scale": lambda q, k, v: 1 / math.sqrt(v.shape[-1])},
        "divided by sqrt(S_k)": {"scale": lambda q, k, v: 1 / math.sqrt(k.shape[-2])},
        "divided by sqrt(S_q)": {"scale": lambda q, k, v: 1 / math.sqrt(q.shape[-2])},
        "divided by the fourth root of D": {"scale": lambda q, k, v: q.shape[-1] ** (-0.25)},
    },
    "sqrt(64) is 8, for vectors of width 64. " + SCALE: {"divided by 8": {"scale": lambda q, k, v: 1 / 8}},
    "Is a number written where shape[-1] is meant?": {
        "divided by the root of axis 0": {"scale": lambda q, k, v: q.shape[0] ** (-0.5)},
        "divided by the root of axis 1": {"scale": lambda q, k, v: q.shape[1] ** (-0.5)},
        "divided by the root of axis 2": {"scale": lambda q, k, v: q.shape[2] ** (-0.5)},
    },
}  # fmt: skip

WEIGHT_SLIPS: Slips = {
    "Along which axis must a query's weights sum to one? The keys are the last.": {
        "softmax over the queries": {"weigh": _softmax_over(-2)},
    },
    "Is a number written where dim=-1 is meant?": {"softmax over the first axis": {"weigh": _softmax_over(0)}},
    "Is dim=1 written where dim=-1 is meant?": {"softmax over the second axis": {"weigh": _softmax_over(1)}},
    "Is dim=2 written where dim=-1 is meant?": {"softmax over the third axis": {"weigh": _softmax_over(2)}},
    "Raw scores can be negative and do not sum to one. Where is the softmax?": {
        "no softmax": {"weigh": lambda s, a: s.masked_fill(~a, 0.0)},
    },
    "Scores can be negative, and so can their sum. Should exp come first?": {
        "scores divided by their sum": {"weigh": lambda s, a: s * a / (s * a).sum(-1, keepdim=True)},
    },
    "Nothing makes such numbers positive. Should exp come first?": {
        "scores divided by the sum of their sizes":
            {"weigh": lambda s, a: s * a / (s * a).abs().sum(-1, keepdim=True).clamp_min(1e-12)},
    },
    "F.normalize divides by a norm. Where is the softmax?": {
        "scores divided by their length": {"weigh": lambda s, a: s * a / (s * a).norm(dim=-1, keepdim=True).clamp_min(1e-12)},
    },
    "exp makes scores positive. What makes a row sum to one?": {"exp without the division": {"weigh": lambda s, a: s.exp() * a}},
    "A negative score should get little weight, not none. Where is exp?": {
        "relu where exp is meant": {"weigh": lambda s, a: s.relu() * a / (s.relu() * a).sum(-1, keepdim=True).clamp_min(1e-12)},
    },
    "Logarithms of weights are negative. Is exp missing?": {
        "log_softmax where softmax is meant": {"weigh": lambda s, a: s.masked_fill(~a, -1e+30).log_softmax(-1) * a},
    },
    "Should a key that points the other way get as much weight?": {
        "absolute value of the scores": {"weigh": lambda s, a: weigh(s.abs(), a)},
    },
    "Which base does the softmax have?": {
        "2 to the power of the scores where exp is meant": {"weigh": lambda s, a: weigh(s * math.log(2), a)},
    },
    "Do the keys of a row compete with each other?": {"sigmoid of each score": {"weigh": lambda s, a: s.sigmoid() * a}},
    "Should every allowed key get some weight?": {"one-hot maximum": {"weigh": lambda s, a: weigh(s * 1000000000.0, a)}},
    "Are the weights normalised a second time?": {"softmax applied twice": {"weigh": lambda s, a: weigh(weigh(s, a), a)}},
    "Do the scores enter the weights?": {"equal weights for all keys": {"weigh": lambda s, a: weigh(torch.zeros_like(s), a)}},
    "Does the best key get the smallest weight?": {"sign turned round": {"weigh": lambda s, a: weigh(-s, a)}},
    HIDE + " Only then does the rest still sum to one.": {
        "mask applied after the softmax": [{"weigh": lambda s, a: s.softmax(-1) * a}, {"late": True}],
    },
    "A bool mask adds only 0 or 1. " + HIDE: {
        "mask added to the scores": [
            {"weigh": lambda s, a: _additive(s, a).softmax(-1)},
            {"weigh": lambda s, a: dead_to_zero(_additive(s, a).softmax(-1), a)},
        ],
    },
    "exp(0) is 1: a score of zero still gets weight. " + HIDE: {
        "masked scores set to zero": [
            {"weigh": lambda s, a: (s * a).softmax(-1)},
            {"weigh": lambda s, a: dead_to_zero((s * a).softmax(-1), a)},
        ],
    },
    "A row of nothing but -inf has no softmax. Are dead rows set to zero?": {
        "nan where no key is allowed": {"weigh": lambda s, a: s.masked_fill(~a, -torch.inf).softmax(-1)},
    },
    "Are dead rows set to zero after the softmax?": {
        "uniform weights where no key is allowed": {"weigh": lambda s, a: s.masked_fill(~a, -1e+30).softmax(-1)},
    },
}  # fmt: skip

MASK_SLIPS: Slips = {
    "Is attn_mask used at all?": {"mask ignored": {"allow": lambda shape, m, c: allowed_keys(shape, None, c)}},
    "True means allowed. Is it the False places that are hidden?": {
        "mask turned round": [
            {"allow": _mask(lambda m: ~m)},
            {"allow": _mask(lambda m: ~m), "weigh": lambda s, a: s.masked_fill(~a, -torch.inf).softmax(-1)},
        ],
    },
    "Each query has a row of attn_mask to itself. Is one row taken for all?": {
        "mask of the first query used for all": {"allow": _mask(lambda m: m[..., :1, :])},
    },
    "Do the leading axes of attn_mask count?": {
        "mask of the first batch element used for all": {"allow": _mask(lambda m: m.reshape(-1, *m.shape[-2:])[0])},
    },
}  # fmt: skip

CAUSAL_SLIPS: Slips = {
    "Is is_causal used at all?": {"is_causal ignored": {"allow": lambda shape, m, c: allowed_keys(shape, m, False)}},
    "Should the triangle apply only if is_causal is True?": {
        "always causal": {"allow": lambda shape, m, c: allowed_keys(shape, m, True)},
    },
    ALIGNED: {
        "causal mask aligned at the bottom right": {"allow": _causal(lambda s: _triangle(s, s[-1] - s[-2]))},
        "causal mask shows one key of the future": {"allow": _causal(lambda s: _triangle(s, 1))},
    },
    "May a position see itself? " + ALIGNED: {
        "causal mask hides the present": [
            {"allow": _causal(lambda s: _triangle(s, -1))},
            {"allow": _causal(lambda s: _triangle(s, -1)), "weigh": lambda s, a: s.masked_fill(~a, -torch.inf).softmax(-1)},
        ],
    },
    "Is the past hidden and the future shown? " + ALIGNED: {
        "causal mask turned round": [
            {"allow": _causal(lambda s: _triangle(s, 0, upper=True))},
            {"allow": _causal(lambda s: _triangle(s, 1, upper=True))},
        ],
    },
    "With both given, a key must be allowed by both.": {
        "attn_mask replaces the causal mask": {"allow": lambda shape, m, c: allowed_keys(shape, m, c and m is None)},
        "the causal mask replaces attn_mask": {"allow": lambda shape, m, c: allowed_keys(shape, None if c else m, c)},
    },
    "With both given, a key must be allowed by both: & or |?": {"allowed by one mask is enough": {"allow": _either}},
}  # fmt: skip

PRODUCT_SLIPS: Slips = {
    "Are query and key normalised? Their length should count.": {
        "cosine where the scaled dot product is meant":
            {"score": lambda q, k: q / q.norm(dim=-1, keepdim=True) @ (k / k.norm(dim=-1, keepdim=True)).mT, "scale": one},
    },
    "Is it the product that is asked for?": {
        "negative distance where the dot product is meant": {"score": lambda q, k: -torch.cdist(q, k)},
    },
    "Should it be key.transpose(-2, -1)?": {"keys not transposed": {"score": lambda q, k: q @ k}},
    "Does .T turn the batch axes round as well? Only the last two should swap.": {
        "all axes of the keys reversed": {"score": lambda q, k: q @ k.permute(*reversed(range(k.dim())))},
    },
    "Is it * where @ is meant?": {
        "elementwise product where a matrix product is meant": [
            {"score": lambda q, k: q * k.mT},
            {"average": lambda w, v, s: w * v},
        ],
    },
    "Which of the two tables is multiplied by the values?": {
        "output made of the scores, not of the weights": {"average": lambda w, v, s: s @ v},
    },
    "The second result is the weights, after the softmax. Are the scores returned?": {
        "scores returned as weights": {"returned": lambda w, s: s},
    },
    "Are the returned weights those that made the output?": {
        "weights returned before the mask": {"returned": lambda w, s: s.softmax(-1)},
    },
}  # fmt: skip


ATTENTION_SLIPS = (SCALE_SLIPS, MASK_SLIPS, CAUSAL_SLIPS, WEIGHT_SLIPS, PRODUCT_SLIPS)
"""All of them."""


def only(*names: str) -> tuple[Slips, ...]:
    """All tables, with the mistakes of these names alone."""
    return tuple(
        {
            question: {name: way for name, way in rows.items() if name in names}
            for question, rows in table.items()
        }
        for table in ATTENTION_SLIPS
    )
