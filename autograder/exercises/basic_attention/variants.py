"""Attention with knobs, in float64: one function that makes most of the mistakes that students make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from autograder.oracle.attention import allowed_keys

__all__ = ["Allow", "Weigh", "attend", "dead_to_zero", "weigh"]

Scale = Callable[[Tensor, Tensor, Tensor], float]
Weigh = Callable[[Tensor, Tensor], Tensor]
Allow = Callable[[tuple[int, ...], "Tensor | None", bool], Tensor]


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
