"""Exercises `AdditiveScores` (Bahdanau) and `MultiplicativeScores` (Luong): scores with parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, normalize

from autograder.case import Recipe
from autograder.checks import Check, Parameter, Target
from autograder.checks.check import in_turn
from autograder.checks.gradients import every_parameter_learns, works_as_made
from autograder.exercises.basic_attention.scores import (
    DIAGNOSES,
    FINISHES,
    NUMBERS,
    OUTPUTS,
    PRODUCTS,
    compare,
    itself,
    named,
    rounded,
    size_of,
)
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle import scores as formulas
from autograder.situations import AXES, DTYPES, LENGTHS, Factor, Situations, drawn_by, groups, without
from autograder.situations.space import GRADIENT

__all__ = ["ADDITIVE_SCORES", "MULTIPLICATIVE_SCORES"]

SHAPES = {"query": "... S_q d_query", "key": "... S_k d_key"}


def _tried(formula: str, points: float, lengths: Factor, *widths: str) -> Situations:
    """The situations of a module with these widths.

    Where two widths of one weight are equal, a bare nn.Parameter does not show which way round it is held: they never are.
    """
    wide = {"wide vectors": {"d_query": [131], "d_key": [137], "d_hidden": 5}}
    usual = without(LENGTHS, "one tensor for several", "all sizes equal", "wide vectors")
    return Situations(
        draw=drawn_by(SHAPES, init={name: name for name in widths}),
        factors={"lengths": {**usual, **lengths, **wide}, "numbers": size_of(1e3, 100.0), "dtype": DTYPES, "axes": AXES},
        axes=SHAPES,
        groups=groups(formula, points, (NUMBERS,), lengths=0.75, gradient=0.5, dtypes=0.5, calls=0.5),
        never=(rounded("small numbers"), {"numbers": "large numbers", "gradient": GRADIENT}),  # tanh is flat there
        module=True,
    )  # fmt: skip


def _learns(situations: Situations) -> dict[str, Any]:
    """The one written check, and its case."""
    probe = in_turn(every_parameter_learns("scores"), works_as_made("scores"))
    check = Check(
        "parameters", "every parameter is used and learns", 0.5, ("plain",), probe, "agrees with the formula"
    )
    return {"situations": situations, "recipes": (Recipe("plain", situations.draw),), "checks": (check,)}


def _pairs(query: Tensor, key: Tensor) -> Tensor:
    return query.unsqueeze(-2) + key.unsqueeze(-3)


def _additive(
    query: Tensor,
    key: Tensor,
    W_q: Tensor,
    W_k: Tensor,
    v: Tensor,
    *,
    join: Callable[[Tensor, Tensor], Tensor] = _pairs,
    bend: Callable[[Tensor], Tensor] = torch.tanh,
    read: Callable[[Tensor, Tensor], Tensor] = lambda hidden, v: hidden @ v,
    finish: Callable[[Tensor], Tensor] = lambda scores: scores,
) -> Tensor:
    return finish(read(bend(join(query @ W_q.mT, key @ W_k.mT)), v))


WHICH = "Which nonlinearity does the formula name?"
ADDITIVE_SLIPS: Slips = {
    "Without the nonlinearity a query shifts all its scores alike, and the softmax undoes that. Is tanh missing?": {
        "no tanh": {"bend": lambda x: x},
    },
    "Is tanh applied before the product with v?": {"tanh of the score": {"bend": lambda x: x, "finish": torch.tanh}},
    "Is tanh applied once inside and once more to the score?": {"tanh twice": {"finish": torch.tanh}},
    "Should the two projections be added before the tanh?": {
        "tanh of each projection": {"join": lambda q, k: _pairs(q.tanh(), k.tanh()), "bend": lambda x: x},
    },
    "Should the two projections be added, not multiplied?": {
        "product of the projections": {"join": lambda q, k: q.unsqueeze(-2) * k.unsqueeze(-3)},
    },
    "Is it a plus between the two projections?": {"difference of the projections": {"join": lambda q, k: _pairs(q, -k)}},
    WHICH: {
        "sigmoid in place of tanh": {"bend": torch.sigmoid},
        "relu in place of tanh": {"bend": torch.relu},
        "gelu in place of tanh": {"bend": gelu},
    },
    "Rows belong to queries, columns to keys. Which of the two gets unsqueeze(-2)?": {
        "query and key exchanged": {"finish": lambda s: s.mT},
    },
    "Are the hidden values summed or averaged without their weights v?": {
        "v never applied": [{"read": lambda hidden, v: hidden.sum(-1)}, {"read": lambda hidden, v: hidden.mean(-1)}],
    },
    "Does the formula scale additive scores?": {
        "scaled by sqrt(d_hidden)": {"read": lambda hidden, v: hidden @ v / math.sqrt(len(v))},
    },
    "Scores are what goes into the softmax. Is it applied here already?": {
        "softmax applied to the scores": {"finish": lambda s: s.softmax(-1)},
    },
    "Where does W_k k enter?": {"keys left out": {"join": lambda q, k: _pairs(q, 0 * k)}},
    "Where does W_q q enter?": {"queries left out": {"join": lambda q, k: _pairs(0 * q, k)}},
    "This is the multiplicative score. Should the projections be added and go through tanh?": {
        "dot product of the projections": {"join": lambda q, k: q @ k.mT, "bend": lambda x: x, "read": lambda scores, v: scores},
    },
    "Does every query meet every key? Try unsqueeze(-2) and unsqueeze(-3).": {
        "position i paired with position i": {"join": torch.add},
    },
}  # fmt: skip

ADDITIVE_SCORES = Exercise(
    name="AdditiveScores",
    assignment="basic_attention",
    target=Target("AdditiveScores", OUTPUTS, named(formulas.additive)),
    positional=("query", "key"),
    parameters=(
        Parameter("W_q", ("d_hidden", "d_query")),
        Parameter("W_k", ("d_hidden", "d_key")),
        Parameter("v", ("d_hidden",)),
    ),
    **_learns(
        _tried(
            "v . tanh(W_q q + W_k k) for every query and key", 2.0,
            {"equal lengths": {"S_k": "S_q", "d_hidden": "S_q"}, "a sequence against itself": itself(d_key="d_query")},
            "d_query", "d_key", "d_hidden",
        )
    ),
    diagnoses=DIAGNOSES,
    mistakes=slips(_additive, ADDITIVE_SLIPS, output="scores"),
    hints=(
        "Every query has to meet every key before the tanh. Which axes must you insert so that adding projected queries and "
        "projected keys makes a table of pairs?",
        "Give the projected query the shape (..., S_q, 1, d_hidden) and the projected key (..., 1, S_k, d_hidden); their sum "
        "broadcasts to (..., S_q, S_k, d_hidden). Then tanh, then `v`.",
        "`self.W_q(query).unsqueeze(-2) + self.W_k(key).unsqueeze(-3)` goes through `torch.tanh`, then through `self.v`. Its "
        "last axis of size 1 must go: `.squeeze(-1)`.",
    ),
)  # fmt: skip


def _bilinear(
    query: Tensor,
    key: Tensor,
    W: Tensor,
    *,
    project: Callable[[Tensor, Tensor], Tensor] = torch.matmul,
    **steps: Any,
) -> Tensor:
    return compare(project(query, W), key, **steps)


BILINEAR_SLIPS: Slips = {
    "W has shape (d_query, d_key). Which side does the query multiply?": {
        "W transposed": {"project": lambda q, W: q @ W.mT},
    },
    "Is W used in forward?": {"W never applied": {"project": lambda q, W: q}},
    "Does the formula scale multiplicative scores?": {
        "scaled by sqrt(d_key)": {"scale": lambda q, k: k.shape[-1] ** -0.5},
        "scaled by sqrt(d_query)": {"project": lambda q, W: q @ W / math.sqrt(len(W))},
    },
    "tanh belongs to the additive score. Is this one bilinear?": {
        "tanh of the score": {"finish": torch.tanh},
        "tanh of the projected query": {"project": lambda q, W: (q @ W).tanh()},
    },
    "Is it a cosine where a product is meant?": {
        "projected vectors normalised": {"prepare": lambda x, eps: normalize(x, dim=-1)},
    },
}  # fmt: skip

MULTIPLICATIVE_SCORES = Exercise(
    name="MultiplicativeScores",
    assignment="basic_attention",
    target=Target("MultiplicativeScores", OUTPUTS, named(formulas.multiplicative)),
    positional=("query", "key"),
    parameters=(Parameter("W", ("d_query", "d_key"), linear=False),),
    **_learns(
        _tried(
            "q W k for every query and key", 1.5,
            {"equal lengths": {"S_k": "S_q", "d_key": "S_q"}, "equal widths": {"d_key": "d_query"}}, "d_query", "d_key",
        )
    ),
    diagnoses=DIAGNOSES,
    mistakes=slips(_bilinear, BILINEAR_SLIPS, PRODUCTS, FINISHES, output="scores"),
    hints=(
        "q W k is two products in a row. Which shape must W have, so that a query of width d_query can meet a key of width "
        "d_key?",
        "W is `nn.Parameter` of shape (d_query, d_key), with random start values. `query @ W` has the key's width; then it is "
        "the dot product you know.",
        "`query @ self.W` has shape (..., S_q, d_key). Multiply it by `key.transpose(-2, -1)`; nothing else is needed, no "
        "scale and no elementwise product.",
    ),
)  # fmt: skip
