"""Exercise `sliding_window_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import raises_value_error
from autograder.checks.conduct import half_the_pairs
from autograder.checks.structure import agrees_with_slices
from autograder.checks.tiling import far_from_zero, tiled
from autograder.exercises.efficient_attention.pieces import (
    NEVER,
    PIECE_AXES,
    TRIPLE,
    growing_values,
    kinds_of_scores,
    leading,
    own_work,
)
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import attend, only
from autograder.oracle.tiles import sliding_window_attention
from autograder.situations import DTYPES, HUNDREDS, Factor, Group, Situations, drawn_by, groups, without

__all__ = ["SLIDING_WINDOW_ATTENTION"]

OUTPUTS = ("output",)
FORMULA = "agrees with the formula"
SHAPES = {"query": "... S D", "key": "... S D", "value": "... S D_v"}
draw = drawn_by(SHAPES, values={"window": "w"}, leading=1)


def _zero_key(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """A key and its value are zero: that hides neither."""
    made = {name: inputs[name].clone() for name in ("key", "value")}
    for tensor in made.values():
        tensor[..., tensor.shape[-2] // 2, :] = 0.0
    return {**inputs, **made}


WINDOWS: Factor = {
    "a window of some positions": {"w": [3, 4]},
    "a window of one position": {"w": 1},
    "a window as long as the sequence": {"w": "S"},
    "a window longer than the sequence": {"w": 50},
    "windows that fill the sequence": {"w": [3, 4], "S": 12},
    "a window of thirty positions": {"w": (27, 33), "S": (66, 76)},
}
LENGTHS: Factor = {
    "several positions": {"S": [10, 11, 13]},
    "two positions": {"S": 2},
    "as many positions as features": {"S": [7, 8], **dict.fromkeys(("D", "D_v"), "S")},
    "wide vectors": {"S": [7, 8], "D": [131, 137], "D_v": [137, 139]},
    "one position": {"S": 1},
    "hundreds of positions": {"S": HUNDREDS},
    "over 256 positions in bfloat16": (
        {"S": [269, 271, 277], "w": 31, "D": 2, "axes": 0, "dtype": torch.bfloat16}, growing_values,
    ),
    "over 2,048 positions in float16": {"S": [2081, 2083], "w": 67, "D": 2, "D_v": 3, "axes": 0, "dtype": torch.float16},
}  # fmt: skip
"""Whole numbers beyond 256 or 2,048 are no numbers of these dtypes: positions must not be held in them."""
LONG = tuple(name for name in LENGTHS if name.startswith("over "))
SCORES = {**without(kinds_of_scores(), "huge numbers behind the mask"), "a key of zeros": _zero_key}


def _long(draw_: Draw) -> dict[str, Any]:
    """Some 400 positions and a window of 5: the table of all pairs is nine times as large as what is allowed."""
    return draw(draw_, axes=0, S=(400, 430), w=5, D=3, D_v=4)


def _batch(draw_: Draw) -> dict[str, Any]:
    """Some 200 positions and a window of 3, with two leading axes."""
    return draw(draw_, axes=2, S=(190, 199), w=3, D=3, D_v=4)


def _pairs(inputs: Mapping[str, Any]) -> int:
    return leading(inputs) * (inputs["query"].shape[-2] + inputs["window"]) * inputs["window"]


def _largest(inputs: Mapping[str, Any]) -> int:
    return 2 * _pairs(inputs) * max(inputs["query"].shape[-1], inputs["value"].shape[-1])


def _flops(inputs: Mapping[str, Any]) -> int:
    return 8 * _pairs(inputs) * (inputs["query"].shape[-1] + inputs["value"].shape[-1])


def _table(inputs: Mapping[str, Any]) -> int:
    return leading(inputs) * int(inputs["query"].shape[-2]) ** 2


Near = Callable[[Tensor, int], Tensor]
"""Distances query - key (S, S) and the window -> the pairs that see each other, (S, S) bool."""


def windowed(
    query: Tensor, key: Tensor, value: Tensor, window: int, *, near: Near | None = None, **steps: Any
) -> Tensor:
    """Window attention in steps; the rest are those of `attend`."""
    positions = torch.arange(query.shape[-2])
    distance = positions.unsqueeze(-1) - positions
    mask = (distance >= 0) & (distance < window) if near is None else near(distance, window)
    return attend(query, key, value, mask, **steps)["output"]


def _padded(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """Every window is filled up with keys and values of zero before the start."""
    length = query.shape[-2]
    key, value = (torch.nn.functional.pad(x, (0, 0, window - 1, 0)) for x in (key, value))
    distance = torch.arange(length).unsqueeze(-1) + window - 1 - torch.arange(length + window - 1)
    return attend(query, key, value, (distance >= 0) & (distance < window))["output"]


def _or_nan(near: Near) -> list[Any]:
    """A first position that sees nothing may come out as zero or as nan."""
    return [{"near": near}, {"near": near, "weigh": lambda s, a: s.masked_fill(~a, -torch.inf).softmax(-1)}]


def _block(distance: Tensor, window: int) -> Tensor:
    """The block of `window` positions in which each stands."""
    return torch.arange(distance.shape[-1]) // window


SIZE = "The window is `window` positions, the query's own included. Is the far end right?"

WINDOW_SLIPS: Slips = {
    SIZE: {
        "window one too long": {"near": lambda d, w: (d >= 0) & (d <= w)},
        "window one too short": {"near": lambda d, w: (d >= 0) & (d < max(w - 1, 1))},
        "window shows one key of the future": {"near": lambda d, w: (d >= -1) & (d < w)},
    },
    f"May a position see itself? {SIZE}": {
        "window hides the present": _or_nan(lambda d, w: (d > 0) & (d < w)),
        "window moved back by one": _or_nan(lambda d, w: (d > 0) & (d <= w)),
    },
    "Does the window reach into the future, too? It ends at the query's own position.": {
        "window is not causal": {"near": lambda d, w: d.abs() < w},
    },
    "Half of this window lies in the future. It ends at the query's own position.": {
        "window centred on the query": {"near": lambda d, w: (d <= w // 2) & (d >= -(w // 2))},
    },
    "Are the next positions seen where the last ones are meant?": {
        "window turned round": {"near": lambda d, w: (d <= 0) & (d > -w)},
    },
    "Is the past cut off anywhere? Only the last `window` positions count.": {"no window": {"near": lambda d, w: d >= 0}},
    "Every position is seen. Where does window come in?": {"window ignored": {"near": lambda d, w: d == d}},
    "Each query has a window of its own, that ends with it. Are queries of a block confined to that block?": {
        "window aligned to blocks":
            {"near": lambda d, w: (d >= 0) & (_block(d, w).unsqueeze(-1) == _block(d, w))},
    },
    "Keys of the block before are needed, but for each query only those inside its window.": {
        "sees the whole block before its own":
            {"near": lambda d, w: (d >= 0) & (_block(d, w).unsqueeze(-1) - _block(d, w) <= 1)},
    },
    "The first positions have fewer keys behind them. A key of zero has score 0, not -inf: it takes weight.": {
        "keys before the start not masked": _padded,
    },
}  # fmt: skip

SLIDING_WINDOW_ATTENTION = Exercise(
    name="sliding_window_attention",
    assignment="efficient_attention",
    target=Target("sliding_window_attention", OUTPUTS, sliding_window_attention),
    positional=(*TRIPLE, "window"),
    situations=Situations(
        draw=draw,
        factors={"dtype": DTYPES, "lengths": LENGTHS, "window": WINDOWS, "scores": SCORES, "axes": PIECE_AXES},
        axes=SHAPES,
        groups=groups(
            "attention to the last `window` positions", 1.75,
            more=(Group("windows", "of one position, of as many as there are, and of more", 0.75, ("window",)),),
            scores=0.5, lengths=0.25, gradient=0.5, dtypes=0.25, calls=0.5,
        ),
        never=(
            *NEVER,
            {"lengths": LONG, "window": tuple(WINDOWS)[1:]},
            {"lengths": tuple(LENGTHS)[1:], "window": tuple(WINDOWS)[-2:]},
            {"lengths": "wide vectors", "axes": "three leading axes"},
            {"window": "a window of thirty positions", "axes": "three leading axes"},
        ),
    ),
    recipes=(
        Recipe("a window of none", lambda one: {**draw(one), "window": 0}),
        Recipe("a window of less than none", lambda one: {**draw(one), "window": -2}),
        Recipe("plain", partial(draw, w=3)),
        Recipe("a long sequence", _long),
        Recipe("a batch", _batch),
    ),
    checks=(
        Check("no window", "is refused with a ValueError", 0.25, ("a window of none", "a window of less than none"),
              raises_value_error("window is not checked"), FORMULA),
        Check("linear cost", "memory and work grow with S * window, not with S * S", 4.25, ("a long sequence", "a batch"),
              tiled(_largest, _flops, _table, OUTPUTS, half_the_pairs), (FORMULA, "windows")),
        own_work("plain", FORMULA),
    ),
    diagnoses={"": (
        far_from_zero("query", lambda inputs: True),
        agrees_with_slices(dict.fromkeys(TRIPLE, 2), OUTPUTS),
    )},
    mistakes=(
        *slips(windowed, WINDOW_SLIPS, output="output"),
        *slips(windowed, *only("not scaled", "divided by D", "softmax over the queries", "mask applied after the softmax",
                               "masked scores set to zero", "equal weights for all keys"), output="output"),
    ),
    hints=(
        "Which keys can a block of consecutive queries need at all? They lie side by side, too.",
        "Queries start to stop - 1 need keys start - window + 1 to stop - 1. Take blocks of `window` queries: each "
        "meets at most 2 window - 1 keys. Inside, mask by the distance of the two positions.",
        "`for start in range(0, S, window)`: `first = max(0, start - window + 1)`, scores of query[start:stop] and "
        "key[first:stop]; distance = rows[:, None] - columns with their positions in the whole sequence; -inf where "
        "distance < 0 or distance >= window; softmax, times value[first:stop]; join the blocks with torch.cat.",
    ),
)  # fmt: skip
