"""Exercises `sliding_window_mask` and `alibi_score`: a mask_mod and a score_mod for FlexAttention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.index_grids import has_dtype, on_grids, traceable
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.tiles import SCORE_HEADS, WINDOW, alibi_score, alibi_slopes, sliding_window_mask
from autograder.situations import FULL_DTYPES, Factor, Group, Situations, groups

__all__ = ["ALIBI_SCORE", "SLIDING_WINDOW_MASK"]

FORMULA = "agrees with the formula"
INDICES = ("batch", "head", "query_index", "key_index")
FAR = 2**16


def draw(
    draw: Draw,
    *,
    start: tuple[int, int] = (0, 0),
    back: int = 0,
    index: torch.dtype = torch.int64,
    shape: str = "grid",
    scored: bool = False,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Positions of queries and keys: all pairs of some 20, or other shapes; with scores for all heads if `scored`.

    start: where the keys begin, from a range. back: the queries stand so far behind them. index: dtype of the indices.
    """
    first = draw.integer(*start)
    S_q, S_k = draw.sizes(2, low=18, high=26)
    key = first + torch.arange(S_k, dtype=index)
    query = first + back + torch.arange(S_q, dtype=index).unsqueeze(-1)
    batch, head = (torch.tensor(draw.integer(0, most), dtype=index) for most in (2, SCORE_HEADS - 1))
    if (
        shape == "pairs"
    ):  # one after the other: the same place, just in the window, just outside, in the future
        key = first + torch.arange(8, dtype=index)
        query = back + key + torch.tensor([0, WINDOW - 1, WINDOW, -1, 1, 7, WINDOW + 9, -7], dtype=index)
    elif shape == "one pair":
        query, key = query[draw.integer(0, S_q - 1)], key[[draw.integer(0, S_k - 1)]]
    elif shape == "no axes":
        query, key = query[draw.integer(0, S_q - 1), 0], key[draw.integer(0, S_k - 1)]
    elif shape == "own axes":
        batch, head = (
            torch.arange(3, dtype=index).view(-1, 1, 1, 1),
            torch.arange(SCORE_HEADS, dtype=index).view(-1, 1, 1),
        )
    elif scored:
        head = torch.arange(SCORE_HEADS, dtype=index).view(-1, 1, 1)
    inputs = dict(zip(INDICES, (batch, head, query, key), strict=True))
    if not scored:
        return inputs
    return {
        "score": draw.normal(*torch.broadcast_shapes(*(t.shape for t in inputs.values())), dtype=dtype),
        **inputs,
    }


POSITIONS: Factor = {
    "the first positions": {},
    "many thousand positions along": {"start": (5000, 60000)},
    "keys tens of thousands back": {"start": (0, 900), "back": FAR},
    "keys far in the future": {"start": (FAR + 50, 2 * FAR), "back": -FAR},
}
INTEGERS: Factor = {"int64 indices": {}, "int32 indices": {"index": torch.int32}}
SHAPES: Factor = {
    "all pairs": {},
    "pair by pair": {"shape": "pairs"},
    "one pair": {"shape": "one pair"},
    "no axes": {"shape": "no axes"},
    "axes for batch and head": {"shape": "own axes"},
}
FACTORS = {"positions": POSITIONS, "indices": INTEGERS, "shapes": SHAPES}
NEVER = ({"shapes": ("one pair", "no axes"), "positions": tuple(POSITIONS)[1:]},)
"""A single pair shows little."""
ORDER = Group(
    "positions",
    "the same for positions anywhere, in tensors of any shape",
    0.5,
    ("positions", "indices", "shapes"),
)

DTYPE = Group("dtype", "the score's dtype is kept, and its precision", 0.25, ("dtype",))


def one_pair(draw: Draw, *, distance: int) -> dict[str, Any]:
    """Four tensors of one element."""
    key = draw.integer(30, 60)
    values = (draw.integer(0, 2), draw.integer(0, SCORE_HEADS - 1), key + distance, key)
    return {name: torch.tensor([value]) for name, value in zip(INDICES, values, strict=True)}


def near(
    batch: Tensor, head: Tensor, query_index: Tensor, key_index: Tensor, *, near: Callable[[Tensor], Tensor]
) -> Tensor:
    """The mask with another idea of which distances are near."""
    return near(query_index - key_index).double()


SIZE = f"{WINDOW} positions, the query's own included."

MASK_SLIPS: Slips = {
    SIZE: {
        "window one too long": {"near": lambda d: (d >= 0) & (d <= WINDOW)},
        "window one too short": {"near": lambda d: (d >= 0) & (d < WINDOW - 1)},
    },
    "The window ends at the query's own position.": {"window is not causal": {"near": lambda d: d.abs() < WINDOW}},
    "Is the past cut off anywhere?": {"no window": {"near": lambda d: d >= 0}},
    "Is the future cut off anywhere?": {"the future is not hidden": {"near": lambda d: d < WINDOW}},
    "May a position see itself?": {"window hides the present": {"near": lambda d: (d > 0) & (d < WINDOW)}},
    "Which of the two indices is subtracted?": {"window turned round": {"near": lambda d: (d <= 0) & (d > -WINDOW)}},
    "True means allowed.": {"mask turned round": {"near": lambda d: (d < 0) | (d >= WINDOW)}},
    "Not in the future, and not too far back: & or |?": {
        "either condition is enough": {"near": lambda d: (d >= 0) | (d < WINDOW)},
    },
    "Which pairs may see each other?": {"nothing is allowed": {"near": lambda d: d != d}},
}  # fmt: skip

NO_FLOATS = "its tensors are whole numbers: nothing to differentiate"

SLIDING_WINDOW_MASK = Exercise(
    name="sliding_window_mask",
    assignment="efficient_attention",
    target=Target("sliding_window_mask", ("allowed",), sliding_window_mask),
    positional=INDICES,
    situations=Situations(
        draw=draw,
        factors=FACTORS,
        never=NEVER,
        groups=groups(f"the last {WINDOW} positions, and no other", 0.5, more=(ORDER,), calls=0.25),
        left_out=dict.fromkeys(
            (f"gradient: {one}" for one in ("a gradient asked", "a gradient of one input", "activation checkpointing")),
            NO_FLOATS,
        ),
    ),
    recipes=(
        Recipe("one pair, allowed", partial(one_pair, distance=WINDOW - 1)),
        Recipe("one pair, in the future", partial(one_pair, distance=-1)),
    ),
    checks=(
        Check("dtype", "the mask is bool", 0.25, ("one pair, allowed",), has_dtype("allowed", torch.bool), FORMULA),
        Check(
            "tensor operations", "one pair will do, and nothing looks at its values", 0.5,
            ("one pair, allowed", "one pair, in the future"),
            traceable("allowed", "differs from the window for a single pair"), FORMULA,
        ),
    ),
    diagnoses={"": (on_grids("allowed", "differs from the window"),)},
    mistakes=slips(near, MASK_SLIPS, output="allowed"),
    hints=(
        "How far behind the query does the key stand? Which distances are allowed?",
        "Two comparisons of `query_index - key_index` with numbers, joined by & (each in parentheses).",
        f"`distance = query_index - key_index`; `return (distance >= 0) & (distance < {WINDOW})`.",
    ),
)  # fmt: skip


def scored(
    score: Tensor,
    batch: Tensor,
    head: Tensor,
    query_index: Tensor,
    key_index: Tensor,
    *,
    slope: Callable[[Tensor], Tensor] = lambda head: alibi_slopes(SCORE_HEADS)[head.long()],
    made: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda score, slope, d: score + slope * d,
) -> Tensor:
    """alibi_score with another slope, or another use of score, slope and key_index - query_index."""
    return made(score, slope(head), (key_index - query_index).double()).broadcast_to(score.shape)


SLOPE_SLIPS: Slips = {
    "slope[head] is 2 ** -(head + 1): head 0 has one half.": {
        "slopes begin at one": {"slope": lambda h: 2.0 ** -h.double()},
    },
    "Does head enter?": {
        "the same slope for every head": {"slope": lambda h: torch.full_like(h, 0.5, dtype=torch.float64)},
        "no slope": {"slope": lambda h: torch.ones_like(h, dtype=torch.float64)},
    },
    "Head 0 has the steepest slope.": {"slopes in the reverse order": {"slope": lambda h: 2.0 ** (h.double() - 8)}},
    "Is the exponent negative?": {"slopes grow": {"slope": lambda h: 2.0 ** (h.double() + 1)}},
}  # fmt: skip

USE_SLIPS: Slips = {
    "Far keys should lose. key_index - query_index, or the reverse?": {"sign turned round": {"made": lambda s, m, d: s - m * d}},
    "The bias is added to the score. Is the score returned, too?": {"score left out": {"made": lambda s, m, d: m * d}},
    "The bias is added. Is it * where + is meant?": {"score multiplied by the bias": {"made": lambda s, m, d: s * m * d}},
    "What does ALiBi add?": {"score not changed": {"made": lambda s, m, d: s}},
    "The future follows the same formula: slope * (key_index - query_index).": {
        "distance without its sign": {"made": lambda s, m, d: s - m * d.abs()},
    },
    "Hiding the future is the mask's task, not the score's.": {
        "future hidden by the bias": [
            {"made": lambda s, m, d: (s + m * d).masked_fill(d > 0, -torch.inf)},
            {"made": lambda s, m, d: (s + m * d).masked_fill(d > 0, torch.finfo(torch.float32).min)},
        ],
    },
    "The future follows the same formula.": {"no bias in the future": {"made": lambda s, m, d: s + m * d.clamp_max(0)}},
}  # fmt: skip

ALIBI_SCORE = Exercise(
    name="alibi_score",
    assignment="efficient_attention",
    target=Target("alibi_score", ("score",), alibi_score),
    positional=("score", *INDICES),
    situations=Situations(
        draw=partial(draw, scored=True),
        factors={**FACTORS, "dtype": FULL_DTYPES},
        never=NEVER,
        groups=groups(
            "score + slope[head] (key_index - query_index)", 0.75, more=(ORDER, DTYPE), gradient=0.25, calls=0.25
        ),
        left_out={"default dtype": "the sum of a whole number and 1.0 has it, in every plain writing"},
    ),
    recipes=(Recipe("one pair", lambda one: {"score": one.normal(1), **one_pair(one, distance=one.integer(2, 9))}),),
    checks=(
        Check(
            "tensor operations", "one pair will do, and nothing looks at its values", 0.25, ("one pair",),
            traceable("score", "differs from the formula for a single pair"), FORMULA,
        ),
    ),
    diagnoses={"": (on_grids("score", "differs from the formula"),)},
    mistakes=slips(scored, SLOPE_SLIPS, USE_SLIPS, output="score"),
    hints=(
        "What is added depends on the head and on the distance, and on nothing else.",
        "The slope of head h among 8 is 2 ** -(h + 1); torch.exp2 takes a tensor.",
        "`return score + torch.exp2(-(head + 1.0)) * (key_index - query_index)`.",
    ),
)  # fmt: skip
