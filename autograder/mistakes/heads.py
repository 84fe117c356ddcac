"""Attention in heads, in named steps, in float64, and the mistakes that students make with heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.mistakes.attention import Weigh, attend, weigh
from autograder.mistakes.mistake import Slips
from autograder.oracle.attention import allowed_keys
from autograder.oracle.multi_head import merge, split

__all__ = ["HEAD_SLIPS", "heads", "reshaped_apart", "reshaped_together", "strided", "strided_together"]


def heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    cut: Callable[[Tensor, int], Tensor] = split,
    join: Callable[[Tensor], Tensor] = merge,
    **steps: Any,
) -> Mapping[str, Tensor]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v) -> output (..., S_q, D_v), weights (..., H, S_q, S_k).

    cut: x, H -> heads. join: heads -> features. The other steps are those of `attend`.
    """
    queries, keys, values = (cut(x, num_heads) for x in (query, key, value))
    result = attend(queries, keys, values, attn_mask, is_causal, **steps)
    return {"output": join(result["output"]), "weights": result["weights"]}


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


def _whole_width(query: Tensor, key: Tensor, value: Tensor) -> float:
    return float((query.shape[-1] * query.shape[-3]) ** -0.5)


def _summed(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.mT).sum(-3, keepdim=True).expand(*query.shape[:-1], key.shape[-2])


def _over_heads_and_keys(scores: Tensor, allowed: Tensor) -> Tensor:
    flat = weigh(*(x.expand_as(scores).movedim(-3, -2).flatten(-2) for x in (scores, allowed)))
    return flat.unflatten(-1, (scores.shape[-3], scores.shape[-1])).movedim(-2, -3)


def _first_heads_mask(shape: tuple[int, ...], attn_mask: Tensor | None, is_causal: bool) -> Tensor:
    if attn_mask is not None and attn_mask.dim() >= 3:
        attn_mask = attn_mask[..., :1, :, :]
    return allowed_keys(shape, attn_mask, is_causal)


def _for_all(change: Callable[[Tensor], Tensor]) -> Weigh:
    """One head's table of weights in place of all of them."""
    return lambda scores, allowed: change(weigh(scores, allowed)).expand_as(scores)


HEAD_SLIPS: Slips = {
    "Each head compares vectors of width D / num_heads. Which width is under the root?": {
        "divided by the root of the whole width": {"scale": _whole_width},
        "divided by the root of num_heads": {"scale": lambda q, k, v: q.shape[-3] ** -0.5},
    },
    "A reshape straight to (H, S, D / H) mixes positions and features. Is the feature axis cut first, and are the axes then "
    "swapped?": {
        "heads cut by a reshape alone": [{"cut": reshaped_apart}, {"cut": reshaped_apart, "join": reshaped_together}],
    },
    "Heads and positions must swap back before the features are joined. Is there a transpose before the reshape?": {
        "heads merged by a reshape alone": {"join": reshaped_together},
    },
    "Head h gets neighbouring features: is it unflatten(-1, (num_heads, -1)) rather than the other way round?": {
        "every num_heads-th feature for a head": [{"cut": strided}, {"cut": strided, "join": strided_together}],
    },
    "Heads do not compete with each other; the keys do. Is it dim=-1?": {
        "softmax over the heads": {"weigh": lambda s, a: s.masked_fill(~a, -1e30).softmax(-3) * a},
    },
    "Each head has weights of its own that sum to one. Is the softmax taken head by head?": {
        "softmax over keys and heads together": {"weigh": _over_heads_and_keys},
    },
    "Each head has weights of its own. Is an index 0 left over, or an axis of heads missing?": {
        "the first head's weights used for all": {"weigh": _for_all(lambda w: w[..., :1, :, :])},
    },
    "Each head averages its values with weights of its own. Is there a mean over the heads?": {
        "weights averaged over the heads": {"weigh": _for_all(lambda w: w.mean(-3, keepdim=True))},
    },
    "A sum over the heads is the score of one wide head. Does num_heads play any part in the weights?": {
        "scores summed over the heads": [{"score": _summed}, {"score": _summed, "scale": _whole_width}],
    },
    "Do the scores enter the weights?": {
        "equal weights for all keys": {"weigh": lambda s, a: torch.full_like(s, 1 / s.shape[-1])},
    },
    "attn_mask may have an axis of heads. Is its first head taken for all?": {
        "mask of the first head used for all": {"allow": _first_heads_mask},
    },
}  # fmt: skip
