"""Exercise `shared_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.averaging import average_of_values, survives_large_inputs, ties_share
from autograder.checks.conduct import FUSED, affordable, dtype_kept, inputs_untouched, obeys, repeatable
from autograder.checks.gradients import differentiable
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.basic_attention.variants import attend
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.shared_attention.variants import chosen
from autograder.oracle.sharing import shared_attention as formula

__all__ = ["SHARED_ATTENTION"]

OUTPUTS = ("output", "weights")
COUNTS = "every input counts"
FORMULA = "agrees with the formula"
RESULTS = (FORMULA, "weights")
LENGTHS = {"many": (12, 20), "long": (33, 60)}


def _inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    lengths: str = "",
    queries: int = 0,
    keys: int = 0,
    low: int = 2,
    high: int = 9,
) -> dict[str, Any]:
    """query (..., S_q, D_q), key (..., S_k, D_k), value (..., S_k, D_v), weight (D_q, D_k), all sizes different.

    lengths: "square" for all alike, "width" for S_k = D_k, "many" for 12 to 20 keys, "long" for 33 to 60 of both.
    queries, keys: so many.
    """
    *lead, S_q, S_k, D_q, D_k, D_v = draw.sizes(axes + 5, low=low, high=high)
    if lengths == "square":
        S_k = D_q = D_k = D_v = S_q
    elif lengths == "width":
        S_k = D_k
    elif lengths == "many":
        S_k = draw.integer(*LENGTHS["many"])
    elif lengths == "long":
        S_q, S_k = draw.sizes(2, *LENGTHS["long"])
    S_q, S_k = queries or S_q, keys or S_k
    return {
        "query": draw.normal(*lead, S_q, D_q, dtype=dtype) * size,
        "key": draw.normal(*lead, S_k, D_k, dtype=dtype),
        "value": draw.normal(*lead, S_k, D_v, dtype=dtype),
        "weight": (draw.normal(D_q, D_k, dtype=torch.float64) / (D_q * D_k) ** 0.5).to(dtype),
    }


def _worked_example(draw: Draw) -> dict[str, Any]:
    """One query of width 3 against five keys of width 1, through a matrix of three rows and one column."""
    line = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    return {
        "query": torch.tensor([[1.0, 0.0, -1.0]]),
        "key": line,
        "value": line.clone(),
        "weight": torch.tensor([[0.5], [2.0], [-0.25]]),
    }


def _small_matrix(draw: Draw) -> dict[str, Any]:
    """A 2 x 2 matrix for a query and keys of other widths."""
    inputs = _inputs(draw, axes=0, low=3)
    return inputs | {"weight": draw.normal(2, 2)}


def _turned_matrix(draw: Draw) -> dict[str, Any]:
    """(D_k, D_q) where (D_q, D_k) is meant."""
    inputs = _inputs(draw, axes=0)
    return inputs | {"weight": inputs["weight"].mT.contiguous()}


def _unequal_lengths(draw: Draw) -> dict[str, Any]:
    inputs = _inputs(draw, axes=0, keys=6)
    return inputs | {"value": inputs["value"][:-1]}


def _many_elements(draw: Draw) -> dict[str, Any]:
    """Many batch elements of short sequences: pairing a query with another element's keys would cost more than the whole."""
    S_q, S_k, D_q, D_k, D_v = draw.sizes(5, low=2, high=6)
    return {
        "query": draw.normal(35, S_q, D_q),
        "key": draw.normal(35, S_k, D_k),
        "value": draw.normal(35, S_k, D_v),
        "weight": draw.normal(D_q, D_k) / D_q,
    }


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


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("as many keys as their width", lengths="width", low=3),
    _recipe("all sizes equal", lengths="square", low=4),
    _recipe("unequal sizes", low=3),
    _recipe("many keys", lengths="many"),
    Recipe("worked example", _worked_example),
    _recipe("large scores", size=8.0, low=3),
    _recipe("float64", dtype=torch.float64),
    _recipe("three leading axes", axes=3),
    _recipe("long sequences", lengths="long"),
    _recipe("one key", keys=1, low=3),
    _recipe("one query", queries=1, low=3),
    _recipe("one leading axis", low=3),
    _recipe("huge scores", size=3e4),
    _recipe("small, float64", axes=0, dtype=torch.float64, high=6),
    _recipe("many keys, float64", axes=0, dtype=torch.float64, lengths="many"),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16),
    Recipe("a matrix of the wrong size", _small_matrix),
    Recipe("a matrix the wrong way round", _turned_matrix),
    Recipe("key and value of unequal length", _unequal_lengths),
    Recipe("many batch elements", _many_elements),
)


def _variant(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor,
    *,
    score: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda q, k, w: q @ w @ k.mT,
    knobs: Mapping[str, Any] | None = None,
) -> Mapping[str, Tensor]:
    """Shared attention with knobs; `knobs` are those of `attend`."""
    plain: dict[str, Any] = {
        "scale": lambda q, k, v: 1.0,
        "score": lambda q, k: score(q, k, weight),
    }
    return attend(query, key, value, **(plain | dict(knobs or {})))


def _mistakes() -> tuple[Mistake, ...]:
    scale = "The formula is q weight k, and the matrix carries the scale. Is it divided by something on top?"
    both = "One matrix stands between the query and the key. Is it applied once?"
    scores: tuple[tuple[str, str, Callable[[Tensor, Tensor, Tensor], Tensor]], ...] = (
        (
            "keys never used",
            "The scores are made of query and weight alone: the keys are never looked at. Where does key come in?",
            lambda q, k, w: q @ w,
        ),
        (
            "queries never used",
            "The scores are made of weight and key alone. Where does query come in?",
            lambda q, k, w: w @ k.mT,
        ),
        ("keys not transposed", "Should it be key.transpose(-2, -1)?", lambda q, k, w: q @ w @ k),
        ("weight never used", "Does the matrix enter the scores?", lambda q, k, w: q @ k.mT),
        (
            "weight applied transposed",
            "weight is (D_q, D_k): query @ weight @ key^T. Is it turned round?",
            lambda q, k, w: q @ w.mT @ k.mT,
        ),
        ("weight applied to both sides", both, lambda q, k, w: (q @ w) @ (k @ w).mT),
        ("weight applied twice", both, lambda q, k, w: q @ w @ w @ k.mT),
        (
            "weight applied elementwise",
            "Is it * where @ is meant?",
            lambda q, k, w: (q * w) @ k.mT if w.shape == q.shape[-2:] else q @ w @ k.mT,
        ),
        (
            "tanh of the scores",
            "Is there a nonlinearity where the formula has none?",
            lambda q, k, w: (q @ w @ k.mT).tanh(),
        ),
        ("divided by sqrt(D_q)", scale, lambda q, k, w: q @ w @ k.mT / q.shape[-1] ** 0.5),
        ("divided by sqrt(D_k)", scale, lambda q, k, w: q @ w @ k.mT / k.shape[-1] ** 0.5),
    )
    slips = chosen(
        "softmax over the queries",
        "softmax over the first axis",
        "softmax over the second axis",
        "no softmax",
        "scores divided by their sum",
        "exp without the division",
        "sigmoid of each score",
        "one-hot maximum",
        "softmax applied twice",
        "equal weights for all keys",
        "output made of the scores, not of the weights",
        "scores returned as weights",
    )
    return (
        *(Mistake(name, question, partial(_variant, score=score)) for name, question, score in scores),
        *(Mistake(name, question, partial(_variant, knobs=knobs)) for name, question, knobs in slips),
    )


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    output: Tensor = weights @ inputs["value"]
    return output


KEYS = {"key": -2, "value": -2}

SHARED_ATTENTION = Exercise(
    name="shared_attention",
    assignment="shared_attention",
    target=Target("shared_attention", OUTPUTS, formula),
    positional=("query", "key", "value", "weight"),
    recipes=RECIPES,
    checks=(
        Check(
            COUNTS,
            "the results change when query, key, value or weight do",
            0.5,
            ("as many keys as their width",),
            responds({"query": OUTPUTS, "key": OUTPUTS, "value": ("output",), "weight": OUTPUTS}),
        ),
        Check(
            FORMULA,
            "softmax(query weight key^T) value",
            1.5,
            ("unequal sizes", "many keys", "worked example", "large scores", "all sizes equal", "float64"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights that made the output, rows summing to 1",
            0.75,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(_made),
            COUNTS,
        ),
        Check(
            "sizes that do not fit",
            "are refused with a ValueError",
            0.5,
            ("a matrix of the wrong size", "a matrix the wrong way round", "key and value of unequal length"),
            raises_value_error(),
            COUNTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.5,
            ("three leading axes",),
            agrees_with_slices({"query": 2, "key": 2, "value": 2}, OUTPUTS),
            COUNTS,
        ),
        Check(
            "order of the keys",
            "keys and values may come in any order",
            0.25,
            ("long sequences",),
            permutation(KEYS, {"output": None, "weights": -1}, "keys"),
            COUNTS,
        ),
        Check(
            "order of the queries",
            "each query stands alone",
            0.25,
            ("long sequences",),
            permutation({"query": -2}, {"output": -2, "weights": -2}, "queries"),
            COUNTS,
        ),
        Check("ties", "equal keys share their weight", 0.25, ("one leading axis",), ties_share(), COUNTS),
        Check(
            "average",
            "the output is linear in the values and stays among them",
            0.25,
            ("one leading axis",),
            average_of_values(),
            COUNTS,
        ),
        Check(
            "one of a kind",
            "one key gets all the weight; one query is enough",
            0.25,
            ("one key", "one query"),
            agrees(*OUTPUTS),
            COUNTS,
        ),
        Check(
            "huge scores",
            "no overflow for large inputs",
            0.25,
            ("huge scores",),
            survives_large_inputs(),
            COUNTS,
        ),
        Check(
            "gradient",
            "backward() gives the derivative, for the matrix too",
            0.5,
            ("small, float64", "many keys, float64"),
            differentiable(OUTPUTS),
            RESULTS,
        ),
        Check(
            "dtype",
            "the inputs' dtype is kept, and its precision",
            0.25,
            ("float64", "bfloat16", "float16"),
            dtype_kept(OUTPUTS),
            RESULTS,
        ),
        Check(
            "inputs untouched",
            "no input is written to",
            0.25,
            ("unequal sizes",),
            inputs_untouched(),
            RESULTS,
        ),
        Check(
            "layout",
            "strides and earlier calls do not matter",
            0.25,
            ("unequal sizes",),
            repeatable(OUTPUTS),
            RESULTS,
        ),
        Check(
            "own work",
            "attention is written out",
            0.25,
            ("unequal sizes",),
            obeys(FUSED, "attention"),
            RESULTS,
            binding=True,
        ),
        Check(
            "cost",
            "no more work and memory than the formula needs",
            0.25,
            ("many batch elements",),
            affordable(_flops, _largest),
            RESULTS,
        ),
    ),
    mistakes=_mistakes(),
    hints=(
        (
            "The score of one query and one key is a number: q weight k. Which of the three shapes must meet "
            "first, and what is transposed?"
        ),
        (
            "(S_q, D_q) @ (D_q, D_k) @ (D_k, S_k) gives (S_q, S_k). The softmax runs over the keys, and the "
            "weights average the values. Compare the shapes before the first product."
        ),
        (
            "`scores = query @ weight @ key.transpose(-2, -1)`, `weights = torch.softmax(scores, -1)`, and "
            "return `weights @ value, weights`. Raise ValueError if weight.shape is not (D_q, D_k)."
        ),
    ),
)
