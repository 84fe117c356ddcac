"""Attention that is computed in blocks or on a part of the pairs, as the quadratic formulas that it must equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from autograder.oracle.attention import allowed_keys, attention, masked_softmax
from autograder.oracle.quantity import Quantity, Rounder, exact
from autograder.oracle.scores import scaled_dot

__all__ = [
    "SCORE_HEADS",
    "WINDOW",
    "alibi_bias",
    "alibi_score",
    "alibi_slopes",
    "block_sparse_attention",
    "chunked_attention",
    "log_sum_exp",
    "online_softmax",
    "pairs_of_blocks",
    "pairs_of_window",
    "sliding_window_attention",
    "sliding_window_mask",
]

WINDOW = 16
"""Positions that `sliding_window_mask` shows."""

SCORE_HEADS = 8
"""Heads that `alibi_score` is for."""


def log_sum_exp(scores: Tensor, allowed: Tensor, growth: float, round: Rounder) -> Quantity:
    """scores, allowed (..., S_q, S_k) -> log of the sum of exp over the allowed keys, (..., S_q); -inf for none.

    growth: that of the scores. An error of a score is an error of the logarithm, and so is one unit of its sum.
    """
    hidden = scores.masked_fill(~allowed, -torch.inf)
    value = hidden.logsumexp(-1)
    largest = torch.maximum(hidden.amax(-1).abs() + 1.0, value.abs())  # the result itself is rounded, too
    magnitude = torch.where(torch.isfinite(value), largest, 0.0)
    return Quantity(round(value), magnitude, growth)


def online_softmax(
    scores: Tensor, sizes: Sequence[int], learns: int | None = None, round: Rounder = exact
) -> dict[str, Quantity]:
    """scores (..., S_k), cut into blocks of these sizes -> weights (..., S_k), log_sum_exp (...).

    learns: the place of the only block to which a gradient flows, if it is not all of them.
    """
    if sum(sizes) != scores.shape[-1]:
        raise ValueError("blocks that do not make up the scores have no result")
    if learns is not None:
        blocks = list(scores.split(list(sizes), -1))
        kept = blocks[learns]
        scores = torch.cat([one if one is kept else one.detach() for one in blocks], -1)
    weights = masked_softmax(scores, scores > -torch.inf, round)
    # A weight may be exp(score - log_sum_exp), two numbers as large as the scores.
    growth = float(scores.detach().masked_fill(scores == -torch.inf, 0.0).abs().max())
    return {
        "weights": replace(weights, growth=max(weights.growth, growth)),
        "log_sum_exp": log_sum_exp(scores, scores > -torch.inf, 0.0, round),
    }


def chunked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_size: int,
    is_causal: bool = False,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v)
    -> output (..., S_q, D_v), log_sum_exp (..., S_q): attention, whatever the block_size."""
    if block_size < 1:
        raise ValueError("blocks of no size have no result")
    output = attention(query, key, value, None, is_causal, round)["output"]
    scores = scaled_dot(query, key, round).value
    allowed = allowed_keys(scores.shape, None, is_causal)
    return {"output": output, "log_sum_exp": log_sum_exp(scores, allowed, output.growth, round)}


def pairs_of_window(length: int, window: int) -> Tensor:
    """(length, length) bool: key j is one of the last `window` positions of query i, i itself included."""
    positions = torch.arange(length)
    distance = positions.unsqueeze(-1) - positions
    return (distance >= 0) & (distance < window)


def sliding_window_attention(
    query: Tensor, key: Tensor, value: Tensor, window: int, round: Rounder = exact
) -> dict[str, Quantity]:
    """query, key (..., S, D), value (..., S, D_v) -> output (..., S, D_v)."""
    if window < 1:
        raise ValueError("a window of no position has no result")
    length = query.shape[-2]
    if length <= 4 * window:
        return {
            "output": attention(query, key, value, pairs_of_window(length, window), False, round)["output"]
        }
    # A long one: each query with its own window of keys, (..., S, window, D), those before the start hidden.
    places = torch.arange(length).unsqueeze(-1) - torch.arange(window - 1, -1, -1)  # (S, window)
    keys, values = key[..., places.clamp(min=0), :], value[..., places.clamp(min=0), :]
    found = attention(query.unsqueeze(-2), keys, values, (places >= 0).unsqueeze(-2), False, round)["output"]
    return {"output": replace(found, value=found.value.squeeze(-2), magnitude=found.magnitude.squeeze(-2))}


def pairs_of_blocks(block_mask: Tensor, block_size: int, S_q: int, S_k: int) -> Tensor:
    """block_mask (blocks_q, blocks_k) -> (S_q, S_k) bool: each entry for all the pairs of its block."""
    rows = block_mask.repeat_interleave(block_size, 0)[:S_q]
    return rows.repeat_interleave(block_size, 1)[:, :S_k]


def block_sparse_attention(
    query: Tensor, key: Tensor, value: Tensor, block_mask: Tensor, block_size: int, round: Rounder = exact
) -> dict[str, Quantity]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v), block_mask (blocks_q, blocks_k)
    -> output (..., S_q, D_v), dead rows zero."""
    S_q, S_k = query.shape[-2], key.shape[-2]
    if tuple(block_mask.shape) != (math.ceil(S_q / block_size), math.ceil(S_k / block_size)):
        raise ValueError("a mask of another number of blocks has no result")
    mask = pairs_of_blocks(block_mask, block_size, S_q, S_k)
    return {"output": attention(query, key, value, mask, False, round)["output"]}


def alibi_slopes(num_heads: int) -> Tensor:
    """(H,): 2^(-8 i / H) for powers of two; for others those of the power below, and every second one of twice that."""
    power = 1 << (num_heads.bit_length() - 1)
    exponents = [-8 * i / power for i in range(1, power + 1)]
    exponents += [-8 * i / (2 * power) for i in range(1, 2 * (num_heads - power), 2)]
    return torch.tensor([2.0**exponent for exponent in exponents], dtype=torch.float64)


def alibi_bias(num_heads: int, length_q: int, length_k: int, round: Rounder = exact) -> dict[str, Quantity]:
    """-> bias (H, S_q, S_k) = slope[h] (j - i)."""
    distance = torch.arange(length_k).double() - torch.arange(length_q).double().unsqueeze(-1)
    bias = round(alibi_slopes(num_heads)).view(-1, 1, 1) * distance
    return {"bias": Quantity(round(bias), bias.abs())}


def sliding_window_mask(
    batch: Tensor, head: Tensor, query_index: Tensor, key_index: Tensor, round: Rounder = exact
) -> dict[str, Quantity]:
    """Whole numbers that broadcast -> allowed, 1.0 or 0.0, of the shape that the two indices have together."""
    distance = (query_index - key_index).double()
    allowed = ((distance >= 0) & (distance < WINDOW)).double()
    return {"allowed": Quantity(allowed, allowed)}


def alibi_score(
    score: Tensor, batch: Tensor, head: Tensor, query_index: Tensor, key_index: Tensor, round: Rounder = exact
) -> dict[str, Quantity]:
    """score and whole numbers that broadcast -> score + slope[head] (key_index - query_index)."""
    slope = alibi_slopes(SCORE_HEADS)[head.long()]
    bias = slope * (key_index - query_index)
    # The slope may be multiplied by each of the two, which are larger than their difference.
    magnitude = score.abs() + slope * (key_index.abs() + query_index.abs())
    return {"score": Quantity(round(score + round(bias)), magnitude)}
