"""Exercise `AttentionFusion`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Parameter, Target
from autograder.checks.averaging import finite_when
from autograder.checks.check import in_turn
from autograder.checks.conduct import FUSED, obeys
from autograder.checks.gradients import every_parameter_learns, works_as_made
from autograder.checks.structure import responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import attend, only
from autograder.oracle.reach import attention_fusion as formula
from autograder.situations import DTYPES, LENGTHS, MODULE_AXES, Group, Situations, drawn_by, groups, without
from autograder.situations.factors import WEIGHTS, Factor, Level
from autograder.situations.space import GRADIENT

__all__ = ["ATTENTION_FUSION"]

OUTPUTS = ("output", "weights")
FORMULA = "agrees with the formula"
SHAPES = {"query": "... S_q d_model", "key": "... S_k d_model", "value": "... S_k D_v"}
draw = drawn_by(SHAPES, init={"d_model": "d_model"}, leading=1, low=3, high=8)


def _sized(factor: float, in_double: float) -> Level:
    def change(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
        size = in_double if inputs["query"].dtype == torch.float64 else factor
        return {**inputs, **{name: inputs[name] * size for name in ("query", "key")}}

    return change


def _alike(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    key = inputs["key"].clone()
    key[..., -1, :] = key[..., 0, :]
    return {**inputs, "key": key}


def _one_tensor(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    value = inputs["query"] if draw.integer(0, 1) else inputs["value"]
    return {**inputs, "key": inputs["query"], "value": value}


def _mixed(change: Callable[[Tensor], Tensor]) -> Level:
    """Other mixing weights than those drawn."""

    def level(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
        def weights(given: Mapping[str, Any]) -> dict[str, Tensor]:
            return {"mix": change(given["mix"])}

        return {**inputs, WEIGHTS: weights}

    return level


def _alone(kind: int) -> Level:
    return _mixed(lambda mix: torch.full_like(mix, -40.0).index_fill(0, torch.tensor([kind]), 40.0))


SIZES: Factor = {
    **without(LENGTHS, "wide vectors", "one tensor for several"),
    "one tensor for several": ({"S_k": "S_q", "D_v": "d_model"}, _one_tensor),
}
SCORES: Factor = {
    "ordinary scores": {},
    "huge scores": _sized(12.0, 300.0),
    "short queries and keys": _sized(1e-2, 1e-5),
    "two keys alike": _alike,
}
MIX: Factor = {
    "all kinds have a share": {},
    "the dot product alone": _alone(0),
    "the cosine alone": _alone(1),
    "the bilinear score alone": _alone(2),
    "mixing weights above 1": _mixed(lambda mix: mix + 3.0),
    "large mixing weights": _mixed(lambda mix: mix + 3000.0),
}

Kinds = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]


def _kinds(query: Tensor, key: Tensor, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    products = query @ key.mT
    return products / query.shape[-1] ** 0.5, products / _norms(query, key), query @ W @ key.mT


def _norms(query: Tensor, key: Tensor) -> Tensor:
    return query.norm(dim=-1, keepdim=True) * key.norm(dim=-1).unsqueeze(-2)


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    W: Tensor,
    mix: Tensor,
    *,
    shares: Callable[[Tensor], Tensor] = lambda mix: mix.softmax(0),
    kinds: Kinds = _kinds,
    knobs: Mapping[str, Any] | None = None,
) -> Mapping[str, Tensor]:
    """The module in steps: how the shares are made, which scores are mixed; the knobs are those of `attend`."""
    scores = torch.stack([s * kind for s, kind in zip(shares(mix), kinds(query, key, W), strict=True)]).sum(0)
    plain: dict[str, Any] = {"scale": lambda q, k, v: 1.0, "score": lambda q, k: scores}
    return attend(query, key, value, **(plain | dict(knobs or {})))


def _weights_mixed(query: Tensor, key: Tensor, value: Tensor, W: Tensor, mix: Tensor) -> Mapping[str, Tensor]:
    weights = torch.einsum("t,t...->...", mix.softmax(0), torch.stack(_kinds(query, key, W)).softmax(-1))
    return {"output": weights @ value, "weights": weights}


def _times(*powers: float) -> Kinds:
    """The three kinds, each times d_model to that power."""
    return lambda q, k, W: tuple(
        one * q.shape[-1] ** power for one, power in zip(_kinds(q, k, W), powers, strict=True)
    )


def _cosine(norms: Callable[[Tensor, Tensor], Tensor]) -> Kinds:
    """The three kinds, the second divided by other norms."""
    return lambda q, k, W: (_kinds(q, k, W)[0], q @ k.mT / norms(q, k), _kinds(q, k, W)[2])


ONE = "The shares of the three kinds are softmax(mix): positive, and one in sum."

SLIPS: Slips = {
    ONE + " Is mix used as it is?": {"mixing weights not normalised": {"shares": lambda mix: mix}},
    ONE: {
        "mixing weights divided by their sum": {"shares": lambda mix: mix / mix.sum()},
        "sigmoid of the mixing weights": {"shares": torch.sigmoid},
        "exp of the mixing weights without the division": {"shares": torch.exp},
        "the kind with the largest share alone": {"shares": lambda mix: (mix == mix.max()).to(mix)},
    },
    ONE + " Does mix enter?": {"equal shares for all kinds": {"shares": lambda mix: torch.full_like(mix, 1 / 3)}},
    "The order is scaled dot product, cosine, bilinear.": {
        "kinds in another order": {"kinds": lambda q, k, W: _kinds(q, k, W)[::-1]},
    },
    "Only the first kind is divided by sqrt(d_model).": {"all scores divided by sqrt(d_model)": {"kinds": _times(0, -0.5, -0.5)}},
    "A cosine is divided by the two norms, and by nothing else.": {
        "cosine divided by sqrt(d_model)": {"kinds": _times(0, -0.5, 0)},
    },
    "The first kind is divided by sqrt(d_model).": {"dot product not scaled": {"kinds": _times(0.5, 0, 0)}},
    "The matrix carries its scale: only the dot product is divided by sqrt(d_model).": {
        "bilinear scores scaled": {"kinds": _times(0, 0, -0.5)},
    },
    "A cosine divides by both norms.": {
        "cosine divided by the norm of the keys alone": {"kinds": _cosine(lambda q, k: k.norm(dim=-1).unsqueeze(-2))},
        "cosine divided by the norm of the queries alone": {"kinds": _cosine(lambda q, k: q.norm(dim=-1, keepdim=True))},
    },
    "No query or key is zero. Is a small number added to a norm, or is a norm clamped?": {
        "a small number in the norms": [
            {"kinds": _cosine(lambda q, k: _norms(q, k) + 1e-6)}, {"kinds": _cosine(lambda q, k: _norms(q, k) + 1e-8)},
            {"kinds": _cosine(lambda q, k: _norms(q, k).clamp_min(1e-2))},
            {"kinds": _cosine(lambda q, k: _norms(q, k).clamp_min(1e-6))},
            {"kinds": _cosine(lambda q, k: _norms(q, k).clamp_min(1e-8))},
        ],
    },
    "The third kind is q W k: query @ W @ key^T. Is W turned round, as in an nn.Linear?": {
        "W applied transposed": {"kinds": lambda q, k, W: _kinds(q, k, W.mT)},
    },
    "Three softmaxes, then the mixture? Here the scores are mixed, and one softmax follows.": {
        "weights mixed instead of scores": _weights_mixed,
    },
}  # fmt: skip
SCORE_SLIPS = only(
    "softmax over the queries", "no softmax", "equal weights for all keys", "scores returned as weights",
    "exp without the division",
)  # fmt: skip


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    output: Tensor = weights @ inputs["value"]
    return output


ATTENTION_FUSION = Exercise(
    name="AttentionFusion",
    assignment="efficient_attention",
    target=Target("AttentionFusion", OUTPUTS, formula),
    positional=("query", "key", "value"),
    parameters=(Parameter("W", ("d_model", "d_model"), linear=False), Parameter("mix", (3,), linear=False)),
    situations=Situations(
        draw=draw,
        factors={"lengths": SIZES, "mix": MIX, "scores": SCORES, "dtype": DTYPES, "axes": MODULE_AXES},
        axes=SHAPES,
        groups=groups(
            "one softmax over the mixture of the three scores, and the weights that it gives", 2.0,
            (Group("shares", "softmax(mix), whatever mix: a common summand changes nothing, and one kind may have it all", 0.75,
                   ("mix",)),),
            lengths=0.5, scores=0.75, gradient=0.5, dtypes=0.25, calls=0.75,
        ),
        never=({"mix": "large mixing weights", "dtype": ("float32", "bfloat16", "float16")},
               {"scores": "short queries and keys", "dtype": ("bfloat16", "float16")},
               {"scores": "short queries and keys", "dtype": "float32", "gradient": GRADIENT}),
        module=True,
    ),
    recipes=(Recipe("plain", draw),),
    checks=(
        Check("parameters", "every parameter is used and learns", 0.75, ("plain",),
              in_turn(every_parameter_learns(), works_as_made()), FORMULA),
        Check("own work", "attention is written out", 0.25, ("plain",), obeys(FUSED, "attention"), FORMULA, binding=True),
    ),
    diagnoses={
        "": (finite_when("huge scores"), responds({"query": OUTPUTS, "key": OUTPUTS, "value": ("output",)}, mixing="value"),
             weights_agree(_made)),
    },
    mistakes=(*slips(_fused, SLIPS), *slips(_fused, *SCORE_SLIPS, steps="knobs")),
    hints=(
        "Three tables of scores, one table that goes into the softmax. What makes one of three, with shares that sum to one?",
        "q . k serves twice: divided by sqrt(d_model), and divided by the norms of both. The shares are a softmax over the "
        "three numbers in mix; the scores are added up, each times its share.",
        "`shares = torch.softmax(self.mix, 0)`; `scores = shares[0] * products / math.sqrt(d) + shares[1] * products / norms "
        "+ shares[2] * (query @ self.W @ key.mT)`; then softmax over the last axis.",
    ),
)  # fmt: skip
