"""Exercises `split_heads` and `merge_heads`."""

from __future__ import annotations

from typing import Any

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.configured import refuses
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.heads import reshaped_apart, reshaped_together, strided, strided_together
from autograder.oracle.multi_head import merge, merge_heads, split, split_heads
from autograder.situations import DTYPES, MODULE_AXES, Factor, Group, Situations, drawn_by, groups

__all__ = ["MERGE_HEADS", "SPLIT_HEADS"]

STEM = "multi_head_attention"
FORMULA = "agrees with the formula"

LENGTHS: Factor = {
    "several positions": {},
    "as many positions as heads and features": {"S": "H", "D": "H"},
    "one position": {"S": 1},
    "over a thousand positions": {"S": [1031, 1033, 1039], "H": 2, "D": 3, "axes": 1},
}
HEADS: Factor = {
    "several heads": {},
    "one head": {"H": 1},
    "heads of width 1": {"D": 1},
    "wide heads": {"D": [83, 97, 107, 109], "H": (2, 3)},
}
AXES: Factor = {**MODULE_AXES, "four leading axes": {"axes": 4, "S": (2, 3), "D": (2, 3), "H": (2, 3)}}
FACTORS = {"lengths": LENGTHS, "heads": HEADS, "dtype": DTYPES, "axes": AXES}
NEVER = ({"heads": tuple(HEADS)[1:], "lengths": "as many positions as heads and features"},)
SIZES = Group("heads", "one head, heads of width 1 and wide heads", 0.25, ("heads",))

RESHAPED = (
    "A reshape straight to the result's shape keeps the memory order, and so mixes positions and features. "
    "Which two axes have to swap?"
)

SPLIT_SLIPS: Slips = {
    RESHAPED: {"heads cut by a reshape alone": reshaped_apart},
    "Head h gets neighbouring features: is it unflatten(-1, (num_heads, -1)) rather than the other way round?": {
        "every num_heads-th feature for a head": strided,
    },
    "Head 0 gets the first features. Is the axis of heads turned round?": {
        "heads in the reverse order": lambda x, num_heads: split(x, num_heads).flip(-3),
    },
    "Each head gets a piece of its own. Is the start of the slice moved on from head to head?": {
        "the same features in every head": lambda x, num_heads: split(x, num_heads)[..., :1, :, :].expand_as(split(x, num_heads)),
    },
}  # fmt: skip

MERGE_SLIPS: Slips = {
    RESHAPED: {"heads merged by a reshape alone": reshaped_together},
    "Each head's features stay together. Is the axis of heads moved to before the features, not behind them?": {
        "features of the heads interleaved": strided_together,
    },
    "Head 0's features come first. Is the axis of heads turned round?": {
        "heads in the reverse order": lambda heads: merge(heads.flip(-3)),
    },
}  # fmt: skip

draw_split = drawn_by(
    {"x": "... S width"},
    values={"num_heads": "H"},
    derived={"width": lambda s: s["H"] * s["D"]},
    free="D",
    leading=1,
)


def _uneven(draw: Draw) -> dict[str, Any]:
    """A width that num_heads does not divide."""
    S, H, D = draw.sizes(3)
    return {"x": draw.normal(S, H * D + draw.integer(1, H - 1)), "num_heads": H}


def _wider_than_long(draw: Draw) -> dict[str, Any]:
    """More heads than features."""
    S, D = draw.sizes(2)
    return {"x": draw.normal(S, D), "num_heads": D + draw.integer(1, 4)}


SPLIT_HEADS = Exercise(
    name="split_heads",
    assignment=STEM,
    target=Target("split_heads", ("heads",), split_heads),
    positional=("x", "num_heads"),
    situations=Situations(
        draw=draw_split,
        factors=FACTORS,
        axes={"x": "... S width"},
        groups=groups(
            "head h holds piece h of the features, for every position", 0.75, (SIZES,),
            lengths=0.25, gradient=0.25, dtypes=0.25, calls=0.25,
        ),
        never=NEVER,
    ),
    recipes=(Recipe("uneven heads", _uneven), Recipe("more heads than features", _wider_than_long)),
    checks=(
        Check(
            "uneven heads", "a width that num_heads does not divide is refused, saying why", 0.5,
            ("uneven heads", "more heads than features"),
            refuses(width=lambda i: int(i["x"].shape[-1]), num_heads=lambda i: int(i["num_heads"])), FORMULA,
        ),
    ),
    mistakes=slips(split, SPLIT_SLIPS, output="heads"),
    hints=(
        "What is cut is the last axis, the features. What happens to the positions? Nothing: every head keeps them all.",
        "Two steps: turn the axis of width D into two axes, (num_heads, D / num_heads); then bring the axis of heads in front of "
        "the positions. First compare D % num_heads with 0.",
        "`x.unflatten(-1, (num_heads, D // num_heads))` gives (..., S, H, D / H); `.transpose(-3, -2)` does the rest.",
    ),
)  # fmt: skip

MERGE_HEADS = Exercise(
    name="merge_heads",
    assignment=STEM,
    target=Target("merge_heads", ("merged",), merge_heads),
    positional=("heads",),
    situations=Situations(
        draw=drawn_by({"heads": "... H S D"}, leading=1),
        factors=FACTORS,
        axes={"heads": "... H S D"},
        groups=groups(
            "each position holds the features of head 0, then of head 1, ...", 0.75, (SIZES,),
            lengths=0.25, gradient=0.25, dtypes=0.25, calls=0.25,
        ),
        never=NEVER,
    ),
    recipes=(),
    checks=(),
    mistakes=slips(merge, MERGE_SLIPS, output="merged"),
    hints=(
        "It undoes split_heads: which two steps did that take, and in which order do they come back?",
        "Bring the positions in front of the heads again, (..., S, H, D_head); then make the last two axes one.",
        "`heads.transpose(-3, -2).flatten(-2)`. After a transpose `.view` refuses; `.flatten` and `.reshape` copy.",
    ),
)  # fmt: skip
