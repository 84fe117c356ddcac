"""Exercise `linear_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Probe, Target, Trial
from autograder.checks.agreement import agrees
from autograder.checks.conduct import affordable
from autograder.checks.customary import COUNTS, FORMULA, conduct
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.linear import linear_attention as formula

__all__ = ["FEATURE_SLIPS", "LINEAR_ATTENTION", "Map", "elu_plus_one", "small_features"]

OUTPUT = ("output",)
Map = Callable[[Tensor], Tensor]


def _inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    shift: float = 0.0,
    queries: int = 0,
    keys: int = 0,
    long: bool = False,
    square: bool = False,
    high: int = 9,
) -> dict[str, Any]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v), all sizes different; queries, keys: so many."""
    *lead, S_q, S_k, D, D_v = draw.sizes(axes + 4, 2, high)
    if long:
        S_q, S_k = draw.sizes(2, 200, 260)
        D, D_v = draw.sizes(2, 3, 6)
    if square:
        S_q = S_k = D_v = D
    S_q, S_k = queries or S_q, keys or S_k
    return {
        "query": draw.normal(*lead, S_q, D, dtype=dtype) * size + shift,
        "key": draw.normal(*lead, S_k, D, dtype=dtype) * size + shift,
        "value": draw.normal(*lead, S_k, D_v, dtype=dtype),
    }


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("large inputs", size=3.0),
    _recipe("all sizes equal", square=True),
    _recipe("two leading axes", axes=2),
    _recipe("one key", keys=1),
    _recipe("one query", queries=1),
    _recipe("small, float64", axes=0, dtype=torch.float64, high=6),
    _recipe("float64", dtype=torch.float64),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16),
    _recipe("long sequences", axes=0, long=True),
    _recipe("small features, float64", dtype=torch.float64, shift=-10.0),
)


def _sizes(inputs: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    (S_q, D), (S_k, D_v) = inputs["query"].shape[-2:], inputs["value"].shape[-2:]
    return inputs["query"][..., 0, 0].numel(), S_q, S_k, D, D_v


def _flops(inputs: Mapping[str, Any]) -> int:
    """Two products and the normaliser; twice that leaves room for another writing."""
    elements, S_q, S_k, D, D_v = _sizes(inputs)
    return elements * 4 * (S_k * D * (D_v + 1) + S_q * D * (D_v + 1))


def _largest(inputs: Mapping[str, Any]) -> int:
    """One tensor of (..., S, D, D_v), for those who multiply and sum."""
    elements, S_q, S_k, D, D_v = _sizes(inputs)
    return elements * max(S_q, S_k) * D * max(D, D_v)


def _made(inputs: Mapping[str, Any]) -> int:
    """Twice the pairs: plenty for linear work by hand, and less than all products q_d k_d."""
    elements, S_q, S_k, _, _ = _sizes(inputs)
    return elements * 2 * S_q * S_k


def small_features(output: str) -> Probe:
    """Features of a millionth share the weight as larger ones do."""

    def probe(trial: Trial) -> None:
        got, wanted = trial()[output].detach(), trial.expect()[output].value
        # float32 inside loses a thousandth of such features, and is another check's affair.
        if not bool(((got - wanted).abs() <= 0.01 * wanted.abs().max()).all()):
            trial.require(
                output,
                got,
                "where queries and keys lie far below zero, and so features are small, it differs from the formula (is a "
                "small number added to the denominator, or is that clamped?)",
                mistake="a small number in the denominator",
            )

    return probe


def elu_plus_one(x: Tensor) -> Tensor:
    """The feature map that is asked for."""
    return F.elu(x) + 1


def _by_table(weights: Tensor, value: Tensor) -> Tensor:
    return weights @ value / weights.sum(-1, keepdim=True)


def _variant(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    of_query: Map = elu_plus_one,
    of_key: Map = elu_plus_one,
    table: Map = lambda weights: weights,
    average: Callable[[Tensor, Tensor], Tensor] = _by_table,
) -> Mapping[str, Tensor]:
    """Linear attention with knobs: the two feature maps, a change of the table, and how values are averaged by it."""
    return {"output": average(table(of_query(query) @ of_key(key).mT), value)}


def _both(feature: Map) -> dict[str, Map]:
    return {"of_query": feature, "of_key": feature}


MAP = "The feature map is elu(x) + 1, of queries and of keys."
SUM = "The weights of a query must sum to one: divide by phi(q) . (sum of phi(k) over the keys)."

FEATURE_SLIPS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "elu without the 1",
        "elu alone is negative below zero, and so are such weights. " + MAP,
        _both(F.elu),
    ),
    ("relu as the feature map", MAP + " relu makes rows of zeros.", _both(F.relu)),
    ("exp as the feature map", MAP, _both(torch.exp)),
    ("softplus as the feature map", MAP, _both(F.softplus)),
    ("relu + 1 as the feature map", MAP + " relu + 1 is constant below zero.", _both(lambda x: x.relu() + 1)),
    (
        "divided by sqrt(D) before the feature map",
        MAP + " There is no factor 1 / sqrt(D).",
        _both(lambda x: elu_plus_one(x / x.shape[-1] ** 0.5)),
    ),
    (
        "query divided by sqrt(D) before the feature map",
        MAP + " There is no factor 1 / sqrt(D).",
        {"of_query": lambda x: elu_plus_one(x / x.shape[-1] ** 0.5)},
    ),
    (
        "softmax as the feature map",
        MAP + " A softmax over the features is another map.",
        _both(partial(torch.softmax, dim=-1)),
    ),
    ("queries without the feature map", MAP, {"of_query": lambda x: x}),
    ("keys without the feature map", MAP, {"of_key": lambda x: x}),
    ("no feature map", MAP + " Raw dot products can be negative.", _both(lambda x: x)),
)
"""Name, question and the maps that are taken instead."""

WRONG_SUMS: tuple[tuple[str, str, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("not normalised", SUM, lambda w, v: w @ v),
    ("divided by the number of keys", SUM, lambda w, v: w @ v / v.shape[-2]),
    (
        "normalised over the queries",
        SUM + " Is the sum taken over the queries?",
        lambda w, v: (w / w.sum(-2, keepdim=True)) @ v,
    ),
    (
        "normalised by the sum over everything",
        SUM + " Is it one sum for all queries?",
        lambda w, v: w @ v / w.sum((-2, -1), keepdim=True),
    ),
)


LINEAR_ATTENTION = Exercise(
    name="linear_attention",
    assignment="efficient_attention",
    target=Target("linear_attention", OUTPUT, formula),
    positional=("query", "key", "value"),
    recipes=RECIPES,
    checks=(
        Check(
            COUNTS,
            "the output changes with query, key and value, also with a value at another position",
            0.5,
            ("unequal sizes",),
            responds({"query": OUTPUT, "key": OUTPUT, "value": OUTPUT}, mixing="value"),
        ),
        Check(
            FORMULA,
            "values averaged by phi(q) . phi(k), phi(x) = elu(x) + 1",
            1.25,
            ("unequal sizes", "large inputs", "all sizes equal"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "linear cost",
            "work and memory grow with the length, not with its square",
            1.0,
            ("long sequences",),
            affordable(_flops, _largest, _made),
            FORMULA,
        ),
        Check(
            "small features",
            "nothing is added to the denominator, and none is kept above a bound",
            0.25,
            ("small features, float64",),
            small_features("output"),
            FORMULA,
        ),
        Check(
            "one of a kind",
            "one key is all that is averaged; one query is enough",
            0.25,
            ("one key", "one query"),
            agrees("output"),
            FORMULA,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"query": 2, "key": 2, "value": 2}, OUTPUT),
            COUNTS,
        ),
        *conduct((FORMULA,), outputs=OUTPUT, gradient="backward() gives the derivative"),
    ),
    mistakes=(
        *(Mistake(name, question, partial(_variant, **maps)) for name, question, maps in FEATURE_SLIPS),
        *(Mistake(name, question, partial(_variant, average=way)) for name, question, way in WRONG_SUMS),
        Mistake(
            "softmax attention",
            "This is ordinary attention. Here the weights are products of features: no softmax over the keys.",
            lambda query, key, value: {
                "output": torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, -1) @ value
            },
        ),
        Mistake(
            "mean of the values",
            "Do query and key enter the weights?",
            lambda query, key, value: {
                "output": value.mean(-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])
            },
        ),
        Mistake(
            "always causal",
            "Here every query sees every key.",
            partial(_variant, table=torch.tril),
        ),
    ),
    hints=(
        (
            "phi(q) . phi(k) is a product. (A B) C = A (B C): which two of phi(Q), phi(K)^T and V can be "
            "multiplied first, so that no axis of the result is a length?"
        ),
        (
            "phi(K)^T V is (D, D_v), and phi(K) summed over the keys is (D,). A query needs nothing else: its "
            "output is phi(q) times the first, divided by phi(q) times the second."
        ),
        (
            "`phi_k.transpose(-2, -1) @ value` and `phi_k.sum(-2)` once; then `(phi_q @ kv) / "
            "(phi_q @ z.unsqueeze(-1))`, with phi(x) = `nn.functional.elu(x) + 1`."
        ),
    ),
)
