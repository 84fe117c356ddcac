"""Exercise `flash_forward`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.fused import agrees_here, causal_tiles, float32_sums
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.gpu_kernels.cases import HARD, attention_inputs, long_inputs
from autograder.exercises.gpu_kernels.conduct import (
    COUNTS,
    FORMULA,
    GPU,
    LONG,
    OWN,
    SOME,
    conduct,
    own_kernel,
    refuses_bfloat16,
    shortened,
)
from autograder.exercises.gpu_kernels.tiles import COLUMN_SLIPS, SCALE_SLIPS, TILES, Slip, tiled
from autograder.oracle.kernels import flash_forward as formula

__all__ = ["CAUSAL_SLIPS", "FLASH_FORWARD", "SHORTER"]

OUTPUTS = ("output", "log_sum_exp")
ODD = (1, 17, 33, 65)
DIFFERS = "it differs from the formula"
SHORTER = shortened({"query": 2, "key": 2, "value": 2})


def _several_tiles(draw: Draw) -> tuple[int, int]:
    return draw.integer(3, 6), draw.integer(140, 150)


def _square(draw: Draw) -> tuple[int, int]:
    length = draw.integer(18, 24)
    return length, length


def _cancelling(draw: Draw, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nearly equal weights, and values that add up to 150,000 on the way, too much for float16, and then cancel."""
    value[..., :150, :] += 1000.0
    value[..., 150:, :] -= 1000.0
    return query * 0.05, key, value


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(attention_inputs, **options))


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("many tiles of keys", batch=1, heads=(1, 1), lengths=_several_tiles),
    _recipe(
        "odd lengths", batch=1, heads=(1, 1), lengths=lambda d: (ODD[d.integer(0, 2)], ODD[d.integer(1, 3)])
    ),
    _recipe("one query", batch=1, lengths=lambda draw: (1, 7)),
    _recipe("one key", batch=1, lengths=lambda draw: (4, 1)),
    _recipe("wider than a power of two", batch=1, heads=(1, 1), width=130),
    _recipe("four heads on two", heads=(4, 2)),
    _recipe("three heads on one", batch=1, heads=(3, 1)),
    _recipe("causal, fewer queries than keys", is_causal=True, batch=1, lengths=lambda d: (5, 20)),
    _recipe("causal, more queries than keys", is_causal=True, batch=1, lengths=lambda d: (20, 9)),
    _recipe("causal, several tiles", is_causal=True, batch=1, heads=(1, 1), lengths=_square),
    *(
        _recipe(label, batch=1, heads=(1, 1), shaped=one, lengths=lambda d: (3, 37))
        for label, one in HARD.items()
    ),
    _recipe("float16", dtype=torch.float16, batch=1),
    _recipe(
        "300 keys, float16",
        dtype=torch.float16,
        batch=1,
        heads=(1, 1),
        lengths=lambda draw: (2, 300),
        shaped=_cancelling,
    ),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("five heads on two", heads=(5, 2)),
    _recipe("eight wide", heads=(2, 1), width=8, lengths=lambda draw: (5, 9)),
    _recipe(GPU, batch=1, width=8, dtype=torch.float16, lengths=lambda draw: (5, 9)),
    _recipe("many tiles of queries", batch=1, heads=(1, 1), lengths=lambda d: _several_tiles(d)[::-1]),
    _recipe("causal, heads shared", is_causal=True, heads=(2, 1), lengths=lambda d: (4, 6)),
    _recipe("causal, many tiles", is_causal=True, batch=1, heads=(1, 1), lengths=lambda d: (70, 75)),
    Recipe("70,000 keys", lambda draw: long_inputs(SOME, LONG)),
    Recipe("70,000 queries", lambda draw: long_inputs(LONG, SOME)),
)

CAUSAL = (
    "causal, fewer queries than keys",
    "causal, more queries than keys",
    "causal, several tiles",
    "causal, heads shared",
    "causal, many tiles",
)

CAUSAL_SLIPS: tuple[Slip, ...] = (
    ("is_causal ignored", "Does is_causal reach the kernel?", {"causal": False}),
    ("always causal", "Without is_causal every query sees every key.", {"causal": True}),
    (
        "causal mask shows one key of the future",
        "Query i sees key i and none after it: is it column <= row?",
        {"sees": lambda row, column, S_q, S_k: column <= row + 1},
    ),
    (
        "causal mask aligned at the bottom right",
        "Here query 0 sees key 0 alone, whatever the lengths are.",
        {"sees": lambda row, column, S_q, S_k: column <= row + S_k - S_q},
    ),
)

_RESCALE = "A new maximum changes the unit of everything summed so far: multiply it by exp(old - new)."
TILE_SLIPS: tuple[Slip, ...] = (
    ("the accumulator is not rescaled", _RESCALE, {"output_rescaled": False}),
    ("the sum is not rescaled", _RESCALE, {"total_rescaled": False}),
    ("nothing is rescaled", _RESCALE, {"output_rescaled": False, "total_rescaled": False}),
    ("rescaled by the inverse", "Is it exp(old - new), not exp(new - old)?", {"turned": True}),
    (
        "only the last tile counts",
        "Do accumulator and sum go on from tile to tile, and is the maximum kept for the next one?",
        {"carried": False},
    ),
    (
        "keys beyond the end take part",
        "A masked load yields 0, and exp(0 - maximum) is not 0. Are those scores set to -inf?",
        {"tail": True},
    ),
)

_NATURAL = "It is maximum + ln(sum), in the units of the scores."
NORMALISER_SLIPS: tuple[Slip, ...] = (
    (
        "log-sum-exp in base 2",
        "With exp2, the result is in bits: multiply by ln 2.",
        {"normaliser": lambda highest, total: (highest + total.log()) * math.log2(math.e)},
    ),
    (
        "log-sum-exp in two units",
        "With exp2 the maximum is in bits, too: add log2(sum) to it, then multiply both by ln 2.",
        {"normaliser": lambda highest, total: highest * math.log2(math.e) + total.log()},
    ),
    ("log-sum-exp without the maximum", _NATURAL, {"normaliser": lambda highest, total: total.log()}),
    ("the maximum for the log-sum-exp", _NATURAL, {"normaliser": lambda highest, total: highest}),
    ("the sum for its logarithm", _NATURAL, {"normaliser": lambda highest, total: total}),
)


def _mistakes() -> tuple[Mistake, ...]:
    plain = (
        *SCALE_SLIPS,
        *COLUMN_SLIPS,
        *CAUSAL_SLIPS,
        *NORMALISER_SLIPS,
        ("not divided by the sum", "At the end the accumulator is divided by the sum.", {"divided": False}),
    )
    return (
        *(Mistake(name, question, partial(tiled, **knobs)) for name, question, knobs in plain),
        *(
            Mistake(name, question, partial(tiled, tile=tile, **knobs))
            for name, question, knobs in TILE_SLIPS
            for tile in TILES
        ),
    )


FLASH_FORWARD = Exercise(
    name="flash_forward",
    assignment="gpu_kernels",
    target=Target("flash_forward", OUTPUTS, formula),
    positional=("query", "key", "value"),
    recipes=RECIPES,
    kernels=True,
    checks=(
        Check(
            COUNTS,
            "the results change when query, key or value do",
            0.25,
            ("unequal sizes",),
            responds({"query": OUTPUTS, "key": OUTPUTS, "value": ("output",)}),
        ),
        own_kernel("unequal sizes", "eight wide"),
        Check(
            FORMULA,
            "the output is softmax(query key^T / sqrt(D)) value, over one tile and over many",
            2.0,
            ("unequal sizes", "many tiles of keys"),
            agrees("output"),
            OWN,
        ),
        Check(
            "log-sum-exp",
            "the second result is ln(sum of exp(score)), for every query",
            1.0,
            ("unequal sizes", "many tiles of keys", "scores far below zero"),
            agrees("log_sum_exp"),
            OWN,
        ),
        Check(
            "any size",
            "one query, many, one key, odd lengths, widths that are no power of two",
            0.75,
            ("odd lengths", "many tiles of queries", "one query", "one key", "wider than a power of two"),
            agrees_here(f"at this size {DIFFERS}", "output", mistake="fails at some sizes"),
            FORMULA,
        ),
        Check(
            "heads",
            "query head h reads key and value head h // group",
            0.75,
            ("four heads on two", "three heads on one"),
            agrees_here(f"with shared heads {DIFFERS}", "output", mistake="reads the wrong heads"),
            FORMULA,
        ),
        Check(
            "causal",
            "the future cannot change the past, and the present is seen",
            0.5,
            ("causal, fewer queries than keys", "causal, several tiles"),
            causal_tiles(),
            OWN,
        ),
        Check(
            "causal results",
            "but for what is hidden, is_causal changes nothing in the formula",
            0.5,
            CAUSAL,
            agrees(*OUTPUTS),
            (FORMULA, "log-sum-exp", "heads", "causal"),
        ),
        Check(
            "hard inputs",
            "rising, huge, heavy-tailed and equal scores",
            0.75,
            tuple(HARD),
            agrees_here(
                f"for such inputs {DIFFERS}", "output", finite="overflows or underflows for large scores"
            ),
            FORMULA,
        ),
        Check(
            "sums in float32",
            "large terms in float16, which cancel, do not overflow on the way",
            0.5,
            ("300 keys, float16",),
            float32_sums("output", statistics=("log_sum_exp",)),
            FORMULA,
        ),
        Check(
            "heads that do not fit",
            "are refused with a ValueError",
            0.25,
            ("five heads on two",),
            raises_value_error(),
            FORMULA,
        ),
        refuses_bfloat16(FORMULA),
        *conduct(
            (FORMULA, "log-sum-exp"),
            ("output",),
            "eight wide",
            tiles="many tiles of keys",
            long=("70,000 keys", "70,000 queries"),
            shorter=SHORTER,
        ),
    ),
    mistakes=_mistakes(),
    hints=(
        (
            "Start with the online softmax of one tile of queries: which three things must a program carry from "
            "one tile of keys to the next, and what happens to two of them when the third grows?"
        ),
        (
            "Carry `accumulator` (M, BLOCK_D), `total` (M,) and `highest` (M,). For each tile: scores = "
            "tl.dot(q, tl.trans(k)) * scale; mask what is beyond S_k or in the future with -inf; higher = "
            "maximum(highest, row maxima); rescale = exp2(highest - higher) multiplies the other two before the "
            "tile's weights are added. The grid is (tiles of queries, B * H_q)."
        ),
        (
            "With scale = log2(e) / sqrt(D): `weights = tl.exp2(scores - higher[:, None])`; `total = total * "
            "rescale + tl.sum(weights, 1)`; `accumulator = tl.dot(weights.to(v.dtype), v, accumulator * "
            "rescale[:, None])`. After the loop: output = accumulator / total[:, None], log_sum_exp = (highest + "
            "tl.log2(total)) * ln 2. Loads are masked with `(row < S) & (d < D)` and other=0."
        ),
    ),
)
