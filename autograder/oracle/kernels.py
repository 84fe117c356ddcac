"""Attention as kernels compute it, in float64: outputs with their log-sum-exps, gradients, decoding against a cache.

`round` acts where a fused kernel rounds: weights before their product with the values, score gradients before theirs,
and what is written to memory. Scores and sums are kept in float32 there; the tolerance has a term of its own for those.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from autograder.oracle.flash import flash_attention
from autograder.oracle.flash import flash_gradients as fused_gradients
from autograder.oracle.quantity import Quantity, Rounder, exact

__all__ = ["decode", "flash_backward", "flash_forward", "flash_gradients", "paged_decode", "softmax_rows"]


EQUAL = 2e5
"""Where all scores are equal, all are rounded alike: what is lost is no more than if they had this size."""


def softmax_rows(x: Tensor, round: Rounder = exact) -> dict[str, Quantity]:
    """x (rows, columns) -> weights (rows, columns); rounded once, when they are written."""
    weights = torch.softmax(x, -1)
    # x times log2(e), for exp2, is rounded before the maximum is taken off it; where all are equal, all alike.
    size = 2 * float(x.detach().abs().nan_to_num(posinf=0.0).max())
    return {
        "weights": Quantity(
            round(weights), weights, min(size, EQUAL) if bool((x == x[:, :1]).all()) else size
        )
    }


def _heads(shared: Tensor, H_q: int) -> Tensor:
    """(B, H_kv, S, D) -> (B, H_q, S, D): neighbours share. Raises: ValueError if they cannot."""
    if H_q % shared.shape[1]:
        raise ValueError("heads that do not fit have no result")
    return shared[:, torch.arange(H_q) // (H_q // shared.shape[1])]


def _scores(query: Tensor, key: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Scores (B, H_q, S_q, S_k), -inf where a key may not be seen, and the sizes of their terms, 0 there."""
    key = _heads(key, query.shape[1])
    scale = 1 / math.sqrt(query.shape[-1])
    scores, terms = query @ key.mT * scale, query.abs() @ key.abs().mT * scale
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool)
    if is_causal:
        allowed = allowed.tril()
    return scores.masked_fill(~allowed, -torch.inf), torch.where(allowed, terms, 0.0)


def flash_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool = False,
    round: Rounder = exact,
    allowed: Tensor | None = None,
) -> dict[str, Quantity]:
    """query (B, H_q, S_q, D), key and value (B, H_kv, S_k, D) -> output (B, H_q, S_q, D), log_sum_exp (B, H_q, S_q)."""
    found = flash_attention(query, key, value, is_causal, allowed, round)
    if _equal_scores(query, key):
        found["output"] = replace(found["output"], growth=min(EQUAL, found["output"].growth))
    return found


def _equal_scores(query: Tensor, key: Tensor) -> bool:
    """Whether each query and key has one number that counts, and that of all keys is the same one."""
    first, rest = key[..., :1], (query[..., 1:], key[..., 1:])
    return bool((first == first[:, :, :1]).all()) and not any(bool(one.any()) for one in rest)


def flash_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    log_sum_exp: Tensor,
    grad_output: Tensor,
    is_causal: bool = False,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    """Shapes as in flash_forward -> grad_query, grad_key, grad_value, from the output and log-sum-exp that are given."""
    H_q, (B, H_kv, S_k, D) = query.shape[1], key.shape
    scores, terms = _scores(query, key, is_causal)
    weights = torch.exp(scores - log_sum_exp.unsqueeze(-1))
    growth = float((terms + log_sum_exp.unsqueeze(-1).abs()).max())
    keys, values = _heads(key, H_q), _heads(value, H_q)
    delta = (grad_output * output).sum(-1, keepdim=True)
    grad_scores = weights * (grad_output @ values.mT - delta)
    sizes = weights * (
        grad_output.abs() @ values.abs().mT + (grad_output * output).abs().sum(-1, keepdim=True)
    )
    scale = 1 / math.sqrt(D)

    def shared(gradient: Tensor) -> Tensor:
        return gradient.view(B, H_kv, H_q // H_kv, S_k, D).sum(2)

    return {
        "grad_query": Quantity(round(round(grad_scores) @ keys * scale), sizes @ keys.abs() * scale, growth),
        "grad_key": Quantity(
            round(shared(round(grad_scores).mT @ query) * scale),
            shared(sizes.mT @ query.abs()) * scale,
            growth,
        ),
        "grad_value": Quantity(
            round(shared(round(weights).mT @ grad_output)), shared(weights.mT @ grad_output.abs()), growth
        ),
    }


def flash_gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad_output: Tensor,
    is_causal: bool = False,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    """Shapes as in flash_forward -> output, grad_query, grad_key, grad_value: a forward and a backward pass."""
    found = fused_gradients(query, key, value, grad_output, is_causal, None, round)
    gradients = {name.replace("d_", "grad_"): gradient for name, gradient in found.items()}
    return {"output": flash_forward(query, key, value, is_causal, round)["output"], **gradients}


def decode(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    lengths: Tensor,
    num_splits: int = 1,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    """query (B, H_q, D), key_cache and value_cache (B, H_kv, S_max, D), lengths (B,) -> output (B, H_q, D).

    Whatever num_splits is: the parts of a sum add up to it.
    """
    places = torch.arange(key_cache.shape[2])
    used = places < lengths.unsqueeze(-1)  # (B, S_max)
    # What lies behind a sequence may be nan, which a weight of 0 would not hide: its first key stands there, and zeros.
    there = used[:, None, :, None]
    keys, values = torch.where(there, key_cache, key_cache[:, :, :1]), torch.where(there, value_cache, 0.0)
    found = flash_forward(query.unsqueeze(2), keys, values, False, round, used[:, None, None])["output"]
    return {"output": Quantity(found.value.squeeze(2), found.magnitude.squeeze(2), found.growth)}


def paged_decode(
    query: Tensor,
    key_pages: Tensor,
    value_pages: Tensor,
    block_table: Tensor,
    lengths: Tensor,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    """query (B, H_q, D), key_pages and value_pages (num_pages, page_size, H_kv, D), block_table (B, max_pages), lengths (B,)
    -> output (B, H_q, D)."""
    needed = torch.arange(block_table.shape[1]) * key_pages.shape[1] < lengths.unsqueeze(-1)  # (B, max_pages)
    table = torch.where(needed, block_table, 0).long()  # what is not needed may be any number
    keys, values = (pages[table].flatten(1, 2).transpose(1, 2) for pages in (key_pages, value_pages))
    return decode(query, keys, values, lengths, 1, round)
