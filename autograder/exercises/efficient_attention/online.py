"""Exercise `online_softmax`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.check import in_turn
from autograder.checks.conduct import SOFTMAX, inputs_untouched, obeys
from autograder.checks.structure import agrees_with_slices, responds
from autograder.checks.tiling import BlocksFunction, a_block_at_a_time, far_from_zero, masked_blocks
from autograder.exercises.efficient_attention.streaming import STREAM_SLIPS, running
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.tiles import online_softmax
from autograder.situations import DTYPES, Factor, Group, Situations, groups

__all__ = ["ONLINE_SOFTMAX", "WHOLE_ROWS"]

OUTPUTS = ("weights", "log_sum_exp")
RESULTS = ("agrees with the formula", "masked scores")
WHOLE_ROWS = SOFTMAX | {"logsumexp", "_logsumexp", "logaddexp", "logaddexp2", "logcumsumexp", "_logcumsumexp"}
"""Functions that see a whole row at once, or do the merging of two."""


def draw(
    draw: Draw,
    *,
    blocks: int = 3,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    low: int = 2,
    high: int = 6,
    width: int = 0,
    size: float = 1.0,
    step: float = 0.0,
    offset: float = 0.0,
    hide: Sequence[int] = (),
    row: bool = False,
    every: float = 0.0,
    learns: int | None = None,
) -> dict[str, Any]:
    """scores (..., rows, S_k) in blocks of unequal widths, or all of `width`; axes -1: one row, (S_k,).

    size, step, offset: the scores' size, by how much each block lies above the one before, and all of them above zero.
    hide: places of blocks that are -inf, in all rows, or in the last one if `row`; every: or a share of all scores, so that
    each row keeps one. learns: the place of the only block with a gradient.
    """
    lead = list(draw.sizes(max(axes, 0) + 1, low=2, high=6))
    sizes = [width] * blocks if width else [draw.integer(low, high) for _ in range(blocks)]
    if not width and blocks > 1 and len(set(sizes)) == 1:
        sizes[-1] += 1
    shape = ([] if axes < 0 else lead) + [sum(sizes)]
    place = torch.arange(blocks).repeat_interleave(torch.tensor(sizes))
    scores = draw.normal(*shape, dtype=torch.float64) * size + offset + step * (place - place[-1] / 2)
    hidden = torch.isin(place, torch.tensor([one for one in hide if one < blocks], dtype=torch.int64)).expand(
        shape
    )
    if row and axes >= 0:
        hidden = hidden & (torch.arange(shape[-2]) == shape[-2] - 1).unsqueeze(-1)
    if every:
        shares = draw.uniform(*shape)
        hidden = (shares < every) & (shares < shares.amax(-1, keepdim=True))
    inputs = {"scores": scores.masked_fill(hidden, -torch.inf).to(dtype), "sizes": sizes}
    return inputs | ({} if learns is None else {"learns": learns})


BLOCKS: Factor = {
    "three blocks": {},
    "one block": {"blocks": 1, "low": 5, "high": 8},
    "blocks of one score": {"blocks": 5, "width": 1},
    "six blocks of one width": {"blocks": 6, "width": 3},
    "over a thousand scores": {"blocks": 2, "low": 1010, "high": 1060, "axes": 0},
}
HIDDEN: Factor = {
    "no score hidden": {},
    "the first block hidden": {"hide": [0]},
    "every block but the first hidden": {"hide": range(1, 7)},
    "half of the scores hidden": {"every": 0.5},
    "a row of nothing but -inf": {"hide": range(7), "row": True},
}
SCORES: Factor = {
    "ordinary scores": {},
    "rising scores": {"step": 120.0},
    "falling scores": {"step": -120.0},
    "all scores low": {"offset": -2.0e4},
    "all scores below any fill": {"offset": -1e31},
    "slowly rising scores": {"step": 20.0},
}
AXES: Factor = {
    "two axes and the blocks'": {},
    "no leading axis": {"axes": 0},
    "one row, of one axis": {"axes": -1},
    "four axes and the blocks'": {"axes": 3},
}
LEARNS: Factor = {
    "every block learns": {},
    "the last block alone learns": {"learns": -1},
}


def in_blocks(
    scores: Tensor, sizes: Sequence[int], learns: int | None = None, **steps: Any
) -> Mapping[str, Tensor]:
    """The weights and their logarithm, by running numbers with these steps."""
    _, weights, total = running(scores, None, sizes, **steps)
    return {"weights": weights, "log_sum_exp": total}


def over_rows(scores: Tensor, sizes: Sequence[int], learns: int | None = None) -> Mapping[str, Tensor]:
    return {"weights": scores.softmax(-2), "log_sum_exp": scores.logsumexp(-1)}


def dead_rows(weights: Callable[[Tensor], Tensor], total: float) -> Callable[..., Mapping[str, Tensor]]:
    """Rows of nothing but -inf have other weights and another logarithm."""

    def wrong(scores: Tensor, sizes: Sequence[int], learns: int | None = None) -> Mapping[str, Tensor]:
        right, dead = in_blocks(scores, sizes), ~(scores > -torch.inf).any(-1)
        return {
            "weights": torch.where(dead.unsqueeze(-1), weights(scores), right["weights"]),
            "log_sum_exp": right["log_sum_exp"].masked_fill(dead, total),
        }

    return wrong


def infinite(scores: Tensor, sizes: Sequence[int], learns: int | None = None) -> Mapping[str, Tensor]:
    """While the running maximum is -inf, -inf - (-inf) is nan, and stays."""
    begun = ~(scores[..., : sizes[0]] > -torch.inf).any(-1)
    right = in_blocks(scores, sizes)
    return {
        "weights": right["weights"].masked_fill(begun.unsqueeze(-1), torch.nan),
        "log_sum_exp": right["log_sum_exp"].masked_fill(begun, torch.nan),
    }


DEAD = "Is it divided by a sum of zero?"
OF_BLOCKS: Slips = {
    "The scores of one row lie along the last axis. Is it -1?": {"softmax over the rows": over_rows},
    "While the running maximum is still -inf, -inf - (-inf) is nan; what should be subtracted then?": {
        "nan for a block of nothing but -inf": infinite,
    },
    f"A row of nothing but -inf has weights 0 and log_sum_exp -inf. {DEAD}": {
        "a row of nothing but -inf is not zero": [
            dead_rows(lambda scores: torch.full_like(scores, 1 / scores.shape[-1]), -torch.inf),
            dead_rows(lambda scores: torch.full_like(scores, torch.nan), -torch.inf),
            dead_rows(lambda scores: torch.full_like(scores, torch.nan), torch.nan),
            dead_rows(torch.zeros_like, torch.nan),
            dead_rows(torch.zeros_like, 0.0),
        ],
    },
}  # fmt: skip

WITHOUT = ("no gradient asked", "no_grad", "inference_mode")
DEAD_ROW = "a row of nothing but -inf"
A_BLOCK = tuple(name for name in HIDDEN if "block" in name)
ALONE = "one row, of one axis"

ONLINE_SOFTMAX = Exercise(
    name="online_softmax",
    assignment="efficient_attention",
    target=Target("online_softmax", OUTPUTS, online_softmax),
    positional=("scores", "sizes"),
    used_as=lambda obj, positional, _: BlocksFunction(obj, positional),
    situations=Situations(
        draw=draw,
        factors={"mask": HIDDEN, "scores": SCORES, "axes": AXES, "lengths": BLOCKS, "dtype": DTYPES, "learning": LEARNS},
        axes={"scores": "... R S_k"},
        lengths=("R",),
        groups=groups(
            "the weights of all blocks are one softmax, and the logarithm of its sum", 2.0,
            more=(Group("masked scores", "scores, blocks and rows of nothing but -inf weigh nothing", 1.25, ("mask",)),),
            scores=0.75, lengths=0.5, gradient=0.5, dtypes=0.25, calls=0.5,
        ),
        left_out={"gradient: a gradient of one input": "the blocks are its inputs: one of them alone is a factor"},
        never=(
            {"learning": "the last block alone learns", "gradient": WITHOUT},
            {"mask": DEAD_ROW, "gradient": ("a gradient asked", "activation checkpointing")},  # of -inf there is no derivative
            {"mask": A_BLOCK, "lengths": "one block"},
            {"scores": "all scores below any fill", "dtype": "float16"},
            {"mask": DEAD_ROW, "axes": ALONE},
            {"axes": ALONE, "state": "after other sizes"},
        ),
    ),
    recipes=(Recipe("many blocks", partial(draw, blocks=12, low=5, high=9)),),
    checks=(
        Check("a block at a time", "no tensor is larger than two blocks", 3.0, ("many blocks",),
              in_turn(agrees(*OUTPUTS), a_block_at_a_time()), RESULTS[0]),
        Check("inputs untouched", "the list of blocks is left as it is", 0.25, ("many blocks",), inputs_untouched(), RESULTS),
        Check("own work", "softmax and log-sum-exp are written out", 0.5, ("many blocks",),
              obeys(WHOLE_ROWS, "the running maximum and sum"), RESULTS[0]),
    ),
    diagnoses={"": (
        far_from_zero("scores"), agrees_with_slices({"scores": 1}, OUTPUTS), masked_blocks(), responds({"scores": OUTPUTS}),
    )},
    mistakes=slips(in_blocks, STREAM_SLIPS, OF_BLOCKS),
    hints=(
        "Softmax needs the largest score of a row and a sum. Which two numbers per row are worth carrying along?",
        "When a block brings a larger maximum, what was summed so far is too large by exp(new - old). "
        "Shrink the running sum, then add the block's. Remember which maximum each block was measured against.",
        "For each block: `new = torch.maximum(old, block.amax(-1, keepdim=True))`, `total = total * exp(old - new) + "
        "exp(block - new).sum(-1, keepdim=True)`. At the end each kept exp(block - m) is multiplied by exp(m - new) / "
        "total, and is 0 where m is -inf. Where new is -inf subtract 0.",
    ),
)  # fmt: skip
