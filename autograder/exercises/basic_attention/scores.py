"""Exercises on scores: dot, scaled dot, cosine, additive (Bahdanau) and multiplicative (Luong)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autograder.case import Draw, Recipe
from autograder.checks import Check, Parameter, Probe, Target, Trial
from autograder.checks.agreement import agrees
from autograder.checks.conduct import dtype_kept, inputs_untouched, repeatable
from autograder.checks.gradients import differentiable, every_parameter_learns
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle import Quantity
from autograder.oracle import scores as formulas

__all__ = ["ADDITIVE_SCORES", "COSINE_SCORES", "DOT_SCORES", "MULTIPLICATIVE_SCORES", "SCALED_DOT_SCORES"]

STEM = "basic_attention"
FORMULA = "agrees with the formula"
OUTPUTS = ("scores",)
UNEQUAL = "unequal sizes"
MANY = (66, 90)
"""Sizes beyond the 64 of the usual block and the usual head."""


def _named(formula: Callable[..., Quantity]) -> Callable[..., Mapping[str, Quantity]]:
    return lambda **inputs: {"scores": formula(**inputs)}


def _pair(
    *, axes: int = 2, dtype: torch.dtype = torch.float32, square: bool = False, size: float = 1.0, high: int = 9, many: bool = False
) -> Any:
    """query (..., S_q, D) and key (..., S_k, D), `axes` leading axes; many: long and wide."""

    def draw(draw: Draw) -> dict[str, Any]:
        *lead, S_q, S_k, D = draw.sizes(axes + 3, high=high)
        if square:
            S_q = S_k = D
        if many:
            lead, (S_q, S_k, D) = [2, 3], draw.sizes(3, *MANY)
        query, key = draw.normal(*lead, S_q, D, dtype=dtype), draw.normal(*lead, S_k, D, dtype=dtype)
        return {"query": query * size, "key": key}

    return draw


COMMON_RECIPES = (
    Recipe(UNEQUAL, _pair()),
    Recipe("all sizes equal", _pair(square=True)),
    Recipe("three leading axes", _pair(axes=3)),
    Recipe("small, float64", _pair(dtype=torch.float64, high=6)),
    Recipe("float64", _pair(dtype=torch.float64)),
    Recipe("bfloat16", _pair(dtype=torch.bfloat16)),
    Recipe("float16", _pair(dtype=torch.float16)),
    Recipe("long and wide", _pair(many=True)),
)


def _stand_alone() -> Probe:
    """Each element of the batch stands alone, under any number of leading axes; query and key both matter.

    With two leading axes, one query or one key is tried: its axis stays.
    """
    slices, matter = agrees_with_slices({"query": 2, "key": 2}, OUTPUTS), responds({"query": OUTPUTS, "key": OUTPUTS})

    def probe(trial: Trial) -> None:
        if trial.case.label == UNEQUAL:
            matter(trial)
            for name in ("query", "key"):
                trial(**{name: trial.inputs[name][..., :1, :]})
        else:
            slices(trial)

    return probe


def _checks(agreement: Check) -> tuple[Check, ...]:
    """The agreement check, and what every kind of score must respect besides."""
    return (
        agreement,
        Check("leading axes", "any number of leading axes, each element stands alone", 0.5,
              (UNEQUAL, "three leading axes"), _stand_alone()),
        Check("gradient", "backward() gives the derivative", 0.5, ("small, float64",), differentiable(OUTPUTS), FORMULA),
        Check("dtype", "the inputs' dtype is kept, and its precision", 0.5, ("float64", "bfloat16", "float16"),
              dtype_kept(OUTPUTS), FORMULA),
        Check("inputs untouched", "query and key are not written to", 0.25, (UNEQUAL,), inputs_untouched(), FORMULA),
        Check("layout", "strides and earlier calls do not matter", 0.25, (UNEQUAL,), repeatable(OUTPUTS), FORMULA),
    )


def _result(formula: Callable[..., Tensor]) -> Callable[..., Mapping[str, Tensor]]:
    return lambda **inputs: {"scores": formula(**inputs)}


def _dots(query: Tensor, key: Tensor, **_: Any) -> Tensor:
    return query @ key.mT


def _scaled(query: Tensor, key: Tensor) -> Tensor:
    return _dots(query, key) / math.sqrt(query.shape[-1])


def _cosine(query: Tensor, key: Tensor, eps: float = 1e-8) -> Tensor:
    return formulas.cosine(query, key, eps).value


def _distance(query: Tensor, key: Tensor, **_: Any) -> Tensor:
    return -torch.cdist(query, key)


NOT_TRANSPOSED = Mistake(
    "keys not transposed", "Matrix multiplication pairs the last axis of one with the last but one of the other. "
    "Should it be key.transpose(-2, -1)?", _result(lambda query, key, **_: query @ key))
ALL_REVERSED = Mistake(
    "all axes of the keys reversed", "Does .T turn the batch axes round as well? Only the last two should swap.",
    _result(lambda query, key, **_: query @ key.permute(*reversed(range(key.dim())))))
ELEMENTWISE = Mistake(
    "elementwise product where a matrix product is meant", "Is it * where @ is meant?",
    _result(lambda query, key, **_: query * key))
ELEMENTWISE_TRANSPOSED = Mistake(
    "elementwise product where a matrix product is meant", "Is it * where @ is meant?",
    _result(lambda query, key, **_: query * key.mT))
NORMALISED = Mistake(
    "softmax applied to the scores", "Scores are what goes into the softmax. Is it applied here already?",
    _result(lambda query, key, **_: _dots(query, key).softmax(-1)))
NORMALISED_SCALED = Mistake(
    "softmax applied to the scores", "Scores are what goes into the softmax. Is it applied here already?",
    _result(lambda query, key, **_: (_dots(query, key) / math.sqrt(query.shape[-1])).softmax(-1)))
ROLES = Mistake(
    "query and key exchanged", "Rows belong to queries, columns to keys. Which comes first in the product?",
    _result(lambda query, key, **_: key @ query.mT))
DISTANCE = Mistake("negative distance", "Is it the product that is asked for, not the distance?", _result(_distance))
DISTANCE_SQUARED = Mistake(
    "negative distance", "Is it the product that is asked for, not the distance?",
    _result(lambda query, key, **_: -_distance(query, key).square()))
OPPOSITE = "Does a key that points along the query score lowest? Is there a minus sign too many?"
SIGNLESS = "Does a key that points away from the query score as high as one that points along it?"
SUM = Mistake(
    "sum of both in place of their product", "Should query and key be multiplied, before the sum over the width?",
    _result(lambda query, key, **_: (query.unsqueeze(-2) + key.unsqueeze(-3)).sum(-1)))
SAME_POSITION = Mistake(
    "position i paired with position i", "Should every query meet every key, for a table of (S_q, S_k)?",
    _result(lambda query, key, **_: (query * key).sum(-1)))
QUERIES_TWICE = Mistake(
    "queries scored against queries", "Where do the keys enter?", _result(lambda query, key, **_: query @ query.mT))
RETURNED = Mistake("query returned unchanged", "Where is the score computed?", _result(lambda query, key, **_: query))
SHAPE_SLIPS = (
    NOT_TRANSPOSED, ALL_REVERSED, ELEMENTWISE, ELEMENTWISE_TRANSPOSED, ROLES, SAME_POSITION, QUERIES_TWICE, RETURNED
)

DOT_SCORES = Exercise(
    name="dot_scores",
    assignment=STEM,
    target=Target("dot_scores", OUTPUTS, _named(formulas.dot)),
    positional=("query", "key"),
    recipes=COMMON_RECIPES,
    checks=_checks(Check(FORMULA, "the dot product of every query with every key", 1.0,
                         ("all sizes equal", UNEQUAL, "long and wide"), agrees("scores"))),
    mistakes=(
        Mistake("divided by sqrt(D)", "Scaling is the next exercise. Is it done here already?",
                _result(lambda query, key: _dots(query, key) / math.sqrt(query.shape[-1]))),
        Mistake("divided by D", "Is it a mean where a sum is meant?",
                _result(lambda query, key: _dots(query, key) / query.shape[-1])),
        Mistake("cosine where the dot product is meant", "Are the vectors normalised? Their length should count here.",
                _result(_cosine)),
        *SHAPE_SLIPS, NORMALISED, DISTANCE, DISTANCE_SQUARED, SUM,
        Mistake("absolute values", SIGNLESS, _result(lambda query, key: _dots(query, key).abs())),
        Mistake("sign turned round", OPPOSITE, _result(lambda query, key: -_dots(query, key))),
    ),
    hints=(
        (
            "All pairs of queries and keys at once: which single operation gives an (S_q, S_k) table from "
            "(S_q, D) and (S_k, D)?"
        ),
        (
            "A matrix product of the query with the transposed key. With leading axes, transpose the last "
            "two axes only; `.T` turns all of them round."
        ),
        (
            "`key.transpose(-2, -1)` has shape (..., D, S_k). The product `query @ ...` with it is the "
            "answer."
        ),
    ),
)

SCALED_DOT_SCORES = Exercise(
    name="scaled_dot_scores",
    assignment=STEM,
    target=Target("scaled_dot_scores", OUTPUTS, _named(formulas.scaled_dot)),
    positional=("query", "key"),
    recipes=COMMON_RECIPES,
    checks=_checks(Check(FORMULA, "dot products divided by the square root of the width D", 1.0,
                         ("all sizes equal", UNEQUAL, "long and wide"), agrees("scores"))),
    mistakes=(
        Mistake("not scaled", "Is the division by sqrt(D) missing?", _result(_dots)),
        Mistake("multiplied by sqrt(D)", "Should the variance shrink or grow?",
                _result(lambda query, key: _dots(query, key) * math.sqrt(query.shape[-1]))),
        Mistake("divided by D", "The variance of a sum of D products is D. What is its standard deviation?",
                _result(lambda query, key: _dots(query, key) / query.shape[-1])),
        Mistake("divided by sqrt(S_k)", "Which axis is the width: the last, or the last but one?",
                _result(lambda query, key: _dots(query, key) / math.sqrt(key.shape[-2]))),
        Mistake("divided by sqrt(S_q)", "Which axis is the width: the last, or the last but one?",
                _result(lambda query, key: _dots(query, key) / math.sqrt(query.shape[-2]))),
        Mistake("divided by the fourth root of D", "Is the square root taken twice, or only one of the factors scaled?",
                _result(lambda query, key: _dots(query, key) / query.shape[-1] ** 0.25)),
        Mistake("cosine where the scaled dot product is meant", "Is it divided by the norms in place of sqrt(D)?",
                _result(_cosine)),
        Mistake("divided by the size of another axis", "Which axis is the width? Count from the end: shape[-1].",
                _result(lambda query, key: _dots(query, key) / math.sqrt(query.shape[1]))),
        Mistake("divided by the size of another axis", "Which axis is the width? Count from the end: shape[-1].",
                _result(lambda query, key: _dots(query, key) / math.sqrt(query.shape[0]))),
        Mistake("divided by sqrt(64)", "Is the width written down as a number? It differs from call to call.",
                _result(lambda query, key: _dots(query, key) / 8)),
        Mistake("divided by the standard deviation", "Is the scale taken from the scores? It depends on D alone.",
                _result(lambda query, key: _dots(query, key) / _dots(query, key).std())),
        Mistake("root of the scores", "What stands under the root: D alone?",
                _result(lambda query, key: (_dots(query, key) / query.shape[-1]).sqrt().nan_to_num(0.0))),
        *SHAPE_SLIPS, NORMALISED, NORMALISED_SCALED, DISTANCE, DISTANCE_SQUARED, SUM,
        Mistake("absolute values", SIGNLESS, _result(lambda query, key: _scaled(query, key).abs())),
        Mistake("sign turned round", OPPOSITE, _result(lambda query, key: -_scaled(query, key))),
    ),
    hints=(
        (
            "Begin with the dot scores. By which number do you divide, so that the variance is 1 for "
            "every width?"
        ),
        (
            "By the square root of D, where D is the width of one query: the size of its last axis, not "
            "the number of keys and not D itself."
        ),
        "`math.sqrt(query.shape[-1])` is the divisor of the same matrix product as in `dot_scores`.",
    ),
)


def _zero_vectors(draw: Draw) -> dict[str, Any]:
    inputs = _pair()(draw)
    inputs["query"][..., 0, :] = 0.0
    inputs["key"][..., -1, :] = 0.0
    return inputs


def _zero_vectors_and_eps(draw: Draw) -> dict[str, Any]:
    return {**_zero_vectors(draw), "eps": 1e-6}


def _large_eps(draw: Draw) -> dict[str, Any]:
    inputs = _pair()(draw)
    inputs["query"][..., 0, :] *= 1e-3
    inputs["key"][..., -1, :] *= 1e-3
    return {**inputs, "eps": 0.25}


def _norm(values: Tensor, **options: Any) -> Tensor:
    return torch.linalg.vector_norm(values, dim=-1, keepdim=True, **options)


COSINE_SCORES = Exercise(
    name="cosine_scores",
    assignment=STEM,
    target=Target("cosine_scores", OUTPUTS, _named(formulas.cosine)),
    positional=("query", "key"),
    recipes=(
        *COMMON_RECIPES,
        Recipe("zero vectors", _zero_vectors),
        Recipe("zero vectors, eps of 1e-6", _zero_vectors_and_eps),
        Recipe("eps of 0.25", _large_eps),
        Recipe("long queries", _pair(size=1e3)),
    ),
    checks=(
        *_checks(Check(FORMULA, "the cosine between every query and every key", 1.0,
                       ("all sizes equal", UNEQUAL, "long and wide", "long queries"), agrees("scores"))),
        Check("eps", "a norm below eps counts as eps: a zero vector scores zero", 1.0,
              ("zero vectors", "eps of 0.25", "zero vectors, eps of 1e-6"), agrees("scores"), FORMULA),
    ),
    mistakes=(
        Mistake("not normalised", "Where are the norms divided out?", _result(_dots)),
        Mistake("divided by sqrt(D)", "Is it divided by the norms of the vectors, or by sqrt(D)?",
                _result(lambda query, key, eps=1e-8: _dots(query, key) / math.sqrt(query.shape[-1]))),
        Mistake("only the queries normalised", "Do long keys still win?",
                _result(lambda query, key, eps=1e-8: _dots(query / _norm(query).clamp_min(eps), key))),
        Mistake("only the keys normalised", "Do long queries still give large scores?",
                _result(lambda query, key, eps=1e-8: _dots(query, key / _norm(key).clamp_min(eps)))),
        Mistake("squared norms", "Is the square root missing from the norm?",
                _result(lambda query, key, eps=1e-8: _dots(query / query.square().sum(-1, keepdim=True).clamp_min(eps),
                                                           key / key.square().sum(-1, keepdim=True).clamp_min(eps)))),
        Mistake("norm of the sum of absolute values", "Which norm makes a cosine: the one of squares, ord=2?",
                _result(lambda query, key, eps=1e-8: _dots(query / _norm(query, ord=1).clamp_min(eps),
                                                           key / _norm(key, ord=1).clamp_min(eps)))),
        Mistake("norm along the wrong axis", "Is the norm taken over the width (the last axis), with keepdim=True?",
                _result(lambda query, key, eps=1e-8: _dots(query / query.norm(dim=-2, keepdim=True).clamp_min(eps),
                                                           key / key.norm(dim=-2, keepdim=True).clamp_min(eps)))),
        Mistake("one norm for the whole tensor", "Has each vector a norm of its own?",
                _result(lambda query, key, eps=1e-8: _dots(query / query.norm().clamp_min(eps), key / key.norm().clamp_min(eps)))),
        Mistake("nan for a zero vector", "What is 0 / 0? eps should keep the norm away from zero.",
                _result(lambda query, key, eps=1e-8: _dots(query / _norm(query), key / _norm(key)))),
        Mistake("eps fixed at 1e-8", "Is the argument eps used?",
                _result(lambda query, key, eps=1e-8: _cosine(query, key))),
        Mistake("eps added, not a floor", "Adding eps changes every score a little. Should the norm be max(norm, eps)?",
                _result(lambda query, key, eps=1e-8: _dots(query / (_norm(query) + eps), key / (_norm(key) + eps)))),
        Mistake("eps under the product of the norms", "Should each norm have its own floor?",
                _result(lambda query, key, eps=1e-8: _dots(query, key) / (_norm(query) * _norm(key).mT).clamp_min(eps))),
        Mistake("eps under the product of the norms", "Should each norm have its own floor?",
                _result(lambda query, key, eps=1e-8: _dots(query, key) / (_norm(query) * _norm(key).mT + eps))),
        Mistake("cosine distance", "Should equal directions score 1, not 0?",
                _result(lambda query, key, eps=1e-8: 1 - _cosine(query, key, eps))),
        Mistake("norm along the second axis", "F.normalize takes axis 1 if none is given. Is it dim=-1 here?",
                _result(lambda query, key, eps=1e-8: _dots(query / query.norm(dim=1, keepdim=True).clamp_min(eps),
                                                           key / key.norm(dim=1, keepdim=True).clamp_min(eps)))),
        Mistake("eps under the root", "Should the norm be at least eps, not its square?",
                _result(lambda query, key, eps=1e-8: _dots(query / _norm(query).square().clamp_min(eps).sqrt(),
                                                           key / _norm(key).square().clamp_min(eps).sqrt()))),
        Mistake("eps under the root", "Should the norm be at least eps, not its square plus something?",
                _result(lambda query, key, eps=1e-8: _dots(query / (_norm(query).square() + eps).sqrt(),
                                                           key / (_norm(key).square() + eps).sqrt()))),
        Mistake("short vectors score zero", "Should a short vector be divided by eps, not dropped?",
                _result(lambda query, key, eps=1e-8: _cosine(query, key, eps)
                        * (_norm(query) >= eps) * (_norm(key) >= eps).mT)),
        Mistake("centred first", "Is the mean subtracted? That makes a correlation.",
                _result(lambda query, key, eps=1e-8: _cosine(query - query.mean(-1, keepdim=True),
                                                             key - key.mean(-1, keepdim=True), eps))),
        Mistake("angle in place of its cosine", "Should the angle grow, or the score, when vectors come closer?",
                _result(lambda query, key, eps=1e-8: _cosine(query, key, eps).clamp(-1, 1).acos())),
        Mistake("brought to [0, 1]", "Should opposite directions score -1?",
                _result(lambda query, key, eps=1e-8: (_cosine(query, key, eps) + 1) / 2)),
        Mistake("softmax applied to the scores", "Scores are what goes into the softmax. Is it applied here already?",
                _result(lambda query, key, eps=1e-8: _cosine(query, key, eps).softmax(-1))),
        Mistake("sign turned round", OPPOSITE, _result(lambda query, key, eps=1e-8: -_cosine(query, key, eps))),
        *SHAPE_SLIPS, DISTANCE, DISTANCE_SQUARED,
        Mistake("absolute values", "Opposite directions score -1. Is the sign lost?",
                _result(lambda query, key, eps=1e-8: _cosine(query, key, eps).abs())),
    ),
    hints=(
        (
            "If both vectors had length 1, their dot product would be the cosine. How do you give a "
            "vector length 1?"
        ),
        (
            "Divide query and key by their own norm along the last axis, keeping that axis. Raise each "
            "norm to at least `eps` first, so that a zero vector is not divided by zero."
        ),
        (
            "`query / query.norm(dim=-1, keepdim=True).clamp_min(eps)` has length 1. Do the same with the "
            "key, then take all dot products."
        ),
    ),
)


def _widths(
    *, axes: int = 2, dtype: torch.dtype = torch.float32, hidden: bool = True, high: int = 9, square: bool = False, many: bool = False
) -> Any:
    """query (..., S_q, d_query) and key (..., S_k, d_key), and the constructor's widths; many: long and wide.

    square makes the lengths and one width equal. The widths differ all the same: where they are equal, a bare
    nn.Parameter does not show which way round it is held.
    """

    def draw(draw: Draw) -> dict[str, Any]:
        *lead, S_q, S_k, d_query, d_key, d_hidden = draw.sizes(axes + 5, high=high)
        if square:
            S_q = S_k = d_hidden if hidden else d_key
        if many:
            lead, (S_q, S_k, d_query, d_key) = [2, 3], draw.sizes(4, *MANY)
        query, key = draw.normal(*lead, S_q, d_query, dtype=dtype), draw.normal(*lead, S_k, d_key, dtype=dtype)
        init = {"d_query": d_query, "d_key": d_key} | ({"d_hidden": d_hidden} if hidden else {})
        return {"init": init, "query": query, "key": key}

    return draw


def _module_recipes(hidden: bool) -> tuple[Recipe, ...]:
    return (
        Recipe(UNEQUAL, _widths(hidden=hidden)),
        Recipe("equal lengths", _widths(hidden=hidden, square=True)),
        Recipe("three leading axes", _widths(axes=3, hidden=hidden, high=10)),
        Recipe("small, float64", _widths(dtype=torch.float64, hidden=hidden, high=8)),
        Recipe("float64", _widths(dtype=torch.float64, hidden=hidden)),
        Recipe("bfloat16", _widths(dtype=torch.bfloat16, hidden=hidden)),
        Recipe("float16", _widths(dtype=torch.float16, hidden=hidden)),
        Recipe("long and wide", _widths(hidden=hidden, many=True)),
    )


LEARNS = Check("parameters", "every parameter is used and learns", 0.5, (UNEQUAL,),
               every_parameter_learns("scores"), FORMULA)


def _inside(query: Tensor, key: Tensor, W_q: Tensor, W_k: Tensor) -> Tensor:
    return (query @ W_q.mT).unsqueeze(-2) + (key @ W_k.mT).unsqueeze(-3)


ADDITIVE_SCORES = Exercise(
    name="AdditiveScores",
    assignment=STEM,
    target=Target("AdditiveScores", OUTPUTS, _named(formulas.additive)),
    positional=("query", "key"),
    parameters=(
        Parameter("W_q", ("d_hidden", "d_query")),
        Parameter("W_k", ("d_hidden", "d_key")),
        Parameter("v", ("d_hidden",)),
    ),
    recipes=_module_recipes(hidden=True),
    checks=(
        *_checks(Check(FORMULA, "v . tanh(W_q q + W_k k) for every query and key", 2.0,
                       ("equal lengths", UNEQUAL, "long and wide"), agrees("scores"))),
        LEARNS,
    ),
    mistakes=(
        Mistake("no tanh", "Without the nonlinearity a query shifts all its scores alike, and the softmax undoes that. Is tanh missing?",
                _result(lambda query, key, W_q, W_k, v: _inside(query, key, W_q, W_k) @ v)),
        Mistake("tanh of the score", "Is tanh applied before the product with v?",
                _result(lambda query, key, W_q, W_k, v: torch.tanh(_inside(query, key, W_q, W_k) @ v))),
        Mistake("tanh twice", "Is tanh applied once inside and once more to the score?",
                _result(lambda query, key, W_q, W_k, v: torch.tanh(torch.tanh(_inside(query, key, W_q, W_k)) @ v))),
        Mistake("tanh of each projection", "Should the two projections be added before the tanh?",
                _result(lambda query, key, W_q, W_k, v: (torch.tanh(query @ W_q.mT).unsqueeze(-2) + torch.tanh(key @ W_k.mT).unsqueeze(-3)) @ v)),
        Mistake("product of the projections", "Should the two projections be added, not multiplied?",
                _result(lambda query, key, W_q, W_k, v: torch.tanh((query @ W_q.mT).unsqueeze(-2) * (key @ W_k.mT).unsqueeze(-3)) @ v)),
        Mistake("difference of the projections", "Is it a plus between the two projections?",
                _result(lambda query, key, W_q, W_k, v: torch.tanh((query @ W_q.mT).unsqueeze(-2) - (key @ W_k.mT).unsqueeze(-3)) @ v)),
        Mistake("sigmoid in place of tanh", "Which nonlinearity does the formula name?",
                _result(lambda query, key, W_q, W_k, v: torch.sigmoid(_inside(query, key, W_q, W_k)) @ v)),
        Mistake("relu in place of tanh", "Which nonlinearity does the formula name?",
                _result(lambda query, key, W_q, W_k, v: torch.relu(_inside(query, key, W_q, W_k)) @ v)),
        Mistake("gelu in place of tanh", "Which nonlinearity does the formula name?",
                _result(lambda query, key, W_q, W_k, v: nn.functional.gelu(_inside(query, key, W_q, W_k)) @ v)),
        Mistake("query and key exchanged", "Rows belong to queries, columns to keys. Which of the two gets unsqueeze(-2)?",
                _result(lambda query, key, W_q, W_k, v: (torch.tanh(_inside(query, key, W_q, W_k)) @ v).mT)),
        Mistake("v never applied", "Are the hidden values summed without their weights v?",
                _result(lambda query, key, W_q, W_k, v: torch.tanh(_inside(query, key, W_q, W_k)).sum(-1))),
        Mistake("v never applied", "Are the hidden values averaged without their weights v?",
                _result(lambda query, key, W_q, W_k, v: torch.tanh(_inside(query, key, W_q, W_k)).mean(-1))),
        Mistake("scaled by sqrt(d_hidden)", "Does the formula scale additive scores?",
                _result(lambda query, key, W_q, W_k, v: torch.tanh(_inside(query, key, W_q, W_k)) @ v / math.sqrt(W_q.shape[0]))),
        Mistake("softmax applied to the scores", "Scores are what goes into the softmax. Is it applied here already?",
                _result(lambda query, key, W_q, W_k, v: (torch.tanh(_inside(query, key, W_q, W_k)) @ v).softmax(-1))),
        Mistake("keys left out", "Where does W_k k enter?",
                _result(lambda query, key, W_q, W_k, v: (torch.tanh(query @ W_q.mT) @ v).unsqueeze(-1).expand(*query.shape[:-1], key.shape[-2]))),
        Mistake("queries left out", "Where does W_q q enter?",
                _result(lambda query, key, W_q, W_k, v: (torch.tanh(key @ W_k.mT) @ v).unsqueeze(-2).expand(*query.shape[:-1], key.shape[-2]))),
        Mistake("dot product of the projections", "This is the multiplicative score. Should the projections be added and go through tanh?",
                _result(lambda query, key, W_q, W_k, v: (query @ W_q.mT) @ (key @ W_k.mT).mT)),
        Mistake("position i paired with position i", "Does every query meet every key? Try unsqueeze(-2) and unsqueeze(-3).",
                _result(lambda query, key, W_q, W_k, v: torch.tanh(query @ W_q.mT + key @ W_k.mT) @ v)),
    ),
    hints=(
        (
            "Every query has to meet every key before the tanh. Which axes must you insert so that adding "
            "projected queries and projected keys makes a table of pairs?"
        ),
        (
            "Give the projected query the shape (..., S_q, 1, d_hidden) and the projected key (..., 1, "
            "S_k, d_hidden); their sum broadcasts to (..., S_q, S_k, d_hidden). Then tanh, then `v`."
        ),
        (
            "`self.W_q(query).unsqueeze(-2) + self.W_k(key).unsqueeze(-3)` goes through `torch.tanh`, "
            "then through `self.v`. Its last axis of size 1 must go: `.squeeze(-1)`."
        ),
    ),
)

MULTIPLICATIVE_SCORES = Exercise(
    name="MultiplicativeScores",
    assignment=STEM,
    target=Target("MultiplicativeScores", OUTPUTS, _named(formulas.multiplicative)),
    positional=("query", "key"),
    parameters=(Parameter("W", ("d_query", "d_key"), linear=False),),
    recipes=_module_recipes(hidden=False),
    checks=(
        *_checks(Check(FORMULA, "q W k for every query and key", 1.5,
                       ("equal lengths", UNEQUAL, "long and wide"), agrees("scores"))),
        LEARNS,
    ),
    mistakes=(
        Mistake("W transposed", "W has shape (d_query, d_key). Which side does the query multiply?",
                _result(lambda query, key, W: query @ W.mT @ key.mT)),
        Mistake("W never applied", "Is W used in forward?", _result(lambda query, key, W: query @ key.mT)),
        Mistake("scaled by sqrt(d_key)", "Does the formula scale multiplicative scores?",
                _result(lambda query, key, W: query @ W @ key.mT / math.sqrt(key.shape[-1]))),
        Mistake("scaled by sqrt(d_query)", "Does the formula scale multiplicative scores?",
                _result(lambda query, key, W: query @ W @ key.mT / math.sqrt(query.shape[-1]))),
        Mistake("tanh of the score", "tanh belongs to the additive score. Is this one bilinear?",
                _result(lambda query, key, W: torch.tanh(query @ W @ key.mT))),
        Mistake("tanh of the projected query", "tanh belongs to the additive score. Is this one bilinear?",
                _result(lambda query, key, W: torch.tanh(query @ W) @ key.mT)),
        Mistake("softmax applied to the scores", "Scores are what goes into the softmax. Is it applied here already?",
                _result(lambda query, key, W: (query @ W @ key.mT).softmax(-1))),
        Mistake("elementwise product where a matrix product is meant", "Is it * where @ is meant?",
                _result(lambda query, key, W: (query @ W) * key)),
        Mistake("position i paired with position i", "Should every query meet every key, for a table of (S_q, S_k)?",
                _result(lambda query, key, W: ((query @ W) * key).sum(-1))),
        Mistake("sum of both in place of their product", "Should the projected query be multiplied with the key?",
                _result(lambda query, key, W: ((query @ W).unsqueeze(-2) + key.unsqueeze(-3)).sum(-1))),
        Mistake("sign turned round", OPPOSITE, _result(lambda query, key, W: -(query @ W @ key.mT))),
        Mistake("keys not transposed", "Should it be key.transpose(-2, -1)?", _result(lambda query, key, W: query @ W @ key)),
        Mistake("all axes of the keys reversed", "Does .T turn the batch axes round as well?",
                _result(lambda query, key, W: query @ W @ key.permute(*reversed(range(key.dim()))))),
        Mistake("query and key exchanged", "Rows belong to queries, columns to keys.",
                _result(lambda query, key, W: (query @ W @ key.mT).mT)),
        Mistake("absolute values", "Is the sign of the score lost?", _result(lambda query, key, W: (query @ W @ key.mT).abs())),
        Mistake("projected vectors normalised", "Is it a cosine where a product is meant?",
                _result(lambda query, key, W: _cosine(query @ W, key))),
    ),
    hints=(
        (
            "q W k is two products in a row. Which shape must W have, so that a query of width d_query "
            "can meet a key of width d_key?"
        ),
        (
            "W is `nn.Parameter` of shape (d_query, d_key), with random start values. `query @ W` has the "
            "key's width; then it is the dot product you know."
        ),
        (
            "`query @ self.W` has shape (..., S_q, d_key). Multiply it by `key.transpose(-2, -1)`; "
            "nothing else is needed, no scale and no elementwise product."
        ),
    ),
)
