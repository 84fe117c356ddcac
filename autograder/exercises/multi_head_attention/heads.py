"""Exercises `split_heads` and `merge_heads`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.conduct import dtype_kept, repeatable
from autograder.checks.configured import refuses
from autograder.checks.gradients import differentiable
from autograder.checks.structure import agrees_with_slices
from autograder.exercises.basic_attention.slip_table import Slip, named
from autograder.exercises.exercise import Exercise
from autograder.exercises.multi_head_attention.slips import reshaped_apart, reshaped_together, strided
from autograder.oracle.multi_head import merge, merge_heads, split, split_heads

__all__ = ["MERGE_HEADS", "SPLIT_HEADS"]

STEM = "multi_head_attention"
FORMULA = "agrees with the formula"


def _split_inputs(
    draw: Draw, *, axes: int = 1, dtype: torch.dtype = torch.float32, kind: str = ""
) -> dict[str, Any]:
    """x (..., S, H D_head). kind: "one head", "thin" for heads of width 1, "square" for S = H = D_head, "uneven"."""
    *lead, S, H, D = draw.sizes(axes + 3)
    if kind == "square":
        S = D = H
    H, D = (1 if kind == "one head" else H), (1 if kind == "thin" else D)
    width = H * D + draw.integer(1, H - 1) if kind == "uneven" else H * D
    return {"x": draw.normal(*lead, S, width, dtype=dtype), "num_heads": H}


def _wider_than_long(draw: Draw) -> dict[str, Any]:
    """More heads than features."""
    S, D = draw.sizes(2)
    return {"x": draw.normal(S, D), "num_heads": D + draw.integer(1, 4)}


def _merge_inputs(
    draw: Draw, *, axes: int = 1, dtype: torch.dtype = torch.float32, kind: str = ""
) -> dict[str, Any]:
    """heads (..., H, S, D_head), of the same kinds."""
    *lead, H, S, D = draw.sizes(axes + 3)
    if kind == "square":
        S = D = H
    H, D = (1 if kind == "one head" else H), (1 if kind == "thin" else D)
    return {"heads": draw.normal(*lead, H, S, D, dtype=dtype)}


def _recipes(inputs: Callable[..., dict[str, Any]], *more: Recipe) -> tuple[Recipe, ...]:
    def recipe(label: str, **options: Any) -> Recipe:
        return Recipe(label, partial(inputs, **options))

    return (
        recipe("unequal sizes"),
        recipe("two leading axes", axes=2),
        recipe("no leading axis", axes=0),
        recipe("one head", kind="one head"),
        recipe("heads of width 1", kind="thin"),
        recipe("all sizes equal", kind="square"),
        recipe("float64", dtype=torch.float64),
        recipe("bfloat16", dtype=torch.bfloat16),
        recipe("float16", dtype=torch.float16),
        *more,
    )


SIZES = ("unequal sizes", "one head", "heads of width 1", "all sizes equal")


def _common(output: str, batched: dict[str, int]) -> tuple[Check, ...]:
    return (
        Check(
            "leading axes",
            "any number of leading axes",
            0.25,
            ("unequal sizes", "two leading axes"),
            agrees_with_slices(batched, (output,)),
            FORMULA,
        ),
        Check(
            "gradient",
            "backward() carries each gradient to where its number came from",
            0.25,
            ("float64",),
            differentiable((output,)),
            FORMULA,
        ),
        Check(
            "dtype",
            "the input's dtype is kept",
            0.25,
            ("float64", "bfloat16", "float16"),
            dtype_kept((output,)),
            FORMULA,
        ),
        Check(
            "layout",
            "strides and earlier calls do not matter",
            0.25,
            ("unequal sizes",),
            repeatable((output,)),
            FORMULA,
        ),
    )


RESHAPED = (
    "A reshape straight to the result's shape keeps the memory order, and so mixes positions and features. "
    "Which two axes have to swap?"
)


SPLIT_SLIPS: tuple[Slip, ...] = (
    ("heads cut by a reshape alone", RESHAPED, reshaped_apart),
    (
        "every num_heads-th feature for a head",
        "Head h gets neighbouring features: is it unflatten(-1, (num_heads, -1)) rather than the other way round?",
        strided,
    ),
    (
        "heads in the reverse order",
        "Head 0 gets the first features. Is the axis of heads turned round?",
        lambda x, num_heads: split(x, num_heads).flip(-3),
    ),
    (
        "the same features in every head",
        "Each head gets a piece of its own. Is the start of the slice moved on from head to head?",
        lambda x, num_heads: split(x, num_heads)[..., :1, :, :].expand_as(split(x, num_heads)),
    ),
)
MERGE_SLIPS: tuple[Slip, ...] = (
    ("heads merged by a reshape alone", RESHAPED, reshaped_together),
    (
        "features of the heads interleaved",
        "Each head's features stay together. Is the axis of heads moved to before the features, not behind them?",
        lambda heads: heads.movedim(-3, -1).flatten(-2),
    ),
    (
        "heads in the reverse order",
        "Head 0's features come first. Is the axis of heads turned round?",
        lambda heads: merge(heads.flip(-3)),
    ),
)

SPLIT_HEADS = Exercise(
    name="split_heads",
    assignment=STEM,
    target=Target("split_heads", ("heads",), split_heads),
    positional=("x", "num_heads"),
    recipes=_recipes(
        _split_inputs,
        Recipe("uneven heads", partial(_split_inputs, kind="uneven")),
        Recipe("more heads than features", _wider_than_long),
    ),
    checks=(
        Check(
            FORMULA, "head h holds piece h of the features, for every position", 1.0, SIZES, agrees("heads")
        ),
        Check(
            "uneven heads",
            "a width that num_heads does not divide is refused, saying why",
            0.5,
            ("uneven heads", "more heads than features"),
            refuses(width=lambda i: int(i["x"].shape[-1]), num_heads=lambda i: int(i["num_heads"])),
            FORMULA,
        ),
        *_common("heads", {"x": 2}),
    ),
    mistakes=named("heads", SPLIT_SLIPS),
    hints=(
        "What is cut is the last axis, the features. What happens to the positions? Nothing: every head keeps them all.",
        (
            "Two steps: turn the axis of width D into two axes, (num_heads, D / num_heads); then bring the "
            "axis of heads in front of the positions. First compare D % num_heads with 0."
        ),
        "`x.unflatten(-1, (num_heads, D // num_heads))` gives (..., S, H, D / H); `.transpose(-3, -2)` does the rest.",
    ),
)

MERGE_HEADS = Exercise(
    name="merge_heads",
    assignment=STEM,
    target=Target("merge_heads", ("merged",), merge_heads),
    positional=("heads",),
    recipes=_recipes(_merge_inputs),
    checks=(
        Check(
            FORMULA,
            "each position holds the features of head 0, then of head 1, ...",
            1.0,
            SIZES,
            agrees("merged"),
        ),
        *_common("merged", {"heads": 3}),
    ),
    mistakes=named("merged", MERGE_SLIPS),
    hints=(
        "It undoes split_heads: which two steps did that take, and in which order do they come back?",
        "Bring the positions in front of the heads again, (..., S, H, D_head); then make the last two axes one.",
        "`heads.transpose(-3, -2).flatten(-2)`. After a transpose `.view` refuses; `.flatten` and `.reshape` copy.",
    ),
)
