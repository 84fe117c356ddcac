"""Exercise `AttentionFusion`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Parameter, Target, Trial
from autograder.checks.agreement import agrees
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.conduct import FUSED, obeys
from autograder.checks.customary import COUNTS, FORMULA, OUTPUTS, conduct
from autograder.checks.gradients import every_parameter_learns
from autograder.checks.structure import agrees_with_slices, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.basic_attention.variants import attend
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.shared_attention.variants import chosen
from autograder.oracle.reach import attention_fusion as formula

__all__ = ["ATTENTION_FUSION"]

RESULTS = (FORMULA, "weights")


def _inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    square: bool = False,
    high: int = 9,
) -> dict[str, Any]:
    """query (..., S_q, d_model), key (..., S_k, d_model), value (..., S_k, D_v). square: all sizes alike."""
    *lead, S_q, S_k, d_model, D_v = draw.sizes(axes + 4, 3, high)
    if square:
        S_q = S_k = D_v = d_model
    return {
        "init": {"d_model": d_model},
        "query": draw.normal(*lead, S_q, d_model, dtype=dtype) * size,
        "key": draw.normal(*lead, S_k, d_model, dtype=dtype) * size,
        "value": draw.normal(*lead, S_k, D_v, dtype=dtype),
    }


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("all sizes equal", square=True),
    _recipe("large scores", size=2.0),
    _recipe("huge scores", size=60.0),
    _recipe("two leading axes", axes=2),
    _recipe("small, float64", axes=0, dtype=torch.float64, high=7),
    _recipe("float64", dtype=torch.float64),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16),
    _recipe("small inputs", size=1e-3),
)

Shares = Callable[[Tensor], Tensor]
"""mix (3,) -> shares (3,)."""


def _kinds(query: Tensor, key: Tensor, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    products = query @ key.mT
    norms = query.norm(dim=-1, keepdim=True) * key.norm(dim=-1).unsqueeze(-2)
    return products / query.shape[-1] ** 0.5, products / norms, query @ W @ key.mT


def _variant(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    W: Tensor,
    mix: Tensor,
    *,
    shares: Shares = lambda mix: mix.softmax(0),
    kinds: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]] = _kinds,
    **knobs: Any,
) -> Mapping[str, Tensor]:
    """The module with knobs: how the shares are made, which scores are mixed; the others are those of `attend`."""
    scores = sum(
        (share * kind for share, kind in zip(shares(mix), kinds(query, key, W), strict=True)),
        start=query.new_zeros(()),
    )
    plain: dict[str, Any] = {"scale": lambda q, k, v: 1.0, "score": lambda q, k: scores}
    return attend(query, key, value, **(plain | knobs))


def _weights_mixed(query: Tensor, key: Tensor, value: Tensor, W: Tensor, mix: Tensor) -> Mapping[str, Tensor]:
    kinds = [kind.softmax(-1) for kind in _kinds(query, key, W)]
    weights = sum(
        (share * kind for share, kind in zip(mix.softmax(0), kinds, strict=True)), start=query.new_zeros(())
    )
    return {"output": weights @ value, "weights": weights}


ONE = "The shares of the three kinds are softmax(mix): positive, and one in sum."
ORDER = "The order is scaled dot product, cosine, bilinear."
Slips = tuple[tuple[str, str, dict[str, Any]], ...]
SLIPS: Slips = (
    ("mixing weights not normalised", ONE + " Is mix used as it is?", {"shares": lambda mix: mix}),
    ("mixing weights divided by their sum", ONE, {"shares": lambda mix: mix / mix.sum()}),
    ("sigmoid of the mixing weights", ONE, {"shares": torch.sigmoid}),
    ("exp of the mixing weights without the division", ONE, {"shares": torch.exp}),
    (
        "equal shares for all kinds",
        ONE + " Does mix enter?",
        {"shares": lambda mix: torch.full_like(mix, 1 / 3)},
    ),
    ("the kind with the largest share alone", ONE, {"shares": lambda mix: (mix == mix.max()).to(mix)}),
    ("kinds in another order", ORDER, {"kinds": lambda q, k, W: _kinds(q, k, W)[::-1]}),
    (
        "all scores divided by sqrt(d_model)",
        "Only the first kind is divided by sqrt(d_model).",
        {
            "kinds": lambda q, k, W: (
                _kinds(q, k, W)[0],
                *(kind * q.shape[-1] ** -0.5 for kind in _kinds(q, k, W)[1:]),
            )
        },
    ),
    (
        "cosine divided by sqrt(d_model)",
        "A cosine is divided by the two norms, and by nothing else.",
        {
            "kinds": lambda q, k, W: tuple(
                kind * (q.shape[-1] ** -0.5 if place == 1 else 1.0)
                for place, kind in enumerate(_kinds(q, k, W))
            )
        },
    ),
    (
        "dot product not scaled",
        "The first kind is divided by sqrt(d_model).",
        {"kinds": lambda q, k, W: (q @ k.mT, *_kinds(q, k, W)[1:])},
    ),
    (
        "bilinear scores scaled",
        "The matrix carries its scale: only the dot product is divided by sqrt(d_model).",
        {"kinds": lambda q, k, W: (*_kinds(q, k, W)[:2], _kinds(q, k, W)[2] / q.shape[-1] ** 0.5)},
    ),
    (
        "cosine divided by the norm of the keys alone",
        "A cosine divides by both norms.",
        {
            "kinds": lambda q, k, W: (
                _kinds(q, k, W)[0],
                q @ k.mT / k.norm(dim=-1).unsqueeze(-2),
                _kinds(q, k, W)[2],
            )
        },
    ),
    (
        "W applied transposed",
        "The third kind is q W k: query @ W @ key^T. Is W turned round, as in an nn.Linear?",
        {"kinds": lambda q, k, W: _kinds(q, k, W.mT)},
    ),
)


def _shift_changes_nothing(trial: Trial) -> None:
    """The shares sum to one: the same number added to all of mix changes no result."""
    before = trial()
    changes = {"mix": trial.inputs["mix"] + 3.0}
    after = trial(**changes)
    for name in OUTPUTS:
        trial.require(
            name,
            after[name],
            "adding 3 to all three mixing weights changes the result, which softmax(mix) does not",
            expected=before[name],
            mistake="mixing weights not normalised",
            **changes,
        )


def _one_kind_alone(trial: Trial) -> None:
    """With nearly all of the share given to one kind, the result is that of this kind."""
    for kind, name in enumerate(("scaled dot product", "cosine", "bilinear")):
        mix = torch.full_like(trial.inputs["mix"], -40.0)
        mix[kind] = 40.0
        result = trial(mix=mix)
        if not bool(torch.isfinite(result["weights"]).all()):
            raise Failure(
                f"with mix={mix.tolist()} the weights are nan or inf. Is it torch.softmax(mix, 0)?",
                mistake="softmax of the mixing weights overflows",
            )
        for output in OUTPUTS:
            trial.require(
                output,
                result[output],
                f"with all of the share given to the {name}, it differs from attention by that score",
                mistake="a kind of score is wrong",
                mix=mix,
            )


def _small_inputs(trial: Trial) -> None:
    """Queries and keys of length 0.001 have cosines as good as any."""
    results = trial()
    for output in OUTPUTS:
        trial.require(
            output,
            results[output],
            "for small queries and keys it differs from the formula (is a small number added to a norm, or is a norm clamped?)",
            mistake="a small number in the norms",
        )


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    output: Tensor = weights @ inputs["value"]
    return output


ATTENTION_FUSION = Exercise(
    name="AttentionFusion",
    assignment="efficient_attention",
    target=Target("AttentionFusion", OUTPUTS, formula),
    positional=("query", "key", "value"),
    parameters=(
        Parameter("W", ("d_model", "d_model"), linear=False),
        Parameter("mix", (3,), linear=False),
    ),
    recipes=RECIPES,
    checks=(
        Check(
            COUNTS,
            "the results change with query, key and value, also with a value at another position",
            0.5,
            ("unequal sizes",),
            responds({"query": OUTPUTS, "key": OUTPUTS, "value": ("output",)}, mixing="value"),
        ),
        Check(
            FORMULA,
            "one softmax over the mixture of the three scores",
            1.25,
            ("unequal sizes", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights that made the output, rows summing to 1",
            0.5,
            ("unequal sizes", "large scores"),
            weights_agree(_made),
            COUNTS,
        ),
        Check(
            "shares sum to one",
            "mix counts up to a common summand",
            0.5,
            ("unequal sizes",),
            _shift_changes_nothing,
            FORMULA,
        ),
        Check(
            "one kind alone",
            "each of the three can have all of the share",
            0.5,
            ("unequal sizes",),
            _one_kind_alone,
            RESULTS,
        ),
        Check(
            "equal sizes",
            "as many queries and keys as their width",
            0.25,
            ("all sizes equal",),
            agrees(*OUTPUTS),
            RESULTS,
        ),
        Check(
            "small inputs",
            "the cosine does not hang on the lengths of query and key",
            0.25,
            ("small inputs",),
            _small_inputs,
            RESULTS,
        ),
        Check(
            "huge scores",
            "no overflow for large inputs",
            0.25,
            ("huge scores",),
            survives_large_inputs(),
            RESULTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"query": 2, "key": 2, "value": 2}, OUTPUTS),
            COUNTS,
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
        *conduct(RESULTS, every_parameter_learns()),
    ),
    mistakes=(
        *(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in SLIPS),
        *(
            Mistake(name, question, partial(_variant, **knobs))
            for name, question, knobs in chosen(
                "softmax over the queries",
                "no softmax",
                "equal weights for all keys",
                "scores returned as weights",
            )
        ),
        Mistake(
            "weights mixed instead of scores",
            "Three softmaxes, then the mixture? Here the scores are mixed, and one softmax follows.",
            _weights_mixed,
        ),
    ),
    hints=(
        "Three tables of scores, one table that goes into the softmax. What makes one of three, with shares that sum to one?",
        (
            "q . k serves twice: divided by sqrt(d_model), and divided by the norms of both. The shares are a "
            "softmax over the three numbers in mix; the scores are added up, each times its share."
        ),
        (
            "`shares = torch.softmax(self.mix, 0)`; `scores = shares[0] * products / math.sqrt(d) + shares[1] * "
            "products / norms + shares[2] * (query @ self.W @ key.mT)`; then softmax over the last axis."
        ),
    ),
)
