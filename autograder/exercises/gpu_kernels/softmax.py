"""Exercise `softmax_rows`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.conduct import FUSED, SOFTMAX
from autograder.checks.fused import agrees_here, float32_sums
from autograder.checks.kernels import PRODUCTS
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.gpu_kernels.conduct import (
    COUNTS,
    FORMULA,
    OWN,
    REDUCTIONS,
    conduct,
    own_kernel,
    refuses_bfloat16,
    shortened,
)
from autograder.oracle.kernels import softmax_rows as formula

__all__ = ["SOFTMAX_ROWS"]

OUTPUTS = ("weights",)
PLENTY = 70_000
"""Columns whose exponentials add up to more than float16 can hold."""


def _inputs(
    draw: Draw,
    *,
    columns: Callable[[Draw], int] = lambda draw: draw.sizes(1, 5, 12)[0],
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    shift: float = 0.0,
    rows: int | None = None,
) -> dict[str, Any]:
    """x (rows, columns): two to four rows that differ in number from the columns."""
    shape = (draw.integer(2, 4) if rows is None else rows, columns(draw))
    return {"x": (draw.normal(*shape, dtype=torch.float64) * size + shift).to(dtype)}


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("a power of two", columns=lambda draw: 32),
    _recipe("one column", columns=lambda draw: 1),
    _recipe("just beyond a power of two", columns=lambda draw: (17, 33, 65)[draw.integer(0, 2)], rows=40),
    _recipe("wide rows", columns=lambda draw: draw.integer(1200, 1700), rows=2),
    _recipe("scores of hundreds", size=300.0),
    _recipe("scores far below zero", shift=-500.0),
    _recipe("70,000 columns, float16", columns=lambda draw: PLENTY, dtype=torch.float16, size=0.01, rows=1),
    _recipe("float16", dtype=torch.float16),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("three rows of 21", columns=lambda draw: 21, rows=3),
    _recipe("scores of -100,000", shift=-100_000.0, columns=lambda draw: draw.sizes(1, 5, 7)[0]),
    _recipe("scores of tens", size=10.0, rows=4, columns=lambda draw: 50),
    Recipe("2,000 rows", lambda draw: {"x": torch.zeros(2_000, 3)}),
)


def _padded(x: Tensor, *, fill: float) -> Mapping[str, Tensor]:
    """The row filled up to a power of two with numbers that take part."""
    columns = x.shape[-1]
    width = 1 << (columns - 1).bit_length()
    wide = torch.nn.functional.pad(x, (0, width - columns), value=fill)
    return {"weights": torch.softmax(wide, -1)[:, :columns]}


def _by(weights: Callable[[Tensor], Tensor]) -> Callable[..., Mapping[str, Tensor]]:
    return lambda x: {"weights": weights(x)}


_TAIL = "Which number does tl.load put where the row has ended? exp(-inf) is 0, exp(0) is not."


def _mistakes() -> tuple[Mistake, ...]:
    return (
        Mistake("the tail takes part", _TAIL, partial(_padded, fill=0.0)),
        Mistake(
            "softmax over the rows",
            "One program takes one row. Do neighbours in it differ by the column's stride?",
            _by(lambda x: torch.softmax(x, 0)),
        ),
        Mistake(
            "not divided by the sum",
            "The exponentials of a row must add up to 1. Is their sum taken?",
            _by(lambda x: (x - x.amax(-1, keepdim=True)).exp()),
        ),
        Mistake(
            "exp2 without log2(e)",
            "2^x is not e^x: multiply by log2(e) first, or take tl.exp.",
            _by(lambda x: torch.softmax(x * 0.6931471805599453, -1)),
        ),
        Mistake(
            "logarithm of the weights",
            "Is it log_softmax?",
            _by(lambda x: torch.log_softmax(x, -1)),
        ),
        Mistake(
            "the largest number of the first row for all",
            "Does each program subtract the maximum of its own row?",
            _by(lambda x: (x - x[:1].amax()).exp() / (x - x.amax(-1, keepdim=True)).exp().sum(-1, True)),
        ),
        Mistake(
            "only the first row is written",
            "Does the pointer of the output move on with the row?",
            _by(lambda x: torch.softmax(x[:1], -1).expand_as(x)),
        ),
    )


SOFTMAX_ROWS = Exercise(
    name="softmax_rows",
    assignment="gpu_kernels",
    target=Target("softmax_rows", OUTPUTS, formula),
    positional=("x",),
    recipes=RECIPES,
    kernels=True,
    checks=(
        Check(COUNTS, "the weights change with x", 0.25, ("unequal sizes",), responds({"x": OUTPUTS})),
        own_kernel("unequal sizes", "three rows of 21", forbidden=PRODUCTS | SOFTMAX | FUSED | REDUCTIONS),
        Check(
            FORMULA,
            "each row is the softmax of its numbers",
            1.0,
            ("unequal sizes", "a power of two"),
            agrees(*OUTPUTS),
            OWN,
        ),
        Check(
            "any width",
            "one column, just beyond a power of two, more than a thousand, and any number of rows",
            0.5,
            ("one column", "just beyond a power of two", "wide rows"),
            agrees_here(
                "at this width it differs from the formula", *OUTPUTS, mistake="fails at some widths"
            ),
            FORMULA,
        ),
        Check(
            "hard inputs",
            "no overflow, and no underflow of a whole row",
            0.5,
            ("scores of hundreds", "scores of tens", "scores far below zero", "scores of -100,000"),
            agrees_here(
                "for such scores it differs from the formula",
                *OUTPUTS,
                finite="overflows or underflows for large scores",
            ),
            FORMULA,
        ),
        Check(
            "sums in float32",
            "70,000 terms in float16 do not overflow",
            0.25,
            ("70,000 columns, float16",),
            float32_sums(*OUTPUTS),
            FORMULA,
        ),
        refuses_bfloat16(FORMULA),
        *conduct(
            (FORMULA,),
            OUTPUTS,
            "three rows of 21",
            built=None,
            tiles="just beyond a power of two",
            long=("2,000 rows",),
            shorter=shortened({"x": 0}),
            products=False,
        ),
    ),
    mistakes=_mistakes(),
    hints=(
        (
            "Write what one program does for one row, as if there were no others: load the row, subtract its "
            "maximum, exponentiate, divide by the sum, store."
        ),
        (
            "A tile has a power of two of elements: `column = tl.arange(0, BLOCK)`, and `column < columns` masks "
            "both the load (other=-inf, so that the exponential is 0) and the store. The row's address is "
            "`x + row * x_row + column * x_column`."
        ),
        (
            "`scores = tl.load(..., mask=inside, other=-float('inf')).to(tl.float32)`; `numerator = "
            "tl.exp(scores - tl.max(scores, 0))`; `tl.store(..., numerator / tl.sum(numerator, 0), mask=inside)`. "
            "Launch: `softmax_kernel[(rows,)](x, output, *x.stride(), output.stride(0), columns, "
            "BLOCK=triton.next_power_of_2(columns))`."
        ),
    ),
)
