"""Exercise `linear_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.conduct import affordable
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.linear import linear_attention as formula
from autograder.situations import DTYPES, LENGTHS, MODULE_AXES, Situations, drawn_by, groups, without
from autograder.situations.factors import Factor

__all__ = ["FEATURES", "FEATURE_SLIPS", "IN_DOUBLE", "LINEAR_ATTENTION", "Map", "elu_plus_one"]

OUTPUT = ("output",)
FORMULA = "agrees with the formula"
SHAPES = {"query": "... S_q D", "key": "... S_k D", "value": "... S_k D_v"}
draw = drawn_by(SHAPES, leading=1, high=8)
Map = Callable[[Tensor], Tensor]


def _large(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """In each vector one feature is above zero: where all are far below, half precision keeps nothing of elu(x) + 1."""
    made = {name: inputs[name] * 3.0 for name in ("query", "key")}
    for one in made.values():
        one[..., 0] = one[..., 0].abs()
    return {**inputs, **made}


def _small(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """Features of a millionth: what is added to the denominator, or kept above a bound, shows."""
    return {**inputs, **{name: inputs[name] - 14.0 for name in ("query", "key")}}


def _ahead(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """The last key has features far larger than those of all others."""
    key = inputs["key"].clone()
    key[..., -1, :] = key[..., -1, :].abs() * 50.0
    return {**inputs, "key": key}


def _zeros(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """The first query and the first key are zero, as padding is."""
    made = {name: inputs[name].clone() for name in ("query", "key")}
    for one in made.values():
        one[..., 0, :] = 0.0
    return {**inputs, **made}


FEATURES: Factor = {
    "ordinary features": {}, "vectors of zeros": _zeros, "large features": _large, "small features": _small,
    "one key far ahead": _ahead,
}  # fmt: skip
IN_DOUBLE = {"scores": "small features", "dtype": ("float32", "bfloat16", "float16")}
"""elu(x) + 1 loses all digits of a small feature elsewhere."""


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


def elu_plus_one(x: Tensor) -> Tensor:
    """The feature map that is asked for."""
    return F.elu(x) + 1


def _by_table(weights: Tensor, value: Tensor) -> Tensor:
    return weights @ value / weights.sum(-1, keepdim=True)


def _steps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    of_query: Map = elu_plus_one,
    of_key: Map = elu_plus_one,
    table: Map = lambda weights: weights,
    average: Callable[[Tensor, Tensor], Tensor] = _by_table,
) -> Tensor:
    """Linear attention in steps: the two feature maps, a change of the table, and how values are averaged by it."""
    return average(table(of_query(query) @ of_key(key).mT), value)


def _both(feature: Map) -> dict[str, Map]:
    return {"of_query": feature, "of_key": feature}


MAP = "The feature map is elu(x) + 1, of queries and of keys."
SUM = "The weights of a query must sum to one: divide by phi(q) . (sum of phi(k) over the keys)."

FEATURE_SLIPS: Slips = {
    "elu alone is negative below zero, and so are such weights. " + MAP: {"elu without the 1": _both(F.elu)},
    MAP + " relu makes rows of zeros.": {"relu as the feature map": _both(F.relu)},
    MAP: {
        "exp as the feature map": _both(torch.exp),
        "softplus as the feature map": _both(F.softplus),
        "queries without the feature map": {"of_query": lambda x: x},
        "keys without the feature map": {"of_key": lambda x: x},
    },
    MAP + " relu + 1 is constant below zero.": {"relu + 1 as the feature map": _both(lambda x: x.relu() + 1)},
    MAP + " There is no factor 1 / sqrt(D).": {
        "divided by sqrt(D) before the feature map": _both(lambda x: elu_plus_one(x / x.shape[-1] ** 0.5)),
        "query divided by sqrt(D) before the feature map": {"of_query": lambda x: elu_plus_one(x / x.shape[-1] ** 0.5)},
    },
    MAP + " A softmax over the features is another map.": {"softmax as the feature map": _both(partial(torch.softmax, dim=-1))},
    MAP + " Raw dot products can be negative.": {"no feature map": _both(lambda x: x)},
}  # fmt: skip

LINEAR_SLIPS: Slips = {
    SUM: {
        "not normalised": {"average": lambda w, v: w @ v},
        "divided by the number of keys": {"average": lambda w, v: w @ v / v.shape[-2]},
    },
    SUM + " Is the sum taken over the queries?": {
        "normalised over the queries": {"average": lambda w, v: w / w.sum(-2, keepdim=True) @ v},
    },
    SUM + " Is it one sum for all queries?": {
        "normalised by the sum over everything": {"average": lambda w, v: w @ v / w.sum((-2, -1), keepdim=True)},
    },
    "Is a small number added to the denominator, or is that clamped? Features are positive.": {
        "a small number in the denominator": [
            *({"average": lambda w, v, add=add: w @ v / (w.sum(-1, keepdim=True) + add)} for add in (1e-6, 1e-8, 1e-12)),
            *({"average": lambda w, v, low=low: w @ v / w.sum(-1, keepdim=True).clamp_min(low)} for low in (1e-6, 1e-8)),
        ],
    },
    "This is ordinary attention. Here the weights are products of features: no softmax over the keys.": {
        "softmax attention": lambda query, key, value: torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, -1) @ value,
    },
    "Do query and key enter the weights?": {
        "mean of the values": lambda query, key, value: value.mean(-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1]),
    },
    "Here every query sees every key.": {"always causal": {"table": torch.tril}},
}  # fmt: skip

LINEAR_ATTENTION = Exercise(
    name="linear_attention",
    assignment="efficient_attention",
    target=Target("linear_attention", OUTPUT, formula),
    positional=("query", "key", "value"),
    situations=Situations(
        draw=draw,
        factors={"lengths": without(LENGTHS, "wide vectors"), "scores": FEATURES, "dtype": DTYPES, "axes": MODULE_AXES},
        axes=SHAPES,
        groups=groups(
            "values averaged by phi(q) . phi(k), phi(x) = elu(x) + 1", 1.5,
            lengths=0.5, scores=0.5, gradient=0.5, dtypes=0.25, calls=0.5,
        ),
        never=(IN_DOUBLE,),
    ),
    recipes=(
        Recipe("long sequences", partial(draw, axes=0, S_q=(200, 230), S_k=(231, 260), D=(3, 4), D_v=(5, 6))),
        Recipe("a batch", partial(draw, axes=2, S_q=(40, 50), S_k=(170, 190), D=(3, 4), D_v=(5, 6))),
    ),
    checks=(
        Check("linear cost", "work and memory grow with the length, not with its square", 1.0, ("long sequences", "a batch"),
              affordable(_flops, _largest, _made), FORMULA),
    ),
    diagnoses={"": (responds(dict.fromkeys(SHAPES, OUTPUT), mixing="value"),)},
    mistakes=slips(_steps, FEATURE_SLIPS, LINEAR_SLIPS, output="output"),
    hints=(
        "phi(q) . phi(k) is a product. (A B) C = A (B C): which two of phi(Q), phi(K)^T and V can be multiplied first, so "
        "that no axis of the result is a length?",
        "phi(K)^T V is (D, D_v), and phi(K) summed over the keys is (D,). A query needs nothing else: its output is phi(q) "
        "times the first, divided by phi(q) times the second.",
        "`phi_k.transpose(-2, -1) @ value` and `phi_k.sum(-2)` once; then `(phi_q @ kv) / (phi_q @ z.unsqueeze(-1))`, with "
        "phi(x) = `nn.functional.elu(x) + 1`.",
    ),
)  # fmt: skip
