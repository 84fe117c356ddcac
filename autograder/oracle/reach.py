"""How far back attention looks, in float64: a memory of earlier segments, a learned span; and how it scores, a mixture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autograder.oracle.attention import attend, linear, masked_softmax
from autograder.oracle.quantity import Quantity, Rounder, exact
from autograder.oracle.scores import cosine, multiplicative, scaled_dot

__all__ = ["adaptive_span_attention", "attention_fusion", "recurrent_attention", "span_mask"]


def recurrent_attention(
    x: Tensor,
    memory: Tensor | None,
    W_q: Tensor,
    W_k: Tensor,
    W_v: Tensor,
    memory_length: int,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    """x (..., S, d), memory (..., M, d) or None, W_q and W_k (d, D), W_v (d, D_v)
    -> output (..., S, D_v), new_memory (..., min(M + S, memory_length), d). No gradient through memory."""
    context = x if memory is None else torch.cat([memory.detach(), x], -2)
    M = context.shape[-2] - x.shape[-2]
    rows = Quantity(context, context.abs())
    made = (
        linear(Quantity(x, x.abs()), W_q.mT, None, round),
        linear(rows, W_k.mT, None, round),
        linear(rows, W_v.mT, None, round),
    )
    query, key, value = (one.value for one in made)
    allowed = torch.ones(x.shape[-2], context.shape[-2], dtype=torch.bool).tril(M)
    sizes = (query.abs(), key.abs(), made[2].magnitude)
    result = attend(query, key, value, sizes, allowed, False, round)
    kept = context.detach()[..., max(context.shape[-2] - memory_length, 0) :, :]
    return {"output": result["output"], "new_memory": Quantity(kept, kept.abs())}


def attention_fusion(
    query: Tensor, key: Tensor, value: Tensor, W: Tensor, mix: Tensor, round: Rounder = exact
) -> dict[str, Quantity]:
    """query (..., S_q, d), key (..., S_k, d), value (..., S_k, D_v), W (d, d), mix (3,)
    -> output (..., S_q, D_v), weights (..., S_q, S_k): dot, cosine and bilinear scores by softmax(mix)."""
    kinds = (
        scaled_dot(query, key, round),
        cosine(query, key, 0.0, round),
        multiplicative(query, key, W, round),
    )
    shares = round(torch.softmax(mix, 0))
    pairs = list(zip(shares, kinds, strict=True))
    scores = round(torch.stack([round(share * kind.value) for share, kind in pairs]).sum(0))
    size = torch.stack([share * kind.magnitude for share, kind in pairs]).sum(0)
    weights = masked_softmax(scores, torch.ones(scores.shape[-2:], dtype=torch.bool), round)
    growth = float(size.detach().max())
    return {
        "output": Quantity(round(weights.value @ value), weights.magnitude @ value.abs(), growth),
        "weights": Quantity(weights.value, weights.magnitude, growth),
    }


def span_mask(span: Tensor, ramp: float, length: int, round: Rounder = exact) -> Quantity:
    """span (H,) -> the soft mask (H, S, S), zero in the future."""
    place = torch.arange(length)
    back = (place[:, None] - place).to(torch.float64)
    left = round(round(ramp + span[:, None, None]) - back)
    mask = torch.where(back < 0, 0.0, round(left / ramp).clamp(0, 1))
    slope = (ramp + span[:, None, None] + back) / ramp  # what is added up where the mask is neither 0 nor 1
    return Quantity(mask, torch.where((mask > 0) & (mask < 1), slope, mask).detach())


def adaptive_span_attention(
    query: Tensor, key: Tensor, value: Tensor, span: Tensor, ramp: float, round: Rounder = exact
) -> dict[str, Quantity]:
    """query and key (..., H, S, D), value (..., H, S, D_v), span (H,)
    -> output (..., H, S, D_v), weights (..., H, S, S), penalty ()."""
    mask = span_mask(span, ramp, query.shape[-2], round)
    scores = torch.where(mask.value > 0, scaled_dot(query, key, round).value, -torch.inf)
    growing = round(torch.exp(round(scores - scores.amax(-1, keepdim=True))))
    seen = round(mask.value * growing)
    total = round(seen.sum(-1, keepdim=True))
    weights, size = round(seen / total), mask.magnitude * growing / total
    terms = query.abs() @ key.abs().mT / math.sqrt(query.shape[-1])
    growth = float(torch.where(mask.value > 0, terms, 0.0).detach().max())
    return {
        "output": Quantity(round(weights @ value), size @ value.abs(), growth),
        "weights": Quantity(weights, size, growth),
        "penalty": Quantity(round(span.mean()), span.abs().mean()),
    }
