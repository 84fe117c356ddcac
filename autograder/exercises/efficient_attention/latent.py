"""Exercise `LatentAttention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Parameter, Target, Trial
from autograder.checks.agreement import agrees
from autograder.checks.averaging import hides_from_low_scores
from autograder.checks.carrying import pieces_agree, texts_in_turn
from autograder.checks.conduct import FUSED, obeys
from autograder.checks.configured import ConfiguredModule
from autograder.checks.customary import COUNTS, FORMULA, conduct
from autograder.checks.gradients import every_parameter_learns
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.compressed import latent_attention as formula

__all__ = ["LATENT_ATTENTION"]

OUTPUTS = ("output", "cache")
CACHE = "the cache"
READ = "cache read"
RESULTS = (FORMULA, CACHE)


def _inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    zero: bool = False,
    cached: int = 0,
    length: int = 0,
    heads: int = 0,
) -> dict[str, Any]:
    """x (..., S, d_model), cache (..., cached, d_latent) if any; heads of several numbers, d_latent less than d_model."""
    num_heads, D = draw.sizes(2, 2, 5)
    *lead, S = draw.sizes(axes + 1, 3, 7)
    num_heads, S = heads or num_heads, length or S
    d_model = num_heads * D
    d_latent = draw.integer(2, max(2, d_model - 2))
    d_latent += d_latent == S
    inputs: dict[str, Any] = {
        "init": {"d_model": d_model, "num_heads": num_heads, "d_latent": d_latent},
        "num_heads": num_heads,
        "x": draw.normal(*lead, S, d_model, dtype=dtype) * size,
    }
    if zero:  # so that not every score of 0 is a hidden one
        inputs["x"][..., 1, :] = 0.0
    return inputs | ({"cache": draw.normal(*lead, cached, d_latent, dtype=dtype)} if cached else {})


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("large scores", size=2.0, zero=True),
    _recipe("with a cache", cached=4),
    _recipe("one token after a cache", cached=5, length=1),
    _recipe("pieces", length=20),
    _recipe("one head", heads=1),
    _recipe("huge scores", size=60.0),
    _recipe("two leading axes", axes=2, cached=3),
    _recipe("small, float64", axes=0, dtype=torch.float64, cached=2),
    _recipe("float64", dtype=torch.float64),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16, cached=3),
)


def _split(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(-3, -2).flatten(-2)


def _variant(
    x: Tensor,
    num_heads: int,
    cache: Tensor | None = None,
    *,
    ups: tuple[str, str] = ("k_up", "v_up"),
    triangle: Callable[[Tensor, int], Tensor] = lambda ones, P: ones.tril(P),
    join: Callable[[Tensor, Tensor], Tensor] = lambda old, new: torch.cat([old, new], -2),
    returned: Callable[[Tensor, Tensor], Tensor] = lambda every, new: every,
    scale: Callable[[int, int, int], float] = lambda D, heads, latent: D**-0.5,
    axis: int = -1,
    heads: Callable[[int], int] = lambda heads: heads,
    split: Callable[[Tensor, int], Tensor] = _split,
    merge: Callable[[Tensor], Tensor] = _merge,
    squash: Callable[[Tensor], Tensor] = lambda latent: latent,
    used: tuple[bool, bool] = (True, True),
    **weights: Tensor,
) -> Mapping[str, Tensor]:
    """The module with knobs. ups: what makes keys and values. join: cache and new latents -> all of them.
    returned: all latents and the new ones -> the new cache. used: whether q_proj and out_proj are applied."""
    new = squash(x @ weights["kv_down"].mT)
    every = new if cache is None else join(cache, new)
    asked = x @ weights["q_proj"].mT if used[0] else x
    parts = (asked, *(every @ weights[name].mT for name in ups))
    query, key, value = (split(part, heads(num_heads)) for part in parts)
    scores = query @ key.mT * scale(query.shape[-1], num_heads, new.shape[-1])
    allowed = triangle(torch.ones(scores.shape[-2:], dtype=torch.bool), every.shape[-2] - new.shape[-2])
    probs = scores.masked_fill(~allowed, -torch.inf).softmax(axis).nan_to_num()
    mixed = merge(probs @ value)
    return {
        "output": mixed @ weights["out_proj"].mT if used[1] else mixed,
        "cache": returned(every, new),
    }


SEES = (
    "The tokens of x are the last: position i of them sees the P cached ones and 0..i, tril(P) of (S, P + S)."
)
KEPT = "The new cache is the old one with the latents of x behind it."
HEADS = "Head h owns the features h D .. (h + 1) D - 1."
Slips = tuple[tuple[str, str, dict[str, Any]], ...]
SLIPS: Slips = (
    ("k_up and v_up exchanged", "k_up makes the keys, v_up the values.", {"ups": ("v_up", "k_up")}),
    ("values made by k_up", "v_up makes the values.", {"ups": ("k_up", "k_up")}),
    ("keys made by v_up", "k_up makes the keys.", {"ups": ("v_up", "v_up")}),
    (
        "cache not read",
        "Keys and values are made of the cached latents, too.",
        {"join": lambda old, new: new},
    ),
    (
        "cache behind the new latents",
        "The cached tokens came first.",
        {"join": lambda old, new: torch.cat([new, old], -2)},
    ),
    ("only the new latents returned", KEPT, {"returned": lambda every, new: new}),
    (
        "cache without the latents of x",
        KEPT,
        {
            "returned": lambda every, new: (
                every[..., : every.shape[-2] - new.shape[-2], :] if every is not new else new
            )
        },
    ),
    ("causal mask without the cache's offset", SEES, {"triangle": lambda ones, P: ones.tril()}),
    ("nothing is masked", SEES, {"triangle": lambda ones, P: ones}),
    ("a position does not see itself", SEES, {"triangle": lambda ones, P: ones.tril(P - 1)}),
    (
        "not scaled",
        "Divide the scores by sqrt(D), D the width of a head.",
        {"scale": lambda D, heads, latent: 1.0},
    ),
    (
        "scaled by sqrt(d_model)",
        "Divide by the root of the width of a head, not of the model.",
        {"scale": lambda D, heads, latent: (D * heads) ** -0.5},
    ),
    (
        "scaled by sqrt(d_latent)",
        "Keys are compared at the width of a head, not of the latent.",
        {"scale": lambda D, heads, latent: latent**-0.5},
    ),
    ("softmax over the queries", "The weights of a query sum to one: dim=-1.", {"axis": -2}),
    ("one head", "Is d_model split into num_heads heads?", {"heads": lambda heads: 1}),
    (
        "heads interleaved",
        HEADS + " Is it unflatten(-1, (num_heads, D))?",
        {"split": lambda x, heads: x.unflatten(-1, (-1, heads)).movedim(-1, -3)},
    ),
    (
        "number and width of the heads exchanged",
        HEADS + " Is it unflatten(-1, (num_heads, D))?",
        {"split": lambda x, heads: x.unflatten(-1, (-1, heads)).transpose(-3, -2)},
    ),
    (
        "heads merged without a transpose",
        "Before flatten, the head axis must stand next to its features.",
        {"merge": lambda x: x.reshape(*x.shape[:-3], x.shape[-2], x.shape[-3] * x.shape[-1])},
    ),
    ("nonlinearity on the latent", "The latent is kv_down(x) as it is.", {"squash": torch.tanh}),
    ("q_proj not applied", "Queries are q_proj(x).", {"used": (False, True)}),
    ("out_proj not applied", "The output is out_proj of the merged heads.", {"used": (True, False)}),
)


def _holds_latents(trial: Trial) -> None:
    """The cache holds d_latent numbers a token, and these are the latents of x."""
    result = trial.named(trial.run(dict(trial.inputs)))
    init = trial.case.init
    width, wanted = (result["cache"].shape[-1] if result["cache"].dim() else 1), init["d_latent"]
    if width != wanted:
        wide = {init["d_model"]: "keys or values", 2 * init["d_model"]: "keys and values"}
        guess = f" Are these the {wide[width]} that are made of it?" if width in wide else ""
        raise Failure(
            f"the cache keeps {width} numbers for each token; the latent has {wanted}.{guess}",
            mistake="cache of up-projected keys" if width in wide else "cache has the wrong width",
        )
    agrees("cache")(trial)


LATENT_ATTENTION = Exercise(
    name="LatentAttention",
    assignment="efficient_attention",
    target=Target("LatentAttention", OUTPUTS, formula),
    positional=("x",),
    parameters=(
        Parameter("q_proj", ("d_model", "d_model")),
        Parameter("kv_down", ("d_latent", "d_model")),
        Parameter("k_up", ("d_model", "d_latent")),
        Parameter("v_up", ("d_model", "d_latent")),
        Parameter("out_proj", ("d_model", "d_model")),
    ),
    used_as=ConfiguredModule,
    recipes=RECIPES,
    checks=(
        Check(
            CACHE,
            "kv_down(x), d_latent numbers a token: no keys, no values",
            1.0,
            ("unequal sizes", "large scores"),
            _holds_latents,
        ),
        Check(
            COUNTS,
            "the results change with x, also with x at an earlier position",
            0.5,
            ("unequal sizes",),
            responds({"x": OUTPUTS}, mixing="x"),
            CACHE,
        ),
        Check(
            FORMULA,
            "without a cache, causal attention of heads made of the latents",
            1.5,
            ("unequal sizes", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            READ,
            "the tokens of x see the cached ones, and their latents stand behind them",
            1.0,
            ("with a cache", "one token after a cache"),
            agrees(*OUTPUTS),
            RESULTS,
        ),
        Check(
            "decoding",
            "a text in pieces, down to single tokens, equals the full causal pass",
            1.0,
            ("pieces",),
            pieces_agree(("x",), ("cache",)),
            READ,
        ),
        Check(
            "two texts in turn",
            "each goes on from the cache that it is handed",
            0.25,
            ("pieces",),
            texts_in_turn(("x",), ("cache",)),
            "decoding",
        ),
        Check("one head", "num_heads = 1 will do", 0.25, ("one head",), agrees(*OUTPUTS), RESULTS),
        Check(
            "huge scores",
            "no overflow for large inputs, and hidden keys lose against scores far below zero",
            0.25,
            ("huge scores",),
            hides_from_low_scores(("x",), {"q_proj": 1, "kv_down": 1, "k_up": 1}, "k_up"),
            RESULTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"x": 2, "cache": 2}, OUTPUTS),
            READ,
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
        *conduct(
            (*RESULTS, READ),
            every_parameter_learns(),
            OUTPUTS,
            derived=("output",),
            untouched=("unequal sizes", "with a cache"),
        ),
    ),
    mistakes=tuple(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in SLIPS),
    hints=(
        "Which tensor is made of x alone, is the same for all heads, and is enough to make keys and values of again?",
        (
            "latent = [cache, kv_down(x)] along the length: that is what you return. Keys and values are made of "
            "all of it, queries of x. There are S queries and P + S keys."
        ),
        (
            "`latent = torch.cat([cache, self.kv_down(x)], -2)`; split `self.q_proj(x)`, `self.k_up(latent)` and "
            "`self.v_up(latent)` into heads with `unflatten(-1, (num_heads, -1)).transpose(-3, -2)`; mask with "
            "`tril(P)`; merge with `transpose(-3, -2).flatten(-2)` and apply out_proj."
        ),
    ),
)
