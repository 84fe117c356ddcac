"""Exercise `causal_mask`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.agreement import raises_value_error
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.generation import aligned, whole
from autograder.oracle.quantity import Quantity, Rounder, exact

__all__ = ["CAUSAL_MASK"]


def _sizes(draw: Draw, queries: str) -> dict[str, Any]:
    S_q, S_k = sorted(draw.sizes(2, 3, 12))
    if queries == "all":
        S_k = S_q
    elif queries == "one":
        S_q = 1
    elif queries == "too many":
        S_q, S_k = S_k, S_q
    return {"S_q": S_q, "S_k": S_k}


def _formula(S_q: int, S_k: int, round: Rounder = exact) -> dict[str, Quantity]:
    return {"mask": whole(aligned(S_q, S_k))}


def _agrees(trial: Trial) -> None:
    mask = trial()["mask"]
    expected = trial.expect()["mask"].value.bool()
    wrong = mask.bool() != expected
    if bool(wrong.any()):
        i, j = divmod(int(wrong.int().argmax()), expected.shape[1])
        place = trial.inputs["S_k"] - trial.inputs["S_q"] + i
        must = "be allowed" if expected[i, j] else "be hidden"
        raise Failure(
            f"mask[{i}, {j}] is {bool(mask[i, j])}; query {i} stands at position {place}, so key {j} must {must}."
        )


def _bool(trial: Trial) -> None:
    mask = trial()["mask"]
    if mask.dtype != torch.bool:
        raise Failure(
            f"the mask is {str(mask.dtype).removeprefix('torch.')}; it must be bool, True where attention is allowed.",
            mistake="mask is not bool",
        )


def _mistake(name: str, question: str, mask: Callable[[int, int], Tensor]) -> Mistake:
    def formula(S_q: int, S_k: int) -> Mapping[str, Tensor]:
        return {"mask": mask(S_q, S_k).to(torch.float64)}

    return Mistake(name, question, formula)


def _ones(S_q: int, S_k: int) -> Tensor:
    return torch.ones(S_q, S_k)


ALIGNED = "The queries are the last S_q of S_k positions. Is the diagonal moved by S_k - S_q?"

MISTAKES = (
    _mistake("aligned at the top left", ALIGNED, lambda q, k: _ones(q, k).tril()),
    _mistake(
        "a query cannot see itself",
        "Position p sees the keys 0..p. Is its own key among them?",
        lambda q, k: _ones(q, k).tril(k - q - 1),
    ),
    _mistake(
        "a query sees one key too many",
        "Which is the last key that position p may see?",
        lambda q, k: _ones(q, k).tril(k - q + 1),
    ),
    _mistake(
        "True where attention is forbidden",
        "A bool mask here is True where attention is ALLOWED.",
        lambda q, k: 1 - _ones(q, k).tril(k - q),
    ),
    _mistake("nothing is hidden", "Which keys lie in a query's future?", _ones),
    _mistake(
        "upper triangle",
        "Keys before the query are allowed: tril or triu?",
        lambda q, k: _ones(q, k).triu(k - q),
    ),
    _mistake("moved the wrong way", ALIGNED, lambda q, k: _ones(q, k).tril(q - k)),
    _mistake("mask is square", "Its shape is (S_q, S_k).", lambda q, k: _ones(k, k).tril()),
)

RECIPES = tuple(
    Recipe(label, partial(_sizes, queries=queries))
    for label, queries in (
        ("as many queries as keys", "all"),
        ("the last of more keys", "some"),
        ("one query", "one"),
        ("more queries than keys", "too many"),
    )
)

CAUSAL_MASK = Exercise(
    name="causal_mask",
    assignment="text_generation",
    target=Target("causal_mask", ("mask",), _formula),
    positional=("S_q", "S_k"),
    recipes=RECIPES,
    checks=(
        Check("full pass", "S_q = S_k: the lower triangle", 0.5, ("as many queries as keys",), _agrees),
        Check(
            "cached decoding",
            "S_q < S_k: aligned at the bottom right",
            0.75,
            ("the last of more keys",),
            _agrees,
            "full pass",
        ),
        Check("one query", "the last position sees every key", 0.25, ("one query",), _agrees, "full pass"),
        Check("dtype", "the mask is bool", 0.25, ("the last of more keys",), _bool, "full pass"),
        Check(
            "refuses",
            "more queries than keys raise ValueError",
            0.25,
            ("more queries than keys",),
            raises_value_error(),
            "full pass",
        ),
    ),
    mistakes=MISTAKES,
    hints=(
        "Write down the positions of the queries if three of them are the last of five keys.",
        "Query i stands at position S_k - S_q + i. Which keys j may it see?",
        "`torch.ones(S_q, S_k, dtype=torch.bool).tril(diagonal)`, with a diagonal that depends on S_q and S_k.",
    ),
)
