"""Exercise `online_softmax`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.conduct import SOFTMAX, dtype_kept, inputs_untouched, obeys
from autograder.checks.gradients import differentiable
from autograder.checks.softmax import shift_changes_nothing
from autograder.checks.structure import agrees_with_slices, responds
from autograder.checks.tiling import BlocksFunction, a_block_at_a_time, masked_blocks
from autograder.exercises.efficient_attention.streaming import STREAM_SLIPS, running
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.tiles import online_softmax

__all__ = ["ONLINE_SOFTMAX", "WHOLE_ROWS"]

OUTPUTS = ("weights", "log_sum_exp")
COUNTS = "every input counts"
FORMULA = "agrees with the formula"
SUM = "log-sum-exp"
COST = "a block at a time"
RESULTS = (FORMULA, SUM, COST)
WHOLE_ROWS = SOFTMAX | {"logsumexp", "_logsumexp", "logaddexp", "logaddexp2", "logcumsumexp", "_logcumsumexp"}
"""Functions that see a whole row at once, or do the merging of two."""


def _inputs(
    draw: Draw,
    *,
    blocks: int = 3,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    low: int = 2,
    high: int = 6,
    width: int = 0,
) -> dict[str, Any]:
    """scores (..., rows, S_k) in blocks of unequal widths, or all of `width`."""
    *lead, rows = draw.sizes(axes + 1, low=2, high=6)
    sizes = [width] * blocks if width else [draw.integer(low, high) for _ in range(blocks)]
    if not width and len(set(sizes)) == 1:
        sizes[-1] += 1
    return {"scores": draw.normal(*lead, rows, sum(sizes), dtype=dtype) * size, "sizes": sizes}


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


def _variant(scores: Tensor, sizes: Sequence[int], **knobs: Any) -> Mapping[str, Tensor]:
    _, weights, total = running(scores, None, sizes, **knobs)
    return {"weights": weights, "log_sum_exp": total}


def _over_rows(scores: Tensor, sizes: Sequence[int]) -> Mapping[str, Tensor]:
    return {"weights": scores.softmax(-2), "log_sum_exp": scores.logsumexp(-1)}


ONLINE_SOFTMAX = Exercise(
    name="online_softmax",
    assignment="efficient_attention",
    target=Target("online_softmax", OUTPUTS, online_softmax),
    positional=("scores", "sizes"),
    used_as=lambda obj, positional, _: BlocksFunction(obj, positional),
    recipes=(
        _recipe("three blocks"),
        _recipe("one block", blocks=1),
        _recipe("nine blocks, far apart", blocks=9, size=4.0),
        _recipe("blocks of one score", blocks=5, width=1),
        _recipe("unequal rows", axes=2, size=2.0),
        _recipe("four blocks", blocks=4, low=3),
        _recipe("no leading axis", axes=0, blocks=4),
        _recipe("float64", dtype=torch.float64),
        _recipe("small, float64", axes=0, dtype=torch.float64),
        _recipe("bfloat16", dtype=torch.bfloat16),
        _recipe("float16", dtype=torch.float16),
        _recipe("many blocks", blocks=24, low=5, high=9),
    ),
    checks=(
        Check(
            COUNTS,
            "weights and log_sum_exp change with the scores",
            0.5,
            ("three blocks",),
            responds({"scores": OUTPUTS}),
        ),
        Check(
            FORMULA,
            "the weights of all blocks are one softmax",
            1.5,
            ("three blocks", "one block", "nine blocks, far apart", "blocks of one score"),
            agrees("weights"),
            COUNTS,
        ),
        Check(
            SUM,
            "the maximum plus the logarithm of the sum",
            1.0,
            ("three blocks", "one block", "nine blocks, far apart", "blocks of one score"),
            agrees("log_sum_exp"),
            COUNTS,
        ),
        Check(
            COST,
            "no tensor is larger than two blocks",
            3.0,
            ("many blocks",),
            a_block_at_a_time(),
            FORMULA,
        ),
        Check(
            "rising scores",
            "no overflow where later blocks have far larger scores",
            0.75,
            ("nine blocks, far apart",),
            shift_changes_nothing(),
            (FORMULA, COST),
        ),
        Check(
            "masked blocks",
            "blocks and rows of nothing but -inf weigh nothing",
            1.0,
            ("four blocks",),
            masked_blocks(),
            RESULTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; rows stand alone",
            0.25,
            ("unequal rows",),
            agrees_with_slices({"scores": 1}, OUTPUTS),
            COUNTS,
        ),
        Check(
            "gradient",
            "backward() gives the derivative",
            0.5,
            ("small, float64",),
            differentiable(OUTPUTS),
            RESULTS,
        ),
        Check(
            "dtype",
            "the dtype of the scores is kept, and its precision",
            0.25,
            ("float64", "bfloat16", "float16"),
            dtype_kept(OUTPUTS),
            RESULTS,
        ),
        Check(
            "inputs untouched", "no block is written to", 0.25, ("three blocks",), inputs_untouched(), RESULTS
        ),
        Check(
            "own work",
            "softmax and log-sum-exp are written out",
            0.5,
            ("many blocks",),
            obeys(WHOLE_ROWS, "the running maximum and sum"),
            (FORMULA, COST),
        ),
    ),
    mistakes=(
        *(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in STREAM_SLIPS),
        Mistake(
            "softmax over the rows", "The scores of one row lie along the last axis. Is it -1?", _over_rows
        ),
    ),
    hints=(
        "Softmax needs the largest score of a row and a sum. Which two numbers per row are worth carrying along?",
        (
            "When a block brings a larger maximum, what was summed so far is too large by exp(new - old). "
            "Shrink the running sum, then add the block's. Remember which maximum each block was measured against."
        ),
        (
            "For each block: `new = torch.maximum(old, block.amax(-1, keepdim=True))`, `total = total * exp(old - new) + "
            "exp(block - new).sum(-1, keepdim=True)`. At the end each kept exp(block - m) is multiplied by exp(m - new) / "
            "total. Where new is -inf subtract 0."
        ),
    ),
)
