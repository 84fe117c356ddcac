"""Exercise `softmax_rows`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Target
from autograder.checks.conduct import FUSED, SOFTMAX
from autograder.checks.kernels import PRODUCTS
from autograder.exercises.exercise import Exercise
from autograder.exercises.gpu_kernels.conduct import (
    HALF_AND_SINGLE,
    LEFT_OUT,
    NAMES,
    REDUCTIONS,
    calls,
    conduct,
    dtypes,
    own_kernel,
    refuses_bfloat16,
    shortened,
    sizes,
)
from autograder.mistakes import Slips, slips
from autograder.oracle.kernels import softmax_rows as formula
from autograder.situations import Factor, Situations, groups

__all__ = ["SOFTMAX_ROWS"]

Range = tuple[int, int]


def inputs(
    draw: Draw,
    *,
    rows: Range = (3, 4),
    columns: Range = (5, 12),
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    shift: float = 0.0,
) -> dict[str, Any]:
    """x (rows, columns): numbers of that size around `shift`, which half precision may bound."""
    low = max(shift, -6e4) if dtype == torch.float16 else shift
    shape = draw.integer(*rows), draw.integer(*columns)
    return {"x": (draw.normal(*shape, dtype=torch.float64) * size + low).to(dtype)}


def _some_hidden(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """Every third number of a row is -inf, and the last one is none."""
    x = inputs["x"]
    return {"x": x.index_fill(-1, torch.arange(0, x.shape[-1] - 1, 3), -torch.inf)}


LENGTHS: Factor = {
    "a few columns": {},
    "a power of two": {"columns": (32, 32)},
    "one column": {"columns": (1, 1)},
    "one row": {"rows": (1, 1)},
    "just beyond a power of two": {"columns": (65, 66)},
    "over sixty-four rows": {"rows": (67, 71), "columns": (2, 4)},
    "over 4,096 columns": {"columns": (4099, 5003), "rows": (2, 2)},
}
SCORES: Factor = {
    "ordinary scores": {},
    "scores of tens": {"size": 10.0, "columns": (50, 50)},
    "scores of hundreds": {"size": 300.0},
    "scores of -500": {"shift": -500.0},
    "scores of -100,000": {"shift": -100_000.0},
    "scores of -2,000,000": {"shift": -(2.0**21), "size": 0.0, "columns": (9, 11)},
    "-inf among the scores": _some_hidden,
}
TERMS: Factor = {
    "few terms": {},
    "over 150,000 terms in float16": {
        "rows": (1, 1),
        "columns": (151_937,) * 2,
        "size": 0.01,
        "dtype": torch.float16,
    },
}


def soft(
    x: Tensor,
    *,
    axis: int = -1,
    factor: float = 1.0,
    highest: Callable[[Tensor], Tensor] = lambda x: x.amax(-1, keepdim=True),
    divided: bool = True,
    row: Callable[[Tensor], Tensor] = lambda x: x,
    tail: bool = False,
    finish: Callable[[Tensor], Tensor] = lambda weights: weights,
) -> Tensor:
    """Softmax in steps. axis: of the sum. highest: what is taken off the numerators. tail: the row is filled up with zeros
    that take part."""
    columns = x.shape[-1]
    if tail:
        x = torch.nn.functional.pad(x, (0, (1 << (columns - 1).bit_length()) - columns))
    x = row(x) * factor
    weights = (x - highest(x)).exp()
    total = (x - x.amax(axis, keepdim=True)).exp().sum(axis, keepdim=True) if divided else 1.0
    return finish(torch.softmax(x, axis) if axis != -1 else weights / total)[:, :columns]


SLIPS: Slips = {
    "Which number does tl.load put where the row has ended? exp(-inf) is 0, exp(0) is not.": {
        "the tail takes part": {"tail": True},
    },
    "One program takes one row. Do neighbours in it differ by the column's stride?": {"softmax over the rows": {"axis": 0}},
    "The exponentials of a row must add up to 1. Is their sum taken?": {"not divided by the sum": {"divided": False}},
    "2^x is not e^x: multiply by log2(e) first, or take tl.exp.": {"exp2 without log2(e)": {"factor": 0.6931471805599453}},
    "Is it log_softmax?": {"logarithm of the weights": {"finish": torch.log}},
    "Does each program subtract the maximum of its own row?": {
        "the largest number of the first row for all": {"highest": lambda x: x[:1].amax()},
    },
    "Does the pointer of the output move on with the row?": {
        "only the first row is written": {"row": lambda x: x[:1].expand_as(x)},
    },
}  # fmt: skip

SOFTMAX_ROWS = Exercise(
    name="softmax_rows",
    assignment="gpu_kernels",
    target=Target("softmax_rows", ("weights",), formula),
    positional=("x",),
    kernels=True,
    situations=Situations(
        draw=inputs,
        factors={"dtype": HALF_AND_SINGLE, "lengths": LENGTHS, "scores": SCORES, "terms": TERMS},
        axes={"x": "... C"},
        lengths=("C",),
        groups=groups("each row is the softmax of its numbers", 1.25, (sizes(0.75), dtypes(0.5), calls(0.5)), scores=0.5),
        left_out=LEFT_OUT,
        meet=(("dtype", "lengths"), ("dtype", "scores")),
        never=(
            {"terms": "over 150,000 terms in float16", "lengths": tuple(LENGTHS)[1:]},
            {"layout": ("strided", "far apart in memory"), "lengths": ("one row", "over 4,096 columns")},
            {"layout": "far apart in memory", "scores": tuple(SCORES)[1:]},
        ),
        kernels=True,
        names=NAMES,
    ),
    recipes=(
        Recipe("plain", inputs),
        Recipe("eighteen rows", partial(inputs, rows=(18, 18), columns=(17, 17))),
        Recipe("bfloat16", partial(inputs, dtype=torch.bfloat16)),
        Recipe("2,000 rows", lambda draw: {"x": torch.zeros(2_000, 3)}),
    ),
    checks=(
        own_kernel("plain", forbidden=PRODUCTS | SOFTMAX | FUSED | REDUCTIONS),
        refuses_bfloat16(),
        *conduct(
            "plain", "eighteen rows", built="plain", long=("2,000 rows",), shorter=shortened({"x": 0}), products=False
        ),
    ),
    mistakes=slips(soft, SLIPS, output="weights"),
    hints=(
        "Write what one program does for one row, as if there were no others: load the row, subtract its maximum, "
        "exponentiate, divide by the sum, store.",
        "A tile has a power of two of elements: `column = tl.arange(0, BLOCK)`, and `column < columns` masks both the load "
        "(other=-inf, so that the exponential is 0) and the store. The row's address is `x + row * x_row + column * x_column`.",
        "`scores = tl.load(..., mask=inside, other=-float('inf')).to(tl.float32)`; `numerator = tl.exp(scores - tl.max(scores, "
        "0))`; `tl.store(..., numerator / tl.sum(numerator, 0), mask=inside)`. Launch: `softmax_kernel[(rows,)](x, output, "
        "*x.stride(), output.stride(0), columns, BLOCK=triton.next_power_of_2(columns))`.",
    ),
)  # fmt: skip
