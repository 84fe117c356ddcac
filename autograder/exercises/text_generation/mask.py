"""Exercise `causal_mask`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.agreement import raises_value_error
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.generation import aligned, whole
from autograder.oracle.quantity import Quantity, Rounder, exact
from autograder.situations import Group, Situations, groups

__all__ = ["CAUSAL_MASK"]

Size = int | tuple[int, int] | str


def _sizes(draw: Draw, *, S_q: Size = (2, 4), S_k: Size = (6, 12)) -> dict[str, Any]:
    """Numbers, ranges of them, or for S_k "S_q" for as many."""
    queries = S_q if isinstance(S_q, int) else draw.integer(*map(int, S_q))
    keys = queries if S_k == "S_q" else S_k if isinstance(S_k, int) else draw.integer(*map(int, S_k))
    return {"S_q": queries, "S_k": keys}


def _formula(S_q: int, S_k: int, round: Rounder = exact) -> dict[str, Quantity]:
    return {"mask": whole(aligned(S_q, S_k))}


def _right(trial: Trial, results: Mapping[str, Tensor]) -> None:
    """The mask is bool, and allows what it must."""
    mask = trial.shaped(results["mask"])["mask"]
    expected = trial.expect()["mask"].value.bool()
    wrong = mask.bool() != expected
    if bool(wrong.any()):
        i, j = divmod(int(wrong.int().argmax()), expected.shape[1])
        place = trial.inputs["S_k"] - trial.inputs["S_q"] + i
        must = "be allowed" if expected[i, j] else "be hidden"
        raise Failure(
            f"mask[{i}, {j}] is {bool(mask[i, j])}; query {i} stands at position {place}, so key {j} must {must}."
        )
    if mask.dtype != torch.bool:
        raise Failure(
            f"the mask is {str(mask.dtype).removeprefix('torch.')}; it must be bool, True where attention is allowed.",
            mistake="mask is not bool",
        )


def _made(make: Callable[[int, int], Tensor]) -> Callable[[int, int], Tensor]:
    return lambda S_q, S_k: make(S_q, S_k).double()


def _ones(S_q: int, S_k: int) -> Tensor:
    return torch.ones(S_q, S_k)


ALIGNED = "The queries are the last S_q of S_k positions. Is the diagonal moved by S_k - S_q?"

MASKS: Slips = {
    ALIGNED: {
        "aligned at the top left": _made(lambda q, k: _ones(q, k).tril()),
        "moved the wrong way": _made(lambda q, k: _ones(q, k).tril(q - k)),
    },
    "Position p sees the keys 0..p. Is its own key among them?": {
        "a query cannot see itself": _made(lambda q, k: _ones(q, k).tril(k - q - 1)),
    },
    "Which is the last key that position p may see?": {
        "a query sees one key too many": _made(lambda q, k: _ones(q, k).tril(k - q + 1)),
    },
    "A bool mask here is True where attention is ALLOWED.": {
        "True where attention is forbidden": _made(lambda q, k: 1 - _ones(q, k).tril(k - q)),
    },
    "Which keys lie in a query's future?": {"nothing is hidden": _made(_ones)},
    "Keys before the query are allowed: tril or triu?": {
        "upper triangle": [_made(lambda q, k: _ones(q, k).triu(k - q)), _made(lambda q, k: _ones(q, k).triu()),
                           _made(lambda q, k: _ones(q, k).tril(k - q).mT)],
    },
    "Its shape is (S_q, S_k).": {"mask is square": _made(lambda q, k: _ones(k, k).tril())},
}  # fmt: skip

CAUSAL_MASK = Exercise(
    name="causal_mask",
    assignment="text_generation",
    target=Target("causal_mask", ("mask",), _formula),
    positional=("S_q", "S_k"),
    situations=Situations(
        draw=_sizes,
        factors={
            "sizes": {
                "fewer queries than keys": {},
                "as many queries as keys": {"S_q": (3, 9), "S_k": "S_q"},
                "one query": {"S_q": 1},
                "one query, one key": {"S_q": 1, "S_k": 1},
                "many queries, a few keys more": {"S_q": (9, 11), "S_k": (12, 13)},
                "no query": {"S_q": 0},
                "over two thousand keys": {"S_q": (8, 12), "S_k": (2060, 2090)},
                "over a thousand queries": {"S_q": (1031, 1039), "S_k": (1040, 1050)},
            },
        },
        groups=groups(
            "query i, at position S_k - S_q + i, sees the keys up to its own", 0.75,
            (Group("sizes", "right for any numbers of queries and keys", 0.5, ("sizes",)),), calls=0.5,
        ),
        left_out={
            "layout": "no tensor goes in",
            "device": "no tensor goes in that could say where the mask belongs",
            "gradient: a gradient asked": "a mask has none",
            "gradient: a gradient of one input": "a mask has none",
            "gradient: activation checkpointing": "a mask has no gradient",
        },
        right=_right,
    ),
    recipes=(Recipe("more queries than keys", lambda draw: _sizes(draw, S_q=(6, 9), S_k=(3, 5))),),
    checks=(
        Check("refuses", "more queries than keys raise ValueError", 0.25, ("more queries than keys",), raises_value_error(),
              "agrees with the formula"),
    ),
    mistakes=slips(aligned, MASKS, output="mask"),
    hints=(
        "Write down the positions of the queries if three of them are the last of five keys.",
        "Query i stands at position S_k - S_q + i. Which keys j may it see?",
        "`torch.ones(S_q, S_k, dtype=torch.bool).tril(diagonal)`, with a diagonal that depends on S_q and S_k.",
    ),
)  # fmt: skip
