"""Exercise `flash_forward`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

from autograder.case import Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import raises_value_error
from autograder.exercises.exercise import Exercise
from autograder.exercises.gpu_kernels import cases
from autograder.exercises.gpu_kernels.cases import attention_inputs, long_inputs
from autograder.exercises.gpu_kernels.conduct import (
    FORMULA,
    GPU,
    HALF_AND_SINGLE,
    LEFT_OUT,
    LONG,
    NAMES,
    SOME,
    calls,
    conduct,
    dtypes,
    heads,
    own_kernel,
    refuses_bfloat16,
    shortened,
    sizes,
    tiles,
)
from autograder.exercises.gpu_kernels.tiles import CAUSAL_SLIPS, HEAD_SLIPS, SCALE_SLIPS, TILES, tiled
from autograder.mistakes import Slips, Step, slips
from autograder.oracle.kernels import flash_forward as formula
from autograder.situations import CAUSAL, Situations, groups

__all__ = ["FLASH_FORWARD", "SHORTER"]

OUTPUTS = ("output", "log_sum_exp")
SHORTER = shortened({"query": 2, "key": 2, "value": 2})
NATURAL = "It is maximum + ln(sum), in the units of the scores."
RESCALE = "A new maximum changes the unit of everything summed so far: multiply it by exp(old - new)."


def in_tiles(**knobs: Any) -> list[Step]:
    """A mistake that looks different for each width of a tile."""
    return [{"tile": tile, **knobs} for tile in TILES]


FORWARD_SLIPS: Slips = {
    "With exp2, the result is in bits: multiply by ln 2.": {
        "log-sum-exp in base 2": {"normaliser": lambda highest, total: (highest + total.log()) * math.log2(math.e)},
    },
    "With exp2 the maximum is in bits, too: add log2(sum) to it, then multiply both by ln 2.": {
        "log-sum-exp in two units": {"normaliser": lambda highest, total: highest * math.log2(math.e) + total.log()},
    },
    NATURAL: {
        "log-sum-exp without the maximum": {"normaliser": lambda highest, total: total.log()},
        "the maximum for the log-sum-exp": {"normaliser": lambda highest, total: highest},
        "the sum for its logarithm": {"normaliser": lambda highest, total: total},
    },
    "At the end the accumulator is divided by the sum.": {"not divided by the sum": {"divided": False}},
    RESCALE: {
        "the accumulator is not rescaled": in_tiles(output_rescaled=False),
        "the sum is not rescaled": in_tiles(total_rescaled=False),
        "nothing is rescaled": in_tiles(output_rescaled=False, total_rescaled=False),
    },
    "Is it exp(old - new), not exp(new - old)?": {"rescaled by the inverse": in_tiles(turned=True)},
    "Do accumulator and sum go on from tile to tile, and is the maximum kept for the next one?": {
        "only the last tile counts": in_tiles(carried=False),
    },
    "A masked load yields 0, and exp(0 - maximum) is not 0. Are those scores set to -inf?": {
        "keys beyond the end take part": in_tiles(tail=True),
    },
}  # fmt: skip

FLASH_FORWARD = Exercise(
    name="flash_forward",
    assignment="gpu_kernels",
    target=Target("flash_forward", OUTPUTS, formula, statistics=("log_sum_exp",)),
    positional=("query", "key", "value"),
    kernels=True,
    situations=Situations(
        draw=attention_inputs,
        factors={"dtype": HALF_AND_SINGLE, "causal": CAUSAL, "lengths": {**cases.LENGTHS, **cases.LONG}, "width": cases.WIDTHS,
                 "heads": cases.HEADS, "scores": cases.SCORES, "terms": cases.TERMS},
        axes={"query": "... H S_q D", "key": "... K S_k D", "value": "... K S_k D"},
        groups=groups(
            "softmax(query key^T / sqrt(D)) value, and ln(sum of exp(score)), over tiles", 2.75,
            (sizes(1.0), heads(1.0), dtypes(0.75), calls(0.5)),
            causal=1.0, scores=0.75,
        ),
        left_out=LEFT_OUT,
        meet=cases.MEET,
        never=cases.NEVER,
        kernels=True,
        names=NAMES,
    ),
    recipes=(
        Recipe("plain", attention_inputs),
        Recipe("many tiles of keys", partial(attention_inputs, heads=(1, 1), S_k=(140, 150))),
        Recipe("causal, many tiles", partial(attention_inputs, heads=(1, 1), S_q=70, S_k=75, is_causal=True)),
        Recipe("five heads on two", partial(attention_inputs, heads=(5, 2))),
        Recipe("bfloat16", partial(attention_inputs, dtype=torch.bfloat16)),
        Recipe(GPU, partial(attention_inputs, width=8, dtype=torch.float16)),
        Recipe("70,000 keys", lambda draw: long_inputs(SOME, LONG)),
        Recipe("70,000 queries", lambda draw: long_inputs(LONG, SOME)),
    ),
    checks=(
        own_kernel("plain"),
        Check("heads that do not fit", "are refused with a ValueError", 0.25, ("five heads on two",), raises_value_error(),
              FORMULA),
        refuses_bfloat16(),
        tiles("causal, many tiles", *OUTPUTS),
        *conduct("plain", "many tiles of keys", long=("70,000 keys", "70,000 queries"), shorter=SHORTER),
    ),
    mistakes=slips(tiled, SCALE_SLIPS, HEAD_SLIPS, CAUSAL_SLIPS, FORWARD_SLIPS),
    hints=(
        "Start with the online softmax of one tile of queries: which three things must a program carry from one "
        "tile of keys to the next, and what happens to two of them when the third grows?",
        "Carry `accumulator` (M, BLOCK_D), `total` (M,) and `highest` (M,). For each tile: scores = tl.dot(q, "
        "tl.trans(k)) * scale; mask what is beyond S_k or in the future with -inf; higher = maximum(highest, row "
        "maxima); rescale = exp2(highest - higher) multiplies the other two before the tile's weights are added. "
        "The grid is (tiles of queries, B * H_q).",
        "With scale = log2(e) / sqrt(D): `weights = tl.exp2(scores - higher[:, None])`; `total = total * rescale + "
        "tl.sum(weights, 1)`; `accumulator = tl.dot(weights.to(v.dtype), v, accumulator * rescale[:, None])`. After "
        "the loop: output = accumulator / total[:, None], log_sum_exp = (highest + tl.log2(total)) * ln 2. Loads "
        "are masked with `(row < S) & (d < D)` and other=0.",
    ),
)  # fmt: skip
