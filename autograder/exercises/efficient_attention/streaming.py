"""Attention that reads its keys in blocks, in float64 and with knobs: the mistakes of one pass with running numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autograder.mistakes import Slips

__all__ = ["STREAM_SLIPS", "blocks_of", "running", "stream"]


def blocks_of(length: int, block_size: int) -> list[int]:
    """The widths of the blocks of a sequence."""
    return [min(block_size, length - start) for start in range(0, length, block_size)]


def _log_of_sum(largest: Tensor, total: Tensor) -> Tensor:
    return largest + total.log()


def running(
    scores: Tensor,
    value: Tensor | None,
    sizes: Sequence[int],
    *,
    shrink_sum: bool = True,
    shrink_rest: bool = True,
    keep: Callable[[int, int], bool] = lambda place, count: True,
    maximum: Callable[[Tensor, Tensor], Tensor] = torch.maximum,
    divide: bool = True,
    apart: bool = False,
    logarithm: Callable[[Tensor, Tensor], Tensor] = _log_of_sum,
) -> tuple[Tensor, Tensor, Tensor]:
    """scores (..., S_q, S_k), value (..., S_k, D_v) or None -> averages, weights, log_sum_exp, with running numbers.

    shrink_sum, shrink_rest: whether the sum, and what is summed or kept beside it, are rescaled to a new maximum. keep:
    which blocks are read. maximum: how the running maximum goes on. divide: by the sum. apart: each block is a softmax
    of its own. logarithm: maximum and sum -> log_sum_exp.
    """
    largest = torch.full_like(scores[..., :1], -torch.inf)
    total = torch.zeros_like(largest)
    weights = torch.zeros_like(scores)
    start = 0
    for place, size in enumerate(sizes):
        columns = slice(start, start + size)
        start += size
        if not keep(place, len(sizes)):
            continue
        block = scores[..., columns]
        top = maximum(largest, block.amax(-1, keepdim=True))
        safe = torch.where(top == -torch.inf, 0.0, top)
        shrink = torch.exp(largest - safe)
        exponential = torch.exp(block - safe)
        total = total * (shrink if shrink_sum else 1.0) + exponential.sum(-1, keepdim=True)
        if shrink_rest:
            weights = weights * shrink
        weights[..., columns] = block.softmax(-1) if apart else exponential
        largest = top
    if divide:
        weights = torch.where(total > 0, weights / total, 0.0)
    averages = weights if value is None else weights @ value
    return averages, weights, logarithm(largest, total).squeeze(-1)


def stream(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor,
    sizes: Sequence[int],
    *,
    scale: Callable[[int], float] = lambda D: D**-0.5,
    **knobs: Any,
) -> Mapping[str, Tensor]:
    """Attention to the allowed pairs (S_q, S_k), the keys read in blocks of these sizes; the knobs are those of `running`."""
    scores = query @ key.mT * scale(query.shape[-1])
    output, _, total = running(scores.masked_fill(~allowed, -torch.inf), value, sizes, **knobs)
    return {"output": output, "log_sum_exp": total}


RESCALE = "What was summed so far is measured against the old maximum. When that grows, is it multiplied by exp(old - new)?"
LOGARITHM = "log_sum_exp is the running maximum plus the logarithm of the running sum."

STREAM_SLIPS: Slips = {
    RESCALE: {
        "running sum not rescaled": {"shrink_sum": False},
        "earlier blocks not rescaled": {"shrink_rest": False},
        "nothing rescaled": {"shrink_sum": False, "shrink_rest": False},
    },
    "The running maximum is the larger of the old one and the block's. " + RESCALE: {
        "maximum of the latest block only": {"shrink_sum": False, "shrink_rest": False, "maximum": lambda old, new: new},
    },
    "Is the last block read, too?": {"last block not read": {"keep": lambda n, count: n < count - 1}},
    "Is every block read?": {"only the first block is read": {"keep": lambda n, count: n == 0}},
    "Is what the earlier blocks left overwritten?": {"only the last block is read": {"keep": lambda n, count: n == count - 1}},
    "The weights of all blocks together sum to one. Is each block divided by a sum of its own?": {
        "a softmax for each block": {"apart": True, "shrink_rest": False, "divide": False},
    },
    "What makes the weights of a row sum to one?": {"not divided by the sum": {"divide": False}},
    LOGARITHM + " Is the maximum added again?": {"log-sum-exp without the maximum": {"logarithm": lambda m, total: total.log()}},
    LOGARITHM: {
        "log-sum-exp without the logarithm": {"logarithm": lambda m, total: m + total},
        "sum in place of log-sum-exp": {"logarithm": lambda m, total: total},
        "maximum in place of log-sum-exp": {"logarithm": lambda m, total: m},
        "sum of exponentials in place of its logarithm": {"logarithm": lambda m, total: total * m.exp()},
    },
    LOGARITHM + " The natural logarithm, here.": {
        "log-sum-exp to the base 2": {"logarithm": lambda m, total: (m + total.log()) / math.log(2)},
    },
    LOGARITHM + " Is the sign right?": {"maximum subtracted from log-sum-exp": {"logarithm": lambda m, total: total.log() - m}},
}  # fmt: skip
