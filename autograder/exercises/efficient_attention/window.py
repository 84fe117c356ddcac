"""Exercise `sliding_window_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.conduct import half_the_pairs
from autograder.checks.tiling import tiled
from autograder.exercises.basic_attention.variants import attend
from autograder.exercises.efficient_attention.sequences import (
    COUNTS,
    DEEP,
    FORMULA,
    TRIPLE,
    behaviour,
    counts,
    deep,
    leading,
    triple,
)
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.shared_attention.variants import chosen
from autograder.oracle.tiles import sliding_window_attention

__all__ = ["SLIDING_WINDOW_ATTENTION"]

OUTPUTS = ("output",)
EDGES = "edges"
COST = "linear cost"


def _inputs(draw: Draw, *, window: int = 3, S: int = 0, low: int = 8, **options: Any) -> dict[str, Any]:
    """query, key and value of one length, and a window."""
    S = S or draw.integer(low, 14)
    return triple(draw, S_q=S, S_k=S, **options) | {"window": window}


def _long(draw: Draw) -> dict[str, Any]:
    """Some 700 positions and a window of 5: the table of all pairs is fifteen times as large as what is allowed."""
    return _inputs(draw, axes=0, window=5, S=draw.integer(650, 720), widths=4)


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


def _pairs(inputs: Mapping[str, Any]) -> int:
    return leading(inputs) * (inputs["query"].shape[-2] + inputs["window"]) * inputs["window"]


def _largest(inputs: Mapping[str, Any]) -> int:
    return 2 * _pairs(inputs) * max(inputs["query"].shape[-1], inputs["value"].shape[-1])


def _flops(inputs: Mapping[str, Any]) -> int:
    return 8 * _pairs(inputs) * (inputs["query"].shape[-1] + inputs["value"].shape[-1])


def _table(inputs: Mapping[str, Any]) -> int:
    return int(inputs["query"].shape[-2]) ** 2


Near = Callable[[Tensor, int], Tensor]
"""Distances query - key (S, S) and the window -> the pairs that see each other, (S, S) bool."""


def _variant(
    query: Tensor, key: Tensor, value: Tensor, window: int, *, near: Near | None = None, **knobs: Any
) -> Mapping[str, Tensor]:
    """Window attention with knobs; the rest are those of `attend`."""
    positions = torch.arange(query.shape[-2])
    distance = positions.unsqueeze(-1) - positions
    mask = (distance >= 0) & (distance < window) if near is None else near(distance, window)
    return {"output": attend(query, key, value, mask, **knobs)["output"]}


def _padded(query: Tensor, key: Tensor, value: Tensor, window: int) -> Mapping[str, Tensor]:
    """Every window is filled up with keys and values of zero before the start."""
    length = query.shape[-2]
    key, value = (torch.nn.functional.pad(x, (0, 0, window - 1, 0)) for x in (key, value))
    distance = torch.arange(length).unsqueeze(-1) + window - 1 - torch.arange(length + window - 1)
    return {"output": attend(query, key, value, (distance >= 0) & (distance < window))["output"]}


def _mistakes() -> tuple[Mistake, ...]:
    size = "The window is `window` positions, the query's own included. Is the far end right?"
    rows: tuple[tuple[str, str, Near], ...] = (
        ("window one too long", size, lambda d, w: (d >= 0) & (d <= w)),
        ("window one too short", size, lambda d, w: (d >= 0) & (d < max(w - 1, 1))),
        ("window hides the present", "May a position see itself? " + size, lambda d, w: (d > 0) & (d < w)),
        ("window moved back by one", "May a position see itself? " + size, lambda d, w: (d > 0) & (d <= w)),
        (
            "window is not causal",
            "Does the window reach into the future, too? It ends at the query's own position.",
            lambda d, w: d.abs() < w,
        ),
        (
            "window centred on the query",
            "Half of this window lies in the future. It ends at the query's own position.",
            lambda d, w: (d <= w // 2) & (d >= -(w // 2)),
        ),
        (
            "window turned round",
            "Are the next positions seen where the last ones are meant?",
            lambda d, w: (d <= 0) & (d > -w),
        ),
        ("window shows one key of the future", size, lambda d, w: (d >= -1) & (d < w)),
        (
            "no window",
            "Is the past cut off anywhere? Only the last `window` positions count.",
            lambda d, w: d >= 0,
        ),
        ("window ignored", "Every position is seen. Where does window come in?", lambda d, w: d == d),
        (
            "window aligned to blocks",
            "Each query has a window of its own, that ends with it. Are queries of a block confined to that block?",
            lambda d, w: (d >= 0) & _same_block(d, w),
        ),
        (
            "sees the whole block before its own",
            "Keys of the block before are needed, but for each query only those inside its window.",
            _two_blocks,
        ),
    )
    slips = chosen(
        "not scaled",
        "divided by D",
        "softmax over the queries",
        "mask applied after the softmax",
        "masked scores set to zero",
        "equal weights for all keys",
    )
    return (
        *(Mistake(name, question, partial(_variant, near=near)) for name, question, near in rows),
        # A first position that sees nothing may come out as zero or as nan.
        *(
            Mistake(name, question, partial(_variant, near=near, weigh=_or_nan))
            for name, question, near in rows
            if name in ("window hides the present", "window moved back by one")
        ),
        *(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in slips),
        Mistake(
            "keys before the start not masked",
            "The first positions have fewer keys behind them. A key of zero has score 0, not -inf: it takes weight.",
            _padded,
        ),
    )


def _or_nan(scores: Tensor, allowed: Tensor) -> Tensor:
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1)


def _same_block(distance: Tensor, window: int) -> Tensor:
    block = torch.arange(distance.shape[-1]) // window
    return block.unsqueeze(-1) == block


def _two_blocks(distance: Tensor, window: int) -> Tensor:
    block = torch.arange(distance.shape[-1]) // window
    return (distance >= 0) & (block.unsqueeze(-1) - block <= 1)


SLIDING_WINDOW_ATTENTION = Exercise(
    name="sliding_window_attention",
    assignment="efficient_attention",
    target=Target("sliding_window_attention", OUTPUTS, sliding_window_attention),
    positional=(*TRIPLE, "window"),
    recipes=(
        _recipe("unequal sizes"),
        _recipe("large scores", size=4.0),
        _recipe("a window of four", window=4, S=13, zero=True),
        _recipe("a window of one", window=1),
        _recipe("a window longer than the sequence", window=50),
        _recipe("a window as long as the sequence", window=9, S=9),
        _recipe("one position", S=1),
        _recipe("two leading axes", axes=2),
        _recipe("huge scores", size=1e3),
        Recipe(DEEP, lambda draw: deep(draw, _inputs(draw))),
        _recipe("small, float64", axes=0, dtype=torch.float64),
        _recipe("float64", dtype=torch.float64),
        _recipe("bfloat16", dtype=torch.bfloat16),
        _recipe("float16", dtype=torch.float16),
        _recipe("no window", window=0),
        Recipe("a long sequence", _long),
        _recipe("a window of thirty", window=30, S=70),
        _recipe("a negative window", window=-2),
    ),
    checks=(
        counts(OUTPUTS),
        Check(
            FORMULA,
            "attention to the last `window` positions",
            2.0,
            ("unequal sizes", "a window of four", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            EDGES,
            "a window of one position, of thirty, of as many as there are, and of more; a single position",
            0.75,
            (
                "a window of one",
                "a window longer than the sequence",
                "a window as long as the sequence",
                "one position",
                "a window of thirty",
            ),
            agrees("output"),
            FORMULA,
        ),
        Check(
            "no window",
            "is refused with a ValueError",
            0.25,
            ("no window", "a negative window"),
            raises_value_error("window is not checked"),
            FORMULA,
        ),
        Check(
            COST,
            "memory and work grow with S * window, not with S * S",
            3.5,
            ("a long sequence",),
            tiled(_largest, _flops, _table, OUTPUTS, half_the_pairs),
            (FORMULA, EDGES),
        ),
        *behaviour((FORMULA, COST), OUTPUTS),
    ),
    mistakes=_mistakes(),
    hints=(
        "Which keys can a block of consecutive queries need at all? They lie side by side, too.",
        (
            "Queries start to stop - 1 need keys start - window + 1 to stop - 1. Take blocks of `window` queries: each "
            "meets at most 2 window - 1 keys. Inside, mask by the distance of the two positions."
        ),
        (
            "`for start in range(0, S, window)`: `first = max(0, start - window + 1)`, scores of query[start:stop] and "
            "key[first:stop]; distance = rows[:, None] - columns with their positions in the whole sequence; -inf where "
            "distance < 0 or distance >= window; softmax, times value[first:stop]; join the blocks with torch.cat."
        ),
    ),
)
