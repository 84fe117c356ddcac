"""Exercises on scores: dot, scaled dot, cosine, additive (Bahdanau) and multiplicative (Luong)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from autograder.case import Draw, Recipe, without_root
from autograder.checks import Check, Parameter, Probe, Target, Trial
from autograder.checks.agreement import agrees
from autograder.checks.check import in_turn
from autograder.checks.conduct import dtype_kept, evaluates, inputs_untouched, repeatable
from autograder.checks.gradients import differentiable, every_parameter_learns, works_as_made
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.basic_attention.score_slips import (
    ADDITIVE_SLIPS,
    COSINE_SLIPS,
    DOT_SLIPS,
    MULTIPLICATIVE_SLIPS,
    SCALED_DOT_SLIPS,
)
from autograder.exercises.basic_attention.slip_table import named
from autograder.exercises.exercise import Exercise
from autograder.oracle import Quantity
from autograder.oracle import scores as formulas
from autograder.situations import AXES, DTYPES, LENGTHS, Situations, besides, drawn_by, without
from autograder.situations.space import GRADIENT

__all__ = ["ADDITIVE_SCORES", "COSINE_SCORES", "DOT_SCORES", "MULTIPLICATIVE_SCORES", "SCALED_DOT_SCORES"]

STEM = "basic_attention"
FORMULA = "agrees with the formula"
OUTPUTS = ("scores",)
UNEQUAL = "unequal sizes"
LARGE = "large numbers"
SHAPES = {"query": "... S_q D", "key": "... S_k D"}
OF_MODULES = {"query": "... S_q d_query", "key": "... S_k d_key"}
MANY = (66, 90)
"""Sizes beyond the 64 of the usual block and the usual head."""


def _named(formula: Callable[..., Quantity]) -> Callable[..., Mapping[str, Quantity]]:
    return lambda **inputs: {"scores": formula(**inputs)}


HALVES = {"dtype": ("bfloat16", "float16"), "gradient": GRADIENT}
ROUNDED = ({"numbers": ("large numbers", "small numbers"), **HALVES},)
"""Half precision leaves nothing of a gradient there, in some right writings."""


def _tried() -> Situations:
    """The situations of a score between two batches of vectors."""
    sizes = {"ordinary numbers": {}, "large numbers": {"size": 30.0}, "small numbers": {"size": 1e-2}}
    factors = {
        "lengths": without(LENGTHS, "one tensor for all"),
        "numbers": sizes,
        "dtype": DTYPES,
        "axes": AXES,
    }
    return Situations(
        draw=drawn_by(SHAPES), factors=factors, axes=SHAPES, groups=besides(0.5), never=ROUNDED, after=True
    )


def _tried_module(*widths: str) -> Situations:
    """The same for a module with these widths."""
    wide = {"wide vectors": {"d_query": [131], "d_key": [137], "d_hidden": 5}}
    lengths = {**without(LENGTHS, "one tensor for all", "wide vectors"), **wide}
    sizes = {"ordinary numbers": {}, "large numbers": {"size": 6.0}, "small numbers": {"size": 1e-2}}
    return Situations(
        draw=drawn_by(OF_MODULES, init={name: name for name in widths}),
        factors={"lengths": lengths, "numbers": sizes, "dtype": DTYPES, "axes": AXES},
        axes=OF_MODULES,
        groups=besides(0.5),
        never=ROUNDED,
        module=True,
        after=True,
    )


def _pair(
    *,
    axes: int = 2,
    dtype: torch.dtype = torch.float32,
    square: bool = False,
    size: float = 1.0,
    high: int = 9,
    many: bool = False,
) -> Any:
    """query (..., S_q, D) and key (..., S_k, D), `axes` leading axes; many: long and wide."""

    def draw(draw: Draw) -> dict[str, Any]:
        *lead, S_q, S_k, D = draw.sizes(axes + 3, high=high)
        if dtype == torch.float64:
            D = without_root(D)
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
    Recipe(LARGE, _pair(size=1e5)),
)


def _stand_alone() -> Probe:
    """Each element of the batch stands alone, under any number of leading axes; query and key both matter.

    With two leading axes, one query or one key is tried: its axis stays.
    """
    slices, matter = (
        agrees_with_slices({"query": 2, "key": 2}, OUTPUTS),
        responds({"query": OUTPUTS, "key": OUTPUTS}),
    )

    def probe(trial: Trial) -> None:
        if trial.case.label == UNEQUAL:
            matter(trial)
            for name in ("query", "key"):
                trial(**{name: trial.inputs[name][..., :1, :]})
        else:
            slices(trial)

    return probe


def _checks(agreement: Check) -> tuple[Check, ...]:
    """The agreement check, and what every kind of score must respect besides; eval() matters to modules alone."""
    return (
        agreement,
        Check(
            "leading axes",
            "any number of leading axes, each element stands alone",
            0.5,
            (UNEQUAL, "three leading axes"),
            _stand_alone(),
        ),
        Check(
            "gradient",
            "backward() gives the derivative",
            0.5,
            ("small, float64",),
            differentiable(OUTPUTS),
            FORMULA,
        ),
        Check(
            "dtype",
            "the inputs' dtype is kept, and its precision",
            0.5,
            ("float64", "bfloat16", "float16"),
            dtype_kept(OUTPUTS),
            FORMULA,
        ),
        Check(
            "inputs untouched",
            "query and key are not written to",
            0.25,
            (UNEQUAL,),
            inputs_untouched(),
            FORMULA,
        ),
        Check(
            "layout",
            "strides and earlier calls do not matter",
            0.25,
            (UNEQUAL,),
            in_turn(repeatable(OUTPUTS), evaluates(OUTPUTS)),
            FORMULA,
        ),
    )


DOT_SCORES = Exercise(
    name="dot_scores",
    assignment=STEM,
    target=Target("dot_scores", OUTPUTS, _named(formulas.dot)),
    situations=_tried(),
    positional=("query", "key"),
    recipes=COMMON_RECIPES,
    checks=_checks(
        Check(
            FORMULA,
            "the dot product of every query with every key",
            1.0,
            ("all sizes equal", UNEQUAL, "long and wide", LARGE),
            agrees("scores"),
        )
    ),
    mistakes=named("scores", DOT_SLIPS),
    hints=(
        (
            "All pairs of queries and keys at once: which single operation gives an (S_q, S_k) table from "
            "(S_q, D) and (S_k, D)?"
        ),
        (
            "A matrix product of the query with the transposed key. With leading axes, transpose the last "
            "two axes only; `.T` turns all of them round."
        ),
        ("`key.transpose(-2, -1)` has shape (..., D, S_k). The product `query @ ...` with it is the answer."),
    ),
)

SCALED_DOT_SCORES = Exercise(
    name="scaled_dot_scores",
    assignment=STEM,
    target=Target("scaled_dot_scores", OUTPUTS, _named(formulas.scaled_dot)),
    situations=_tried(),
    positional=("query", "key"),
    recipes=COMMON_RECIPES,
    checks=_checks(
        Check(
            FORMULA,
            "dot products divided by the square root of the width D",
            1.0,
            ("all sizes equal", UNEQUAL, "long and wide", LARGE),
            agrees("scores"),
        )
    ),
    mistakes=named("scores", SCALED_DOT_SLIPS),
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
    inputs: dict[str, Any] = _pair()(draw)
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


def _short_vectors(draw: Draw) -> dict[str, Any]:
    """Vectors of about a millionth, and below the 1e-8 that eps is where it is left out: 3e-9."""
    inputs: dict[str, Any] = _pair(size=1e-6)(draw)
    key = inputs["key"]
    key[..., 0, :] *= 3e-9 / key[..., 0, :].norm(dim=-1, keepdim=True)
    return inputs


COSINE_SCORES = Exercise(
    name="cosine_scores",
    assignment=STEM,
    target=Target("cosine_scores", OUTPUTS, _named(formulas.cosine)),
    situations=_tried(),
    positional=("query", "key"),
    recipes=(
        *COMMON_RECIPES,
        Recipe("zero vectors", _zero_vectors),
        Recipe("zero vectors, eps of 1e-6", _zero_vectors_and_eps),
        Recipe("eps of 0.25", _large_eps),
        Recipe("long queries", _pair(size=1e3)),
        Recipe("short vectors, eps left out", _short_vectors),
    ),
    checks=(
        *_checks(
            Check(
                FORMULA,
                "the cosine between every query and every key",
                0.5,
                ("all sizes equal", UNEQUAL, "long and wide", "long queries"),
                agrees("scores"),
            )
        ),
        Check(
            "eps",
            "a norm below eps counts as eps: a zero vector scores zero",
            1.0,
            ("zero vectors", "eps of 0.25", "zero vectors, eps of 1e-6", "short vectors, eps left out"),
            agrees("scores"),
            FORMULA,
        ),
    ),
    mistakes=named("scores", COSINE_SLIPS),
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
    *,
    axes: int = 2,
    dtype: torch.dtype = torch.float32,
    hidden: bool = True,
    high: int = 9,
    square: bool = False,
    many: bool = False,
    alike: bool = False,
    size: float = 1.0,
) -> Any:
    """query (..., S_q, d_query) and key (..., S_k, d_key), and the constructor's widths; many: long and wide.

    square makes the lengths and one width equal. The widths differ all the same: where those of one weight are equal, a
    bare nn.Parameter does not show which way round it is held. alike: d_key = d_query, which no weight has both of.
    """

    def draw(draw: Draw) -> dict[str, Any]:
        *lead, S_q, S_k, d_query, d_key, d_hidden = draw.sizes(axes + 5, high=high)
        if square:
            S_q = S_k = d_hidden if hidden else d_key
        if alike:
            d_key = d_query
        if many:
            lead, (S_q, S_k, d_query, d_key) = [2, 3], draw.sizes(4, *MANY)
        query, key = (
            draw.normal(*lead, S_q, d_query, dtype=dtype) * size,
            draw.normal(*lead, S_k, d_key, dtype=dtype) * size,
        )
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
        Recipe(LARGE, _widths(hidden=hidden, size=1e3)),
        *([Recipe("equal widths", _widths(alike=True))] if hidden else []),
    )


LEARNS = Check(
    "parameters",
    "every parameter is used and learns",
    0.5,
    (UNEQUAL,),
    in_turn(every_parameter_learns("scores"), works_as_made("scores")),
    FORMULA,
)


ADDITIVE_SCORES = Exercise(
    name="AdditiveScores",
    assignment=STEM,
    target=Target("AdditiveScores", OUTPUTS, _named(formulas.additive)),
    situations=_tried_module("d_query", "d_key", "d_hidden"),
    positional=("query", "key"),
    parameters=(
        Parameter("W_q", ("d_hidden", "d_query")),
        Parameter("W_k", ("d_hidden", "d_key")),
        Parameter("v", ("d_hidden",)),
    ),
    recipes=_module_recipes(hidden=True),
    checks=(
        *_checks(
            Check(
                FORMULA,
                "v . tanh(W_q q + W_k k) for every query and key",
                2.0,
                ("equal lengths", UNEQUAL, "long and wide", LARGE, "equal widths"),
                agrees("scores"),
            )
        ),
        LEARNS,
    ),
    mistakes=named("scores", ADDITIVE_SLIPS),
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
    situations=_tried_module("d_query", "d_key"),
    positional=("query", "key"),
    parameters=(Parameter("W", ("d_query", "d_key"), linear=False),),
    recipes=_module_recipes(hidden=False),
    checks=(
        *_checks(
            Check(
                FORMULA,
                "q W k for every query and key",
                1.5,
                ("equal lengths", UNEQUAL, "long and wide", LARGE),
                agrees("scores"),
            )
        ),
        LEARNS,
    ),
    mistakes=named("scores", MULTIPLICATIVE_SLIPS),
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
