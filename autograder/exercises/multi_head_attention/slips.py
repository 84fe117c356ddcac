"""The mistakes of multi-head attention that a report can name: each a setting of the knobs of `heads`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from autograder.exercises.basic_attention.attention_slips import (
    MASK_SLIPS,
    PRODUCT_SLIPS,
    SCALE_SLIPS,
    WEIGHT_SLIPS,
    Slip,
)
from autograder.exercises.basic_attention.variants import weigh
from autograder.oracle.attention import allowed_keys

__all__ = ["HEAD_SLIPS", "SHARED_SLIPS", "reshaped_apart", "reshaped_together", "strided"]


def reshaped_apart(x: Tensor, num_heads: int) -> Tensor:
    """The numbers of x read in memory order as (..., H, S, D / H): positions and features get mixed."""
    return x.reshape(*x.shape[:-2], num_heads, x.shape[-2], x.shape[-1] // num_heads)


def reshaped_together(heads: Tensor) -> Tensor:
    """The numbers of heads read in memory order as (..., S, H D)."""
    H, S, D = heads.shape[-3:]
    return heads.reshape(*heads.shape[:-3], S, H * D)


def strided(x: Tensor, num_heads: int) -> Tensor:
    """Head h gets features h, h + H, h + 2H, ..."""
    return x.unflatten(-1, (-1, num_heads)).movedim(-1, -3)


def strided_together(heads: Tensor) -> Tensor:
    """The inverse of `strided`."""
    return heads.movedim(-3, -1).flatten(-2)


def _first_head(weights: Tensor) -> Tensor:
    return weights[..., :1, :, :].expand_as(weights)


def _mean_head(weights: Tensor) -> Tensor:
    return weights.mean(-3, keepdim=True).expand_as(weights)


def _first_heads_mask(shape: tuple[int, ...], attn_mask: Tensor | None, is_causal: bool) -> Tensor:
    if attn_mask is not None and attn_mask.dim() >= 3:
        attn_mask = attn_mask[..., :1, :, :]
    return allowed_keys(shape, attn_mask, is_causal)


WIDTH = "Each head compares vectors of width D / num_heads. Which width is under the root?"
MIXED = (
    "A reshape straight to (H, S, D / H) mixes positions and features. Is the feature axis cut first, "
    "and are the axes then swapped?"
)

HEAD_SLIPS: tuple[Slip, ...] = (
    (
        "divided by the root of the whole width",
        WIDTH,
        {"scale": lambda q, k, v: (q.shape[-1] * q.shape[-3]) ** -0.5},
    ),
    ("divided by the root of num_heads", WIDTH, {"scale": lambda q, k, v: q.shape[-3] ** -0.5}),
    ("heads cut by a reshape alone", MIXED, {"cut": reshaped_apart}),
    ("heads cut by a reshape alone", MIXED, {"cut": reshaped_apart, "join": reshaped_together}),
    (
        "heads merged by a reshape alone",
        "Heads and positions must swap back before the features are joined. Is there a transpose before the reshape?",
        {"join": reshaped_together},
    ),
    (
        "every num_heads-th feature for a head",
        "Head h gets neighbouring features: is it unflatten(-1, (num_heads, -1)) rather than the other way round?",
        {"cut": strided},
    ),
    (
        "every num_heads-th feature for a head",
        "Head h gets neighbouring features: is it unflatten(-1, (num_heads, -1)) rather than the other way round?",
        {"cut": strided, "join": strided_together},
    ),
    (
        "softmax over the heads",
        "Heads do not compete with each other; the keys do. Is it dim=-1?",
        {"weigh": lambda s, a: s.masked_fill(~a, -1e30).softmax(-3) * a},
    ),
    (
        "softmax over keys and heads together",
        "Each head has weights of its own that sum to one. Is the softmax taken head by head?",
        {
            "weigh": lambda s, a: (
                weigh(s.movedim(-3, -2).flatten(-2), a.expand_as(s).movedim(-3, -2).flatten(-2))
                .unflatten(-1, (s.shape[-3], s.shape[-1]))
                .movedim(-2, -3)
            )
        },
    ),
    (
        "the first head's weights used for all",
        "Each head has weights of its own. Is an index 0 left over, or an axis of heads missing?",
        {"weigh": lambda s, a: _first_head(weigh(s, a))},
    ),
    (
        "weights averaged over the heads",
        "Each head averages its values with weights of its own. Is there a mean over the heads?",
        {"weigh": lambda s, a: _mean_head(weigh(s, a))},
    ),
    (
        "scores summed over the heads",
        "A sum over the heads is the score of one wide head. Does num_heads play any part in the weights?",
        {"score": lambda q, k: (q @ k.mT).sum(-3, keepdim=True).expand(*q.shape[:-1], k.shape[-2])},
    ),
    (
        "scores summed over the heads",
        "A sum over the heads is the score of one wide head. Does num_heads play any part in the weights?",
        {
            "score": lambda q, k: (q @ k.mT).sum(-3, keepdim=True).expand(*q.shape[:-1], k.shape[-2]),
            "scale": lambda q, k, v: (q.shape[-1] * q.shape[-3]) ** -0.5,
        },
    ),
    (
        "mask of the first head used for all",
        "attn_mask may have an axis of heads. Is its first head taken for all?",
        {"allow": _first_heads_mask},
    ),
)


_KEPT = {
    "not scaled",
    "multiplied by sqrt(D)",
    "divided by D",
    "divided by sqrt(D_v)",
    "divided by sqrt(S_k)",
    "divided by 8",
    "softmax over the queries",
    "no softmax",
    "exp without the division",
    "softmax applied twice",
    "equal weights for all keys",
    "sign turned round",
    "mask applied after the softmax",
    "mask added to the scores",
    "masked scores set to zero",
    "nan where no key is allowed",
    "uniform weights where no key is allowed",
    "mask ignored",
    "mask turned round",
    "mask of the first query used for all",
    "keys not transposed",
    "elementwise product where a matrix product is meant",
    "output made of the scores, not of the weights",
    "scores returned as weights",
}


def _named(slips: tuple[Slip, ...]) -> tuple[tuple[str, str, dict[str, Any]], ...]:
    return tuple(slip for slip in slips if slip[0] in _KEPT)


SHARED_SLIPS = _named(SCALE_SLIPS + MASK_SLIPS + WEIGHT_SLIPS + PRODUCT_SLIPS)
"""Mistakes of attention of any kind, made here inside each head."""
