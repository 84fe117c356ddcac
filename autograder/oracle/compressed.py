"""Attention over fewer or shorter keys, in float64: mixtures along the length, and latents that keys are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from autograder.oracle.attention import attend, linear
from autograder.oracle.multi_head import merge, split
from autograder.oracle.quantity import Quantity, Rounder, exact

__all__ = ["latent_attention", "latent_cache_elements", "low_rank_attention"]


def low_rank_attention(
    query: Tensor, key: Tensor, value: Tensor, E: Tensor, F: Tensor, round: Rounder = exact
) -> dict[str, Quantity]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v), E and F (k, S_k) -> output (..., S_q, D_v)."""
    if E.shape != F.shape or E.shape[-1] != key.shape[-2]:
        raise ValueError("projections that do not fit have no result")
    keys, values = round(E @ key), round(F @ value)
    sizes = (query.abs(), keys.abs(), F.abs() @ value.abs())
    return {"output": attend(query, keys, values, sizes, None, False, round)["output"]}


def latent_attention(
    x: Tensor, num_heads: int, cache: Tensor | None = None, round: Rounder = exact, **weights: Tensor
) -> dict[str, Quantity]:
    """x (..., S, d_model), cache (..., P, d_latent) or None, weights as in nn.Linear
    -> output (..., S, d_model), cache (..., P + S, d_latent)."""
    latent = linear(Quantity(x, x.abs()), weights["kv_down"], None, round)
    if cache is not None:
        latent = Quantity(
            torch.cat([cache, latent.value], -2), torch.cat([cache.abs(), latent.magnitude], -2)
        )
    made = (
        linear(Quantity(x, x.abs()), weights["q_proj"], None, round),
        linear(latent, weights["k_up"], None, round),
        linear(latent, weights["v_up"], None, round),
    )
    query, key, value = (split(one.value, num_heads) for one in made)
    allowed = torch.ones(x.shape[-2], latent.value.shape[-2], dtype=torch.bool)
    allowed = allowed.tril(latent.value.shape[-2] - x.shape[-2])
    sizes = (query.abs(), key.abs(), value.abs())
    mixed = attend(query, key, value, sizes, allowed, False, round)["output"]
    merged = Quantity(merge(mixed.value), merge(mixed.magnitude), mixed.growth)
    return {"output": linear(merged, weights["out_proj"], None, round), "cache": latent}


def latent_cache_elements(batch: int, length: int, layers: int, d_latent: int, d_rope: int) -> int:
    """Numbers in the caches of all layers: a latent and a rotated key for each token."""
    kept = [torch.empty(batch, length, width, device="meta") for width in (d_latent, d_rope)]
    return layers * sum(one.numel() for one in kept)
