"""Softmax, attention and its two modules, in float64, with every rounding step explicit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autograder.oracle.quantity import Quantity, Rounder, exact, farther
from autograder.oracle.scores import scaled_dot

__all__ = [
    "allowed_keys",
    "attend",
    "attention",
    "cross_attention",
    "linear",
    "masked_softmax",
    "self_attention",
    "softmax",
]

UNDERFLOW = 746.0
"""exp(-746) is zero in every dtype."""


def softmax(scores: Tensor, dim: int = -1, round: Rounder = exact) -> Quantity:
    """scores (...) -> exp(scores) / sum of exp(scores) along dim."""
    normaliser = scores.logsumexp(dim, keepdim=True)
    magnitude = torch.exp(scores - normaliser)
    # exp turns the rounding of its argument into a relative error, where the result is not zero anyway.
    depth = (scores.amax(dim, keepdim=True) - scores).detach()
    growth = float(torch.where(depth < UNDERFLOW, depth, 0.0).max())
    if round is exact:
        return Quantity(magnitude, magnitude, growth)
    numerator = round(torch.exp(round(scores - scores.amax(dim, keepdim=True))))
    weights = round(numerator / round(numerator.sum(dim, keepdim=True)))
    # exp(scores - logsumexp) rounds elsewhere; the larger of the two errors is what a right solution may make.
    direct = round(torch.exp(round(scores - round(normaliser))))
    return Quantity(farther(magnitude, weights, direct), magnitude, growth)


def masked_softmax(scores: Tensor, attn_mask: Tensor, round: Rounder = exact) -> Quantity:
    """scores (..., S_q, S_k), attn_mask broadcastable to it -> softmax over the allowed keys; dead rows zero."""
    allowed = attn_mask.broadcast_to(scores.shape)
    alive = allowed.any(-1, keepdim=True)
    # A dead row keeps its scores here, so that the formula has a gradient everywhere, and is zeroed below.
    hidden = torch.where(allowed, scores, torch.where(alive, -torch.inf, 0.0))
    result = softmax(hidden, -1, round)
    return Quantity(
        torch.where(allowed, result.value, 0.0),
        torch.where(allowed, result.magnitude, 0.0),
        result.growth,
    )


def allowed_keys(shape: torch.Size | tuple[int, ...], attn_mask: Tensor | None, is_causal: bool) -> Tensor:
    """The (..., S_q, S_k) mask that attn_mask and is_causal make together; causal is aligned at the top left."""
    allowed = torch.ones(shape, dtype=torch.bool)
    if is_causal:
        allowed = allowed.tril()
    return allowed if attn_mask is None else allowed & attn_mask


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v) -> output (..., S_q, D_v), weights (..., S_q, S_k)."""
    magnitudes = (query.abs(), key.abs(), value.abs())
    return attend(query, key, value, magnitudes, attn_mask, is_causal, round)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    magnitudes: tuple[Tensor, Tensor, Tensor],
    attn_mask: Tensor | None,
    is_causal: bool,
    round: Rounder,
) -> dict[str, Quantity]:
    """Attention of inputs that are themselves results: `magnitudes` are those of query, key and value."""
    scores = scaled_dot(query, key, round).value
    allowed = allowed_keys(scores.shape, attn_mask, is_causal)
    weights = masked_softmax(scores, allowed, round)
    terms = magnitudes[0] @ magnitudes[1].mT / math.sqrt(query.shape[-1])
    growth = float(torch.where(allowed, terms, 0.0).detach().max()) if terms.numel() else 0.0
    return {
        "output": Quantity(round(weights.value @ value), weights.magnitude @ magnitudes[2], growth),
        "weights": Quantity(weights.value, weights.magnitude, growth),
    }


def linear(x: Quantity, weight: Tensor, bias: Tensor | None, round: Rounder) -> Quantity:
    """x (..., in), weight (out, in), bias (out,) or None -> x weight^T + bias, (..., out)."""
    offset = torch.zeros(weight.shape[0], dtype=weight.dtype) if bias is None else bias
    return Quantity(
        round(x.value @ weight.mT + offset), x.magnitude @ weight.abs().mT + offset.abs(), x.growth
    )


def cross_attention(
    x: Tensor,
    context: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    round: Rounder = exact,
    **weights: Tensor,
) -> dict[str, Quantity]:
    """x (..., S_q, d_model), context (..., S_k, d_context), weights `q_proj`, `q_proj_bias`, ... as in nn.Linear
    -> output (..., S_q, d_model), weights (..., S_q, S_k)."""

    def project(name: str, inputs: Quantity) -> Quantity:
        return linear(inputs, weights[name], weights.get(f"{name}_bias"), round)

    source, target = Quantity(x, x.abs()), Quantity(context, context.abs())
    query, key, value = project("q_proj", source), project("k_proj", target), project("v_proj", target)
    magnitudes = (query.magnitude, key.magnitude, value.magnitude)
    result = attend(query.value, key.value, value.value, magnitudes, attn_mask, is_causal, round)
    return {"output": project("out_proj", result["output"]), "weights": result["weights"]}


def self_attention(
    x: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    round: Rounder = exact,
    **weights: Tensor,
) -> dict[str, Quantity]:
    """x (..., S, d_model) attending to itself -> output (..., S, d_model), weights (..., S, S)."""
    return cross_attention(x, x, attn_mask, is_causal, round, **weights)
