"""Heads, multi-head attention and the Transformer block, in float64, with every rounding step explicit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autograder.oracle.attention import attend, linear
from autograder.oracle.quantity import Quantity, Rounder, exact

__all__ = ["block", "merge", "merge_heads", "module", "multi_head", "split", "split_heads"]

EPS = 1e-5
"""What nn.LayerNorm adds to the variance."""


def split(x: Tensor, num_heads: int) -> Tensor:
    """x (..., S, D) -> (..., H, S, D / H)."""
    return torch.stack(x.chunk(num_heads, -1), -3)


def merge(heads: Tensor) -> Tensor:
    """heads (..., H, S, D_head) -> (..., S, H D_head)."""
    return torch.cat(heads.unbind(-3), -1)


def split_heads(x: Tensor, num_heads: int, round: Rounder = exact) -> dict[str, Quantity]:
    """x (..., S, D) -> heads (..., H, S, D / H). Nothing is computed, so nothing is rounded."""
    return {"heads": Quantity(split(x, num_heads), split(x.abs(), num_heads))}


def merge_heads(heads: Tensor, round: Rounder = exact) -> dict[str, Quantity]:
    """heads (..., H, S, D_head) -> merged (..., S, H D_head). Nothing is computed, so nothing is rounded."""
    return {"merged": Quantity(merge(heads), merge(heads.abs()))}


def multi_head(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v)
    -> output (..., S_q, D_v), weights (..., H, S_q, S_k). No projections."""
    parts = tuple(Quantity(x, x.abs()) for x in (query, key, value))
    return _heads(parts, num_heads, attn_mask, is_causal, round)


def _anew(x: Quantity) -> Quantity:
    """A result as the input of the next step: its own size is what that step's rounding is measured against.

    Sizes carried on from step to step would multiply: after six of them they exceed every result by orders of magnitude,
    and so would the tolerance. What earlier steps lose is in the baseline, which rounds at each of them.
    """
    return Quantity(x.value, x.value.abs(), x.growth)


def _heads(
    parts: tuple[Quantity, ...],
    num_heads: int,
    attn_mask: Tensor | None,
    is_causal: bool,
    round: Rounder,
) -> dict[str, Quantity]:
    query, key, value = (split(part.value, num_heads) for part in parts)
    result = attend(query, key, value, (query.abs(), key.abs(), value.abs()), attn_mask, is_causal, round)
    output = result["output"]
    return {
        "output": Quantity(merge(output.value), merge(output.magnitude), output.growth),
        "weights": result["weights"],
    }


def module(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    need_weights: bool = False,
    *,
    num_heads: int,
    round: Rounder = exact,
    **weights: Tensor,
) -> dict[str, Quantity]:
    """query (..., S_q, d_model), key and value (..., S_k, d_model), weights `q_proj`, `q_proj_bias`, ... as in nn.Linear
    -> output (..., S_q, d_model) and, with need_weights, weights (..., H, S_q, S_k)."""
    key = query if key is None else key
    sources = (query, key, key if value is None else value)
    inputs = tuple(Quantity(source, source.abs()) for source in sources)
    result = _projected(inputs, attn_mask, is_causal, num_heads, round, weights)
    return result if need_weights else {"output": result["output"]}


def _projected(
    inputs: tuple[Quantity, ...],
    attn_mask: Tensor | None,
    is_causal: bool,
    num_heads: int,
    round: Rounder,
    weights: Mapping[str, Tensor],
) -> dict[str, Quantity]:
    def project(name: str, x: Quantity) -> Quantity:
        return linear(x, weights[name], weights.get(f"{name}_bias"), round)

    names = ("q_proj", "k_proj", "v_proj")
    parts = tuple(project(name, _anew(x)) for name, x in zip(names, inputs, strict=True))
    result = _heads(parts, num_heads, attn_mask, is_causal, round)
    # Not anew: an average of many values may be as good as zero, and is rounded as its terms are.
    return {"output": project("out_proj", result["output"]), "weights": result["weights"]}


def _layer_norm(x: Quantity, gain: Tensor, shift: Tensor, round: Rounder) -> Quantity:
    """x (..., D), less its mean, divided by its standard deviation, times gain (D,), plus shift (D,)."""
    x = _anew(x)
    centred = round(x.value - round(x.value.mean(-1, keepdim=True)))
    deviation = round((round(centred.square().mean(-1, keepdim=True)) + EPS).sqrt())
    unit = centred / deviation
    # Errors of x, of its mean, and of the deviation, whose relative error is at most that of the row as a whole.
    spread = x.magnitude + x.magnitude.mean(-1, keepdim=True)
    relative = x.magnitude.square().mean(-1, keepdim=True).sqrt() / deviation
    magnitude = (spread / deviation + unit.abs() * relative) * gain.abs() + shift.abs()
    return Quantity(round(round(round(unit) * gain) + shift), magnitude, x.growth)


def block(
    x: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    num_heads: int,
    norm_first: bool = True,
    round: Rounder = exact,
    **weights: Tensor,
) -> dict[str, Quantity]:
    """x (..., S, d_model), weights `attention.q_proj`, `linear1`, `norm1_bias`, ... -> output (..., S, d_model)."""
    inner = {
        name.removeprefix("attention."): weight
        for name, weight in weights.items()
        if name.startswith("attention.")
    }

    def norm(name: str, source: Quantity) -> Quantity:
        shift = weights.get(f"{name}_bias", torch.zeros_like(weights[name]))
        return _layer_norm(source, weights[name], shift, round)

    def attention(source: Quantity) -> Quantity:
        return _projected((source,) * 3, attn_mask, is_causal, num_heads, round, inner)["output"]

    def feed_forward(source: Quantity) -> Quantity:
        hidden = linear(_anew(source), weights["linear1"], weights.get("linear1_bias"), round)
        active = Quantity(hidden.value.relu(), hidden.magnitude, hidden.growth)
        return linear(_anew(active), weights["linear2"], weights.get("linear2_bias"), round)

    def added(one: Quantity, other: Quantity) -> Quantity:
        growth = max(one.growth, other.growth)
        return Quantity(round(one.value + other.value), one.magnitude + other.magnitude, growth)

    state = Quantity(x, x.abs())
    for name, part in (("norm1", attention), ("norm2", feed_forward)):
        step = part(norm(name, state) if norm_first else state)
        state = added(state, step)
        state = state if norm_first else norm(name, state)
    return {"output": state}
