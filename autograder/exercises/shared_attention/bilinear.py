"""Exercise `shared_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import raises_value_error
from autograder.checks.averaging import average_of_values, survives_large_inputs, ties_share
from autograder.checks.conduct import FUSED, affordable, obeys
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import attend, only
from autograder.oracle.sharing import shared_attention as formula
from autograder.situations import (
    AXES,
    DTYPES,
    LENGTHS,
    Factor,
    Group,
    Situations,
    drawn_by,
    groups,
    scores,
    without,
)
from autograder.situations.space import GRADIENT

__all__ = ["SHARED_ATTENTION"]

OUTPUTS = ("output", "weights")
RESULTS = ("agrees with the formula", "lengths")
SHAPES = {"query": "... S_q D_q", "key": "... S_k D_k", "value": "... S_k D_v", "weight": "D_q D_k"}
_drawn = drawn_by(SHAPES)


def draw(draw: Draw, **options: Any) -> dict[str, Any]:
    """The inputs, all sizes different; the matrix such that scores are of size one."""
    inputs = _drawn(draw, **options)
    weight = inputs["weight"]
    return inputs | {"weight": (weight.double() / weight.numel() ** 0.5).to(weight.dtype)}


SIZES = without(LENGTHS, "all sizes equal", "one tensor for several", "wide vectors")
WIDE = LENGTHS["wide vectors"]["D"]  # type: ignore[index, call-overload]
LONG = tuple(name for name in SIZES if name.startswith("over "))
WIDTHS: Factor = {
    "all widths different": {},
    "all sizes equal": {"S_q": (3, 7), **dict.fromkeys(("S_k", "D_q", "D_k", "D_v"), "S_q")},
    "keys as wide as they are many": {"D_k": "S_k"},
    "keys of width one": {"D_k": 1},
    "wide vectors": dict.fromkeys(("D_q", "D_k", "D_v"), WIDE),
    "one tensor for keys and values": (
        {"D_v": "D_k"},
        lambda draw, inputs: {**inputs, "value": inputs["key"]},
    ),
    "one tensor for several": (
        {"S_q": "S_k", "D_q": "D_k", "D_v": "D_k"},
        lambda draw, inputs: {**inputs, "query": inputs["key"], "value": inputs["key"]},
    ),
}


def _low(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """All scores equal, and lower than -1e4: products of one number of each query, matrix and key; large values besides."""
    half = inputs["query"].dtype == torch.float16
    far = 120.0 if half else 2.0**8
    made = {name: torch.zeros_like(inputs[name]) for name in ("query", "key")}
    made["query"][..., 0], made["key"][..., 0], made["weight"] = far, -far, inputs["weight"].clone()
    made["weight"][0, 0] = 1.0
    return {**inputs, **made, "value": inputs["value"] * (1.0 if half else 1e3)}


def _ahead(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """The last key is far nearer to every query than all others."""
    key, weight = inputs["key"].clone(), inputs["weight"]
    key[..., -1, :] *= 8.0
    towards = (key[..., -1:, :].double() @ weight.double().mT).to(weight.dtype)
    return {**inputs, "key": key, "query": inputs["query"] + towards.sign() * 4.0}


def _huge(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """Scores that exp cannot take; in float16, whose numbers end there, only large ones."""
    return {**inputs, "query": inputs["query"] * (30.0 if inputs["query"].dtype == torch.float16 else 3e4)}


SCORES: Factor = {**without(scores(), "huge numbers behind the mask"),
          "all scores low": _low, "one key far ahead": _ahead, "huge scores": _huge}  # fmt: skip


def _do_not_fit(
    *, value: int = 0, rows: int = 0, columns: int = 0, turned: bool = False, batch: bool = False
) -> Callable[[Draw], dict[str, Any]]:
    """A value of another length than the key's, or a matrix of other widths than the query's and the key's.

    value, rows, columns: 1 for a size of 1, which would stretch without a word, else a difference. turned: the matrix is
    transposed. batch: there is a matrix for each batch element.
    """

    def drawn(draw: Draw) -> dict[str, Any]:
        S_q, S_k, D_q, D_k, D_v = draw.sizes(5, low=3)
        lead = (2,) * (1 if batch else draw.integer(0, 1))
        length, high, wide = (
            {0: size, 1: 1}.get(by, size + by) for size, by in ((S_k, value), (D_q, rows), (D_k, columns))
        )
        weight = draw.normal(*lead[: int(batch)], *((wide, high) if turned else (high, wide)))
        return {"query": draw.normal(*lead, S_q, D_q), "key": draw.normal(*lead, S_k, D_k),
                "value": draw.normal(*lead, length, D_v), "weight": weight}  # fmt: skip

    return drawn


UNFIT: dict[str, dict[str, Any]] = {
    "a matrix the wrong way round": {"turned": True}, "a matrix of too many rows": {"rows": 2},
    "a matrix of too few columns": {"columns": -1}, "a matrix of one column": {"columns": 1}, "a matrix of one row": {"rows": 1},
    "a matrix for each batch element": {"batch": True}, "a value longer than the key": {"value": 2},
    "a value shorter than the key": {"value": -1}, "a value of length 1": {"value": 1},
}  # fmt: skip


def _sizes(inputs: Mapping[str, Any]) -> tuple[int, int, int, int, int, int]:
    (S_q, D_q), (S_k, D_k) = inputs["query"].shape[-2:], inputs["key"].shape[-2:]
    return inputs["query"][..., 0, 0].numel(), S_q, S_k, D_q, D_k, inputs["value"].shape[-1]


def _flops(inputs: Mapping[str, Any]) -> int:
    """The matrix meets the queries or the keys, then the two products of attention; each made twice if need be."""
    elements, S_q, S_k, D_q, D_k, D_v = _sizes(inputs)
    matrix = max(S_q * D_q * D_k + S_q * S_k * D_k, S_k * D_k * D_q + S_q * S_k * D_q)
    return elements * 4 * (matrix + S_q * S_k * D_v)


def _largest(inputs: Mapping[str, Any]) -> int:
    """One tensor of (..., S_q, S_k, width), for those who multiply and sum: twice that is too much."""
    elements, S_q, S_k, *widths = _sizes(inputs)
    return elements * 2 * max(S_q * S_k * max(widths), max(S_q, S_k) * widths[0] * widths[1])


def shared(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor,
    *,
    score: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda q, k, w: q @ w @ k.mT,
    knobs: Mapping[str, Any] | None = None,
) -> Mapping[str, Tensor]:
    """Shared attention with knobs; `knobs` are those of `attend`."""
    plain: dict[str, Any] = {"scale": lambda q, k, v: 1.0, "score": lambda q, k: score(q, k, weight)}
    return attend(query, key, value, **{**plain, **(knobs or {})})


SCALE = "The formula is q weight k, and the matrix carries the scale. Is it divided by something on top?"
ONCE = "One matrix stands between the query and the key. Is it applied once?"

MATRIX_SLIPS: Slips = {
    "The scores are made of query and weight alone: the keys are never looked at. Where does key come in?": {
        "keys never used": {"score": lambda q, k, w: q @ w},
    },
    "The scores are made of weight and key alone. Where does query come in?": {
        "queries never used": {"score": lambda q, k, w: w @ k.mT},
    },
    "Should it be key.transpose(-2, -1)?": {"keys not transposed": {"score": lambda q, k, w: q @ w @ k}},
    "Does the matrix enter the scores?": {"weight never used": {"score": lambda q, k, w: q @ k.mT}},
    "weight is (D_q, D_k): query @ weight @ key^T. Is it turned round?": {
        "weight applied transposed": {"score": lambda q, k, w: q @ w.mT @ k.mT},
    },
    ONCE: {
        "weight applied to both sides": {"score": lambda q, k, w: (q @ w) @ (k @ w).mT},
        "weight applied twice": {"score": lambda q, k, w: q @ w @ w @ k.mT},
    },
    "Is it * where @ is meant?": {
        "weight applied elementwise": {"score": lambda q, k, w: (q * w) @ k.mT if w.shape == q.shape[-2:] else q @ w @ k.mT},
    },
    "Is there a nonlinearity where the formula has none?": {
        "tanh of the scores": {"score": lambda q, k, w: (q @ w @ k.mT).tanh()},
    },
    SCALE: {
        "divided by sqrt(D_q)": {"score": lambda q, k, w: q @ w @ k.mT / q.shape[-1] ** 0.5},
        "divided by sqrt(D_k)": {"score": lambda q, k, w: q @ w @ k.mT / k.shape[-1] ** 0.5},
    },
}  # fmt: skip

SHARED_SLIPS = only(
    "softmax over the queries", "softmax over the first axis", "softmax over the second axis", "no softmax",
    "scores divided by their sum", "exp without the division", "sigmoid of each score", "one-hot maximum",
    "softmax applied twice", "equal weights for all keys", "output made of the scores, not of the weights",
    "scores returned as weights",
)  # fmt: skip


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    output: Tensor = weights @ inputs["value"]
    return output


SHARED_ATTENTION = Exercise(
    name="shared_attention",
    assignment="shared_attention",
    target=Target("shared_attention", OUTPUTS, formula),
    positional=("query", "key", "value", "weight"),
    situations=Situations(
        draw=draw,
        factors={"lengths": SIZES, "widths": WIDTHS, "scores": SCORES, "dtype": DTYPES, "axes": AXES},
        axes=SHAPES,
        groups=groups(
            "softmax(query weight key^T) value", 2.5,
            (Group("lengths", "right for any lengths, widths and leading axes", 1.25, ("lengths", "widths", "axes")),),
            scores=0.75, gradient=0.75, dtypes=0.25, calls=0.5,
        ),
        never=({"widths": "all sizes equal", "lengths": tuple(SIZES)[1:]}, {"widths": tuple(WIDTHS)[1:], "lengths": LONG},
               {"widths": ("keys as wide as they are many", "one tensor for several"), "lengths": "a thousand keys"},
               {"widths": "keys of width one", "scores": "all scores low", "gradient": GRADIENT}),
    ),
    recipes=(
        *(Recipe(label, _do_not_fit(**options)) for label, options in UNFIT.items()),
        Recipe("plain", draw),
        Recipe("many batch elements", partial(draw, axes=1, batch=35, high=6)),
    ),
    checks=(
        Check("sizes that do not fit", "are refused with a ValueError", 0.5, tuple(UNFIT),
              raises_value_error(takes=("axes",)), RESULTS[0]),
        Check("own work", "attention is written out", 0.25, ("plain",), obeys(FUSED, "attention"), RESULTS, True),
        Check(
            "cost", "no more work and memory than the formula needs", 0.25, ("many batch elements",),
            affordable(_flops, _largest), RESULTS,
        ),
    ),
    diagnoses={
        "": (
            survives_large_inputs(),
            responds({"query": OUTPUTS, "key": OUTPUTS, "value": ("output",), "weight": OUTPUTS}),
            permutation({"key": -2, "value": -2}, {"output": None, "weights": -1}, "keys"),
            permutation({"query": -2}, {"output": -2, "weights": -2}, "queries"), weights_agree(_made), average_of_values(),
            agrees_with_slices({"query": 2, "key": 2, "value": 2}, OUTPUTS), ties_share(),
        ),
    },
    mistakes=(*slips(shared, MATRIX_SLIPS), *slips(shared, *SHARED_SLIPS, steps="knobs")),
    hints=(
        "The score of one query and one key is a number: q weight k. Which of the three shapes must meet "
        "first, and what is transposed?",
        "(S_q, D_q) @ (D_q, D_k) @ (D_k, S_k) gives (S_q, S_k). The softmax runs over the keys, and the "
        "weights average the values. Compare the shapes before the first product.",
        "`scores = query @ weight @ key.transpose(-2, -1)`, `weights = torch.softmax(scores, -1)`, and "
        "return `weights @ value, weights`. Raise ValueError if weight.shape is not (D_q, D_k).",
    ),
)  # fmt: skip
