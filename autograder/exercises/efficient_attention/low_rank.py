"""Exercise `low_rank_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.conduct import FUSED, affordable, obeys
from autograder.checks.customary import COUNTS, FORMULA, conduct
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.basic_attention.variants import attend
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.shared_attention.variants import chosen
from autograder.oracle.compressed import low_rank_attention as formula

__all__ = ["LOW_RANK_ATTENTION"]

OUTPUT = ("output",)
ARGUMENTS = ("query", "key", "value", "E", "F")


def _inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    lengths: str = "",
    high: int = 9,
) -> dict[str, Any]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v), E and F (k, S_k), all sizes different, k < S_k.

    lengths: "square" for S_k = D = D_v = k, "long" for 400 to 450 keys and queries and a small k, "one" for k = 1.
    """
    *lead, S_q, S_k, D, D_v, k = draw.sizes(axes + 5, 2, high)
    S_k, k = max(S_k, k), min(S_k, k)
    if lengths == "square":
        S_k = D = D_v = k
    elif lengths == "long":
        S_q, S_k = draw.sizes(2, 400, 450)
        k = draw.integer(2, 4)
    elif lengths == "one":
        k = 1
    E, F = (draw.normal(k, S_k, dtype=torch.float64) / S_k**0.5 for _ in range(2))
    return {
        "query": draw.normal(*lead, S_q, D, dtype=dtype) * size,
        "key": draw.normal(*lead, S_k, D, dtype=dtype) * size,
        "value": draw.normal(*lead, S_k, D_v, dtype=dtype),
        "E": E.to(dtype),
        "F": F.to(dtype),
    }


def _misfit(draw: Draw, *, names: tuple[str, ...], longer: bool = True, keys: int = 1) -> dict[str, Any]:
    """E, F or both for one key too many, or with one row less. keys: -1 for one key too few."""
    inputs = _inputs(draw, axes=0)
    if keys < 0:
        return inputs | {name: inputs[name][:, :keys] for name in names}
    for name in names:
        held = inputs[name]
        inputs[name] = torch.cat([held, held[:, :1]], -1) if longer else held[:-1]
    return inputs


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("all sizes equal", lengths="square"),
    _recipe("large scores", size=2.5),
    _recipe("one mixture", lengths="one"),
    _recipe("two leading axes", axes=2),
    _recipe("huge scores", size=60.0),
    _recipe("small, float64", axes=0, dtype=torch.float64, high=7),
    _recipe("float64", dtype=torch.float64),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16),
    _recipe("long sequences", axes=0, lengths="long"),
    Recipe("projections for other lengths", partial(_misfit, names=("E", "F"))),
    Recipe("E and F of unequal ranks", partial(_misfit, names=("F",), longer=False)),
    Recipe("F for another length", partial(_misfit, names=("F",))),
    Recipe("E for another length", partial(_misfit, names=("E",))),
    Recipe("projections for fewer keys", partial(_misfit, names=("E", "F"), keys=-1)),
)


def _sizes(inputs: Mapping[str, Any]) -> tuple[int, int, int, int, int, int]:
    (S_q, D), (S_k, D_v) = inputs["query"].shape[-2:], inputs["value"].shape[-2:]
    return inputs["query"][..., 0, 0].numel(), S_q, S_k, D, D_v, inputs["E"].shape[0]


def _flops(inputs: Mapping[str, Any]) -> int:
    """Four products, twice over."""
    elements, S_q, S_k, D, D_v, k = _sizes(inputs)
    return elements * 4 * k * (S_k + S_q) * (D + D_v)


def _largest(inputs: Mapping[str, Any]) -> int:
    elements, S_q, S_k, D, D_v, k = _sizes(inputs)
    return elements * max(S_q, S_k) * k * max(D, D_v)


def _made(inputs: Mapping[str, Any]) -> int:
    """Four times what multiplying and summing by hand makes; for all pairs it would be several times more."""
    elements, S_q, S_k, D, D_v, k = _sizes(inputs)
    return elements * 4 * k * (S_k + S_q) * (D + D_v + 2)


def _variant(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    E: Tensor,
    F: Tensor,
    *,
    mix: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = lambda k, v, E, F: (
        E @ k,
        F @ v,
    ),
    **knobs: Any,
) -> Mapping[str, Tensor]:
    """mix: key, value, E, F -> the keys and values that are left; the knobs are those of `attend`."""
    return {"output": attend(query, *mix(key, value, E, F), **knobs)["output"]}


def _on_the_features(x: Tensor, mixture: Tensor) -> Tensor:
    """Along the last axis where it fits, else along the length."""
    return x @ mixture.mT if x.shape[-1] == mixture.shape[-1] else mixture @ x


ALONG = "E and F mix positions, (k, S_k) @ (S_k, D): they stand left of the keys and values."
EACH = "E belongs to the keys, F to the values."
MIXES: tuple[tuple[str, str, Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]], ...] = (
    (
        "projected along the features",
        ALONG + " Is the last axis, the width, projected?",
        lambda k, v, E, F: (_on_the_features(k, E), _on_the_features(v, F)),
    ),
    ("E and F exchanged", EACH, lambda k, v, E, F: (F @ k, E @ v)),
    ("E for keys and values", EACH, lambda k, v, E, F: (E @ k, E @ v)),
    ("F for keys and values", EACH, lambda k, v, E, F: (F @ k, F @ v)),
    ("nothing projected", ALONG + " Are they used?", lambda k, v, E, F: (k, v)),
    (
        "first positions instead of mixtures",
        ALONG + " Are keys cut off instead?",
        lambda k, v, E, F: (k[..., : E.shape[0], :], v[..., : E.shape[0], :]),
    ),
    (
        "softmax of the projections",
        "E and F are learned mixtures as they are: is a softmax applied to them?",
        lambda k, v, E, F: (E.softmax(-1) @ k, F.softmax(-1) @ v),
    ),
    (
        "projected twice",
        "E mixes the keys once. Is the result mixed again?",
        lambda k, v, E, F: (E @ (E.mT @ (E @ k)), F @ (F.mT @ (F @ v))),
    ),
)


def _weights_projected(
    query: Tensor, key: Tensor, value: Tensor, E: Tensor, F: Tensor
) -> Mapping[str, Tensor]:
    """softmax(q K^T) over all keys, then E."""
    weights = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, -1)
    return {"output": weights @ E.mT @ (F @ value)}


LOW_RANK_ATTENTION = Exercise(
    name="low_rank_attention",
    assignment="efficient_attention",
    target=Target("low_rank_attention", OUTPUT, formula),
    positional=ARGUMENTS,
    recipes=RECIPES,
    checks=(
        Check(
            COUNTS,
            "the output changes with each argument, also with a value at another position",
            0.5,
            ("unequal sizes",),
            responds({name: OUTPUT for name in ARGUMENTS}, mixing="value"),
        ),
        Check(
            FORMULA,
            "softmax(q (E K)^T / sqrt(D)) (F V)",
            1.5,
            ("unequal sizes", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "equal sizes",
            "as many mixtures as keys, and as their width",
            0.5,
            ("all sizes equal",),
            agrees("output"),
            FORMULA,
        ),
        Check("one mixture", "k = 1 is enough", 0.25, ("one mixture",), agrees("output"), FORMULA),
        Check(
            "huge scores",
            "no overflow for large inputs",
            0.25,
            ("huge scores",),
            survives_large_inputs(),
            FORMULA,
        ),
        Check(
            "linear cost",
            "work and memory grow with S k, not with S_q S_k",
            0.75,
            ("long sequences",),
            affordable(_flops, _largest, _made),
            FORMULA,
        ),
        Check(
            "sizes that do not fit",
            "are refused with a ValueError",
            0.5,
            (
                "projections for other lengths",
                "E and F of unequal ranks",
                "F for another length",
                "E for another length",
                "projections for fewer keys",
            ),
            raises_value_error(),
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
        Check(
            "own work",
            "attention is written out",
            0.25,
            ("unequal sizes",),
            obeys(FUSED, "attention"),
            FORMULA,
            binding=True,
        ),
        *conduct((FORMULA,), outputs=OUTPUT, gradient="backward() gives the derivative, for E and F too"),
    ),
    mistakes=(
        *(Mistake(name, question, partial(_variant, mix=mix)) for name, question, mix in MIXES),
        *(
            Mistake(name, question, partial(_variant, **knobs))
            for name, question, knobs in chosen(
                "not scaled",
                "divided by D",
                "divided by sqrt(S_k)",
                "softmax over the queries",
                "no softmax",
                "equal weights for all keys",
            )
        ),
        Mistake(
            "weights projected after the softmax",
            "The softmax runs over the k mixtures, not over all keys. Is E applied to the weights?",
            _weights_projected,
        ),
    ),
    hints=(
        "k mixtures of S_k keys: which axis of the keys does E replace, and on which side must it stand?",
        (
            "(k, S_k) @ (..., S_k, D) gives (..., k, D), for all leading axes at once. From there on it is "
            "ordinary attention over k keys and values."
        ),
        (
            "`keys, values = E @ key, F @ value`, scores `query @ keys.transpose(-2, -1) / math.sqrt(D)`, softmax "
            "over the last axis, times `values`. Before that compare E.shape, F.shape and key.shape[-2]."
        ),
    ),
)
