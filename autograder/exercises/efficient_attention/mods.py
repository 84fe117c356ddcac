"""Exercises `sliding_window_mask` and `alibi_score`: a mask_mod and a score_mod for FlexAttention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.gradients import differentiable
from autograder.checks.index_grids import as_given, has_dtype, on_grids, traceable
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.tiles import SCORE_HEADS, WINDOW, alibi_score, alibi_slopes, sliding_window_mask

__all__ = ["ALIBI_SCORE", "SLIDING_WINDOW_MASK"]

PAIRS = "every pair"
INDICES = ("batch", "head", "query_index", "key_index")


def _grid(draw: Draw, *, dtype: torch.dtype = torch.int64, near: bool = False) -> dict[str, Any]:
    """All pairs of some 40 positions. near: far along two long sequences."""
    start = draw.integer(1000, 2000) if near else 0
    S_q, S_k = draw.sizes(2, low=36, high=46)
    return {
        "batch": torch.tensor(draw.integer(0, 2), dtype=dtype),
        "head": torch.tensor(draw.integer(0, SCORE_HEADS - 1), dtype=dtype),
        "query_index": (start + torch.arange(S_q, dtype=dtype)).unsqueeze(-1),
        "key_index": start + torch.arange(S_k, dtype=dtype),
    }


def _one_pair(draw: Draw, *, distance: int) -> dict[str, Any]:
    """Four tensors of one element."""
    key = draw.integer(30, 60)
    values = (draw.integer(0, 2), draw.integer(0, SCORE_HEADS - 1), key + distance, key)
    return {name: torch.tensor([value]) for name, value in zip(INDICES, values, strict=True)}


def _scored(draw: Draw, inputs: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """With a score for each pair and, on a grid, all heads."""
    if inputs["query_index"].dim() > 1:
        inputs["head"] = torch.arange(SCORE_HEADS, dtype=inputs["head"].dtype).view(-1, 1, 1)
    shape = torch.broadcast_shapes(*(inputs[name].shape for name in INDICES))
    return {"score": draw.normal(*shape, dtype=dtype), **inputs}


Near = Callable[[Tensor], Tensor]


def _mask_variant(
    batch: Tensor, head: Tensor, query_index: Tensor, key_index: Tensor, *, near: Near
) -> Mapping[str, Tensor]:
    return {"allowed": near(query_index - key_index).double()}


MASK_SLIPS: tuple[tuple[str, str, Near], ...] = (
    (
        "window one too long",
        f"{WINDOW} positions, the query's own included.",
        lambda d: (d >= 0) & (d <= WINDOW),
    ),
    (
        "window one too short",
        f"{WINDOW} positions, the query's own included.",
        lambda d: (d >= 0) & (d < WINDOW - 1),
    ),
    ("window is not causal", "The window ends at the query's own position.", lambda d: d.abs() < WINDOW),
    ("no window", "Is the past cut off anywhere?", lambda d: d >= 0),
    ("the future is not hidden", "Is the future cut off anywhere?", lambda d: d < WINDOW),
    ("window hides the present", "May a position see itself?", lambda d: (d > 0) & (d < WINDOW)),
    ("window turned round", "Which of the two indices is subtracted?", lambda d: (d <= 0) & (d > -WINDOW)),
    ("mask turned round", "True means allowed.", lambda d: (d < 0) | (d >= WINDOW)),
    (
        "either condition is enough",
        "Not in the future, and not too far back: & or |?",
        lambda d: (d >= 0) | (d < WINDOW),
    ),
    ("nothing is allowed", "Which pairs may see each other?", lambda d: d != d),
)

SLIDING_WINDOW_MASK = Exercise(
    name="sliding_window_mask",
    assignment="efficient_attention",
    target=Target("sliding_window_mask", ("allowed",), sliding_window_mask),
    positional=INDICES,
    recipes=(
        Recipe("all pairs", _grid),
        Recipe("all pairs, far along", partial(_grid, near=True, dtype=torch.int32)),
        Recipe("one pair, allowed", partial(_one_pair, distance=WINDOW - 1)),
        Recipe("one pair, in the future", partial(_one_pair, distance=-1)),
    ),
    checks=(
        Check(
            PAIRS,
            f"the last {WINDOW} positions, and no other",
            1.0,
            ("all pairs", "all pairs, far along"),
            on_grids("allowed", "differs from the window"),
        ),
        Check("dtype", "the mask is bool", 0.25, ("all pairs",), has_dtype("allowed", torch.bool), PAIRS),
        Check(
            "tensor operations",
            "one pair will do, and nothing looks at its values",
            0.75,
            ("one pair, allowed", "one pair, in the future"),
            traceable("allowed", "differs from the window for a single pair"),
            PAIRS,
        ),
    ),
    mistakes=tuple(
        Mistake(name, question, partial(_mask_variant, near=near)) for name, question, near in MASK_SLIPS
    ),
    hints=(
        "How far behind the query does the key stand? Which distances are allowed?",
        "Two comparisons of `query_index - key_index` with numbers, joined by & (each in parentheses).",
        f"`distance = query_index - key_index`; `return (distance >= 0) & (distance < {WINDOW})`.",
    ),
)


def _score_variant(
    score: Tensor,
    batch: Tensor,
    head: Tensor,
    query_index: Tensor,
    key_index: Tensor,
    *,
    slope: Callable[[Tensor], Tensor] = lambda head: alibi_slopes(SCORE_HEADS)[head.long()],
    made: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda score, slope, d: score + slope * d,
) -> Mapping[str, Tensor]:
    """alibi_score with another slope, or another use of score, slope and key_index - query_index."""
    result = made(score, slope(head), (key_index - query_index).double())
    return {"score": result.broadcast_to(score.shape)}


def _mistake(name: str, question: str, **knobs: Any) -> Mistake:
    return Mistake(name, question, partial(_score_variant, **knobs))


SCORE_MISTAKES = (
    _mistake(
        "slopes begin at one",
        "slope[head] is 2 ** -(head + 1): head 0 has one half.",
        slope=lambda h: 2.0 ** -h.double(),
    ),
    _mistake(
        "the same slope for every head",
        "Does head enter?",
        slope=lambda h: torch.full_like(h, 0.5, dtype=torch.float64),
    ),
    _mistake(
        "slopes in the reverse order",
        "Head 0 has the steepest slope.",
        slope=lambda h: 2.0 ** (h.double() - 8),
    ),
    _mistake("no slope", "Does head enter?", slope=lambda h: torch.ones_like(h, dtype=torch.float64)),
    _mistake("slopes grow", "Is the exponent negative?", slope=lambda h: 2.0 ** (h.double() + 1)),
    _mistake(
        "sign turned round",
        "Far keys should lose. key_index - query_index, or the reverse?",
        made=lambda s, m, d: s - m * d,
    ),
    _mistake(
        "score left out",
        "The bias is added to the score. Is the score returned, too?",
        made=lambda s, m, d: m * d,
    ),
    _mistake(
        "score multiplied by the bias",
        "The bias is added. Is it * where + is meant?",
        made=lambda s, m, d: s * m * d,
    ),
    _mistake("score not changed", "What does ALiBi add?", made=lambda s, m, d: s),
    _mistake(
        "distance without its sign",
        "The future follows the same formula: slope * (key_index - query_index).",
        made=lambda s, m, d: s - m * d.abs(),
    ),
    _mistake(
        "future hidden by the bias",
        "Hiding the future is the mask's task, not the score's.",
        made=lambda s, m, d: (s + m * d).masked_fill(d > 0, -torch.inf),
    ),
    _mistake(
        "future hidden by the bias",
        "Hiding the future is the mask's task, not the score's.",
        made=lambda s, m, d: (s + m * d).masked_fill(d > 0, torch.finfo(torch.float32).min),
    ),
    _mistake(
        "no bias in the future",
        "The future follows the same formula.",
        made=lambda s, m, d: s + m * d.clamp_max(0),
    ),
)

ALIBI_SCORE = Exercise(
    name="alibi_score",
    assignment="efficient_attention",
    target=Target("alibi_score", ("score",), alibi_score),
    positional=("score", *INDICES),
    recipes=(
        Recipe("all pairs and heads", lambda draw: _scored(draw, _grid(draw))),
        Recipe(
            "all pairs, far along",
            lambda draw: _scored(draw, _grid(draw, near=True, dtype=torch.int32)),
        ),
        Recipe("one pair", lambda draw: _scored(draw, _one_pair(draw, distance=draw.integer(2, 9)))),
        Recipe(
            "all pairs, float64",
            lambda draw: _scored(draw, _grid(draw), torch.float64),
        ),
    ),
    checks=(
        Check(
            PAIRS,
            "score + slope[head] (key_index - query_index)",
            1.0,
            ("all pairs and heads", "all pairs, far along"),
            on_grids("score", "differs from the formula"),
        ),
        Check(
            "dtype",
            "the result is float32 or float64, as the score is",
            0.25,
            ("all pairs and heads", "all pairs, float64"),
            as_given("score"),
            PAIRS,
        ),
        Check(
            "tensor operations",
            "one pair will do, and nothing looks at its values",
            0.75,
            ("one pair",),
            traceable("score", "differs from the formula for a single pair"),
            PAIRS,
        ),
        Check(
            "gradient",
            "backward() reaches the score",
            0.25,
            ("all pairs, float64",),
            differentiable(("score",)),
            PAIRS,
        ),
    ),
    mistakes=SCORE_MISTAKES,
    hints=(
        "What is added depends on the head and on the distance, and on nothing else.",
        "The slope of head h among 8 is 2 ** -(h + 1); torch.exp2 takes a tensor.",
        "`return score + torch.exp2(-(head + 1.0)) * (key_index - query_index)`.",
    ),
)
