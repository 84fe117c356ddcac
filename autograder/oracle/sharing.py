"""Attention that shares something, in float64: a matrix, a projection, heads, a layer, a backbone; and what that saves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autograder.case import Layer, Residual
from autograder.oracle.attention import attention, cross_attention, linear, masked_softmax
from autograder.oracle.quantity import Quantity, Rounder, exact
from autograder.oracle.scores import multiplicative

__all__ = [
    "grouped_query_attention",
    "kv_cache_bytes",
    "layer_parameters",
    "layer_stack",
    "shared_attention",
    "symmetric_attention",
    "task_attention",
]


def shared_attention(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor, round: Rounder = exact
) -> dict[str, Quantity]:
    """query (..., S_q, D_q), key (..., S_k, D_k), value (..., S_k, D_v), weight (D_q, D_k)
    -> output (..., S_q, D_v), weights (..., S_q, S_k): softmax(query weight key^T) value."""
    scores = multiplicative(query, key, weight, round)
    weights = masked_softmax(scores.value, torch.ones(scores.value.shape[-2:], dtype=torch.bool), round)
    growth = float(scores.magnitude.detach().max())
    return {
        "output": Quantity(round(weights.value @ value), weights.magnitude @ value.abs(), growth),
        "weights": Quantity(weights.value, weights.magnitude, growth),
    }


def symmetric_attention(
    x: Tensor,
    is_causal: bool = False,
    attn_mask: Tensor | None = None,
    round: Rounder = exact,
    **weights: Tensor,
) -> dict[str, Quantity]:
    """x (..., S, d_model), weights `qk_proj`, `v_proj`, `out_proj` as in nn.Linear, each with its `_bias`
    -> output (..., S, d_model), weights (..., S, S). attn_mask is for checks that say is_causal in another way."""
    twice = {
        f"{part}_proj{end}": weights[f"qk_proj{end}"]
        for part in ("q", "k")
        for end in ("", "_bias")
        if f"qk_proj{end}" in weights
    }
    return cross_attention(x, x, attn_mask, is_causal, round, **twice, **weights)


def grouped_query_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool = False,
    attn_mask: Tensor | None = None,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    """query (B, H_q, S_q, D), key (B, H_kv, S_k, D), value (B, H_kv, S_k, D_v)
    -> output (B, H_q, S_q, D_v), weights (B, H_q, S_q, S_k). Query head h reads head h // (H_q / H_kv)."""
    if query.shape[1] % key.shape[1] or key.shape[1] != value.shape[1]:
        raise ValueError("heads that do not fit have no result")
    group = query.shape[1] // key.shape[1]
    heads = torch.arange(query.shape[1]) // group
    return attention(query, key[:, heads], value[:, heads], attn_mask, is_causal, round)


def task_attention(x: Tensor, task: int, round: Rounder = exact, **weights: Tensor) -> dict[str, Quantity]:
    """x (..., S, d_model), weights `q_proj`, `k_proj`, `v_proj` and `heads.0`, `heads.1`, ... as in nn.Linear
    -> output (..., S, d_model), weights (..., S, S): the head of that task on what all tasks share."""
    if f"heads.{task}" not in weights:
        raise ValueError("a task without a head has no result")
    head = {
        f"out_proj{end}": weights[f"heads.{task}{end}"]
        for end in ("", "_bias")
        if f"heads.{task}{end}" in weights
    }
    return cross_attention(x, x, None, False, round, **weights, **head)


def layer_stack(
    x: Tensor, layer: Layer, depth: int, round: Rounder = exact, **weights: Tensor
) -> dict[str, Quantity]:
    """x (..., d), weights by the layer's own names -> output (..., d): the layer applied `depth` times."""
    result = Quantity(x, x.abs())
    for _ in range(depth):
        result = _applied(layer, result, weights, "", round)
    return {"output": result}


def _applied(layer: Layer, x: Quantity, weights: Mapping[str, Tensor], at: str, round: Rounder) -> Quantity:
    """A layer of a case, in eval mode. Errors grow as the magnitudes do: tanh makes none larger."""
    if layer.kind == "Linear":
        return linear(x, weights[f"{at}weight"], weights.get(f"{at}bias"), round)
    if layer.kind == "Tanh":
        return Quantity(round(torch.tanh(x.value)), x.magnitude, x.growth)
    if layer.kind == "Sequential":
        for place, one in enumerate(layer.args):
            x = _applied(one, x, weights, f"{at}{place}.", round)
        return x
    if layer.kind == "Dropout":
        return x
    if layer.kind == "Residual":
        inner, scale = (
            _applied(layer.args[0], x, weights, f"{at}inner.", round),
            Residual.scales(layer.args[1]),
        )
        value = round(x.value + round(scale * inner.value))
        return Quantity(value, x.magnitude + scale * inner.magnitude, x.growth)
    if layer.kind == "Centred":
        mean = round(x.value.mean(0, keepdim=True)) / 2
        return Quantity(round(x.value - mean), x.magnitude + x.magnitude.mean(0, keepdim=True) / 2, x.growth)
    raise ValueError(f"no formula for the layer {layer.kind}")


def layer_parameters(d_model: int, num_heads: int, num_kv_heads: int, bias: bool) -> int:
    """Numbers that q_proj, k_proj, v_proj and out_proj hold, counted map by map."""
    if d_model % num_heads or num_heads % num_kv_heads:
        raise ValueError("sizes that do not fit have no count")
    d_kv = d_model // num_heads * num_kv_heads
    maps = ((d_model, d_model), (d_model, d_kv), (d_model, d_kv), (d_model, d_model))
    return sum(rows * columns + (columns if bias else 0) for rows, columns in maps)


def kv_cache_bytes(
    batch: int, length: int, layers: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
) -> int:
    """Bytes of a key and a value cache of shape (batch, num_kv_heads, length, head_dim) in each layer."""
    cache = torch.empty(batch, num_kv_heads, length, head_dim, dtype=dtype, device="meta")
    return layers * 2 * cache.numel() * cache.element_size()
