"""Exercise `low_rank_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import raises_value_error
from autograder.checks.averaging import finite_when
from autograder.checks.conduct import FUSED, affordable, obeys
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import attend, only
from autograder.oracle.compressed import low_rank_attention as formula
from autograder.situations import DTYPES, LENGTHS, MODULE_AXES, Group, Situations, drawn_by, groups, without
from autograder.situations.factors import Factor

__all__ = ["LOW_RANK_ATTENTION"]

OUTPUT = ("output",)
FORMULA = "agrees with the formula"
SHAPES = {"query": "... S_q D", "key": "... S_k D", "value": "... S_k D_v", "E": "k S_k", "F": "k S_k"}
_sequences = drawn_by(SHAPES, leading=1, low=3, high=9)


def draw(draw: Draw, **options: Any) -> dict[str, Any]:
    """query, key and value, and E and F so that mixtures are about as large as what they are made of."""
    inputs = _sequences(draw, **options)
    return inputs | {name: inputs[name] / inputs["key"].shape[-2] ** 0.5 for name in ("E", "F")}


def _do_not_fit(draw: Draw, *, names: tuple[str, ...], rows: int = 0, keys: int | str = 0) -> dict[str, Any]:
    """E, F or both with more or fewer rows, or for more or fewer keys; keys "one": for a single one."""
    inputs = _sequences(draw, axes=0, k=(4, 5), S_k=(6, 8))
    for name in names:
        k, S_k = inputs[name].shape
        inputs[name] = draw.normal(k + rows, 1 if isinstance(keys, str) else S_k + keys)
    return inputs


UNFIT: Mapping[str, Mapping[str, Any]] = {
    "projections for more keys": {"names": ("E", "F"), "keys": 1},
    "projections for several more keys": {"names": ("E", "F"), "keys": 4},
    "projections for a single key": {"names": ("E", "F"), "keys": "one"},
    "projections for fewer keys": {"names": ("E", "F"), "keys": -1},
    "E for more keys": {"names": ("E",), "keys": 2},
    "F for more keys": {"names": ("F",), "keys": 2},
    "E of more rows": {"names": ("E",), "rows": 1},
    "F of more rows": {"names": ("F",), "rows": 1},
    "E of fewer rows": {"names": ("E",), "rows": -1},
    "F of fewer rows": {"names": ("F",), "rows": -1},
}


def _huge(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """So large that exp overflows; larger still where rounding hides nothing."""
    return {**inputs, "query": inputs["query"] * (1e5 if inputs["query"].dtype == torch.float64 else 100.0)}


def _alike(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    return {**inputs, "E": inputs["E"][:1].expand_as(inputs["E"]).clone()}


SCORES: Factor = {"ordinary scores": {}, "huge scores": _huge, "all mixtures alike": _alike}
RANKS: Factor = {
    "fewer mixtures than keys": {"k": (2, 4)},
    "one mixture": {"k": 1},
    "as many mixtures as keys": {"k": "S_k"},
    "more mixtures than keys": {"k": (10, 12)},
}
EQUAL = {"all sizes equal": {**dict.fromkeys(("S_k", "D", "D_v", "k"), "S_q"), "S_q": (3, 7)}}


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


Mix = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _steps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    E: Tensor,
    F: Tensor,
    *,
    mix: Mix = lambda k, v, E, F: (E @ k, F @ v),
    knobs: Mapping[str, Any] | None = None,
) -> Tensor:
    """mix: key, value, E, F -> the keys and values that are left; the knobs are those of `attend`."""
    return attend(query, *mix(key, value, E, F), **(knobs or {}))["output"]


def _on_the_features(x: Tensor, mixture: Tensor) -> Tensor:
    """Along the last axis where it fits, else along the length."""
    return x @ mixture.mT if x.shape[-1] == mixture.shape[-1] else mixture @ x


def _weights_projected(query: Tensor, key: Tensor, value: Tensor, E: Tensor, F: Tensor) -> Tensor:
    """softmax(q K^T) over all keys, then E."""
    return torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, -1) @ E.mT @ (F @ value)


ALONG = "E and F mix positions, (k, S_k) @ (S_k, D): they stand left of the keys and values."
EACH = "E belongs to the keys, F to the values."

MIXES: Slips = {
    ALONG + " Is the last axis, the width, projected?": {
        "projected along the features": {"mix": lambda k, v, E, F: (_on_the_features(k, E), _on_the_features(v, F))},
    },
    EACH: {
        "E and F exchanged": {"mix": lambda k, v, E, F: (F @ k, E @ v)},
        "E for keys and values": {"mix": lambda k, v, E, F: (E @ k, E @ v)},
        "F for keys and values": {"mix": lambda k, v, E, F: (F @ k, F @ v)},
    },
    ALONG + " Are they used?": {"nothing projected": {"mix": lambda k, v, E, F: (k, v)}},
    ALONG + " Are keys cut off instead?": {
        "first positions instead of mixtures": {"mix": lambda k, v, E, F: (k[..., : len(E), :], v[..., : len(E), :])},
    },
    "E and F are learned mixtures as they are: is a softmax applied to them?": {
        "softmax of the projections": {"mix": lambda k, v, E, F: (E.softmax(-1) @ k, F.softmax(-1) @ v)},
    },
    "E mixes the keys once. Is the result mixed again?": {
        "projected twice": {"mix": lambda k, v, E, F: (E @ (E.mT @ (E @ k)), F @ (F.mT @ (F @ v)))},
    },
    "The softmax runs over the k mixtures, not over all keys. Is E applied to the weights?": {
        "weights projected after the softmax": _weights_projected,
    },
}  # fmt: skip
SCORE_SLIPS = only(
    "not scaled", "divided by D", "divided by sqrt(D_v)", "divided by sqrt(S_k)", "softmax over the queries", "no softmax",
    "exp without the division", "equal weights for all keys",
)  # fmt: skip

LOW_RANK_ATTENTION = Exercise(
    name="low_rank_attention",
    assignment="efficient_attention",
    target=Target("low_rank_attention", OUTPUT, formula),
    positional=tuple(SHAPES),
    situations=Situations(
        draw=draw,
        factors={"ranks": RANKS, "lengths": {**without(LENGTHS, "one tensor for several", "wide vectors"), **EQUAL},
                 "scores": SCORES, "dtype": DTYPES, "axes": MODULE_AXES},
        axes=SHAPES,
        groups=groups(
            "softmax(q (E K)^T / sqrt(D)) (F V)", 1.75,
            (Group("number of mixtures", "from one to as many as there are keys, and more", 0.5, ("ranks",)),),
            lengths=0.5, scores=0.5, gradient=0.5, dtypes=0.25, calls=0.5,
        ),
    ),
    recipes=(
        Recipe("plain", draw),
        Recipe("long sequences", partial(draw, axes=0, S_q=(400, 420), S_k=(430, 450), k=(2, 4))),
        Recipe("a batch", partial(draw, axes=2, S_q=(150, 170), S_k=(180, 198), k=(2, 3))),
        *(Recipe(label, partial(_do_not_fit, **how)) for label, how in UNFIT.items()),
    ),
    checks=(
        Check("linear cost", "work and memory grow with S k, not with S_q S_k", 0.75, ("long sequences", "a batch"),
              affordable(_flops, _largest, _made), FORMULA),
        Check("sizes that do not fit", "are refused with a ValueError", 0.5, tuple(UNFIT), raises_value_error(), FORMULA),
        Check("own work", "attention is written out", 0.25, ("plain",), obeys(FUSED, "attention"), FORMULA, binding=True),
    ),
    diagnoses={"": (finite_when("huge scores"), responds(dict.fromkeys(SHAPES, OUTPUT), mixing="value"),)},
    mistakes=(*slips(_steps, MIXES, output="output"), *slips(_steps, *SCORE_SLIPS, output="output", steps="knobs")),
    hints=(
        "k mixtures of S_k keys: which axis of the keys does E replace, and on which side must it stand?",
        "(k, S_k) @ (..., S_k, D) gives (..., k, D), for all leading axes at once. From there on it is ordinary attention "
        "over k keys and values.",
        "`keys, values = E @ key, F @ value`, scores `query @ keys.transpose(-2, -1) / math.sqrt(D)`, softmax over the last "
        "axis, times `values`. Before that compare E.shape, F.shape and key.shape[-2].",
    ),
)  # fmt: skip
