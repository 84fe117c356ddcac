"""Exercise `LatentAttention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Parameter, Target
from autograder.checks.averaging import finite_when
from autograder.checks.carrying import branches_apart, pieces_agree, texts_in_turn
from autograder.checks.check import in_turn
from autograder.checks.conduct import FUSED, obeys
from autograder.checks.configured import ConfiguredModule
from autograder.checks.gradients import every_parameter_learns, works_as_made
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle import Quantity
from autograder.oracle.compressed import latent_attention
from autograder.situations import DTYPES, MODULE_AXES, Group, Situations, drawn_by, groups
from autograder.situations.factors import LONG_PRIMES, VERY_LONG, WEIGHTS, Factor

__all__ = ["LATENT_ATTENTION"]

OUTPUTS = ("output", "cache")
FORMULA, CACHE = "agrees with the formula", "given cache"
SHAPES = {"x": "... S d_model", "cache": "... P L"}
_text = drawn_by(
    SHAPES,
    init={"d_model": "d_model", "num_heads": "H", "d_latent": "L"},
    values={"num_heads": "H"},
    derived={"d_model": lambda sizes: sizes["H"] * sizes["D"]},
    leading=1,
    high=8,
)


def draw(draw: Draw, *, given: bool = False, **options: Any) -> dict[str, Any]:
    """x, num_heads, and the cache if it is given."""
    inputs = _text(draw, **{"H": (3, 4), "D": (2, 3), "L": (4, 5), **options})
    return inputs if given else {name: value for name, value in inputs.items() if name != "cache"}


def formula(**given: Any) -> Mapping[str, Quantity]:
    """The output and the cache; what is handed on may be detached."""
    found = latent_attention(**given)
    cache = found["cache"]
    return {"output": found["output"], "cache": Quantity(cache.value.detach(), cache.magnitude.detach())}


def _near(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """The new tokens count for more than the cached ones."""
    return {**inputs, "x": inputs["x"] * 12.0, "cache": inputs["cache"] / 128}


LENGTHS: Factor = {
    "several tokens": {"S": (3, 7)},
    "a single token": {"S": 1},
    "as many tokens as features": {"S": "d_model"},
    "over two thousand cached tokens": {"S": (2, 3), "P": VERY_LONG, "axes": 0, "given": True},
    "over a thousand cached tokens in bfloat16":
        ({"S": (3, 4), "P": LONG_PRIMES, "axes": 0, "given": True, "dtype": torch.bfloat16}, _near),
}  # fmt: skip
GIVEN: Factor = {
    "no cache": {},
    "a cache": {"given": True, "P": (3, 6)},
    "one cached token": {"given": True, "P": 1},
    "a cache of no tokens": {"given": True, "P": 0},
}
HEADS: Factor = {
    "several heads": {},
    "one head": {"H": 1, "D": (3, 6)},
    "heads of one feature": {"H": (3, 5), "D": 1},
}
LATENTS: Factor = {
    "a narrow latent": {},
    "a latent of one number": {"L": 1},
    "a latent as wide as x": {"L": "d_model"},
    "a latent wider than x": {"L": (20, 22)},
}


def _weights(
    change: Callable[[Mapping[str, Any]], dict[str, Tensor]], inputs: dict[str, Any]
) -> dict[str, Any]:
    return {**inputs, WEIGHTS: change}


def _huge(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """So large that exp overflows; larger still where rounding hides nothing."""
    size = 1e5 if inputs["x"].dtype == torch.float64 else 300.0
    return _weights(lambda given: {"q_proj": given["q_proj"] * size}, inputs)


def _low(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """All scores equal, and below -1e4 (in float64, -1e6): the projections read a feature that is 1 everywhere."""
    far = {torch.float16: (64.0, 128.0), torch.float64: (1024.0, 1024.0)}.get(
        inputs["x"].dtype, (128.0, 128.0)
    )
    made = {name: inputs[name].clone() for name in SHAPES if name in inputs}
    for rows in made.values():
        rows[..., 0] = 1.0

    def weights(given: Mapping[str, Any]) -> dict[str, Tensor]:
        low = {name: torch.zeros_like(given[name]) for name in ("q_proj", "k_up")}
        low["q_proj"][:, 0], low["k_up"][:, 0] = far[0], -far[1]
        down = given["kv_down"].clone()
        down[0], down[0, 0] = 0.0, 1.0
        return low | {"kv_down": down}

    return _weights(weights, {**inputs, **made})


def _zeros(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """A token of nothing but zeros: not every score of 0 is a hidden one."""
    x = inputs["x"].clone()
    x[..., x.shape[-2] // 2, :] = 0.0
    return {**inputs, "x": x}


SCORES: Factor = {
    "ordinary scores": {}, "huge scores": _huge, "all scores low": _low, "a token of zeros": _zeros,
}  # fmt: skip


def _split(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(-3, -2).flatten(-2)


def _steps(
    x: Tensor,
    num_heads: int,
    cache: Tensor | None = None,
    *,
    ups: tuple[str, str] = ("k_up", "v_up"),
    triangle: Callable[[Tensor, int], Tensor] = lambda ones, P: ones.tril(P),
    join: Callable[[Tensor, Tensor], Tensor] = lambda old, new: torch.cat([old, new], -2),
    returned: Callable[..., Tensor] = lambda every, new, w: every,
    scale: Callable[[int, int, int], float] = lambda D, heads, latent: D**-0.5,
    axis: int = -1,
    fill: float = -torch.inf,
    heads: Callable[[int], int] = lambda heads: heads,
    split: Callable[[Tensor, int], Tensor] = _split,
    merge: Callable[[Tensor], Tensor] = _merge,
    squash: Callable[[Tensor], Tensor] = lambda latent: latent,
    used: tuple[bool, bool] = (True, True),
    **weights: Any,
) -> Mapping[str, Tensor]:
    """The module in steps. ups: what makes keys and values. join: cache and new latents -> all of them.

    returned: all latents, the new ones and the weights -> the new cache. used: whether q_proj and out_proj are applied.
    """
    new = squash(x @ weights["kv_down"].mT)
    every = new if cache is None else join(cache, new)
    asked = x @ weights["q_proj"].mT if used[0] else x
    parts = (asked, *(every @ weights[name].mT for name in ups))
    query, key, value = (split(part, heads(num_heads)) for part in parts)
    scores = query @ key.mT * scale(query.shape[-1], num_heads, new.shape[-1])
    allowed = triangle(torch.ones(scores.shape[-2:], dtype=torch.bool), every.shape[-2] - new.shape[-2])
    mixed = merge(scores.masked_fill(~allowed, fill).softmax(axis).nan_to_num() @ value)
    output = mixed @ weights["out_proj"].mT if used[1] else mixed
    return {"output": output, "cache": returned(every, new, weights)}


SEES = (
    "The tokens of x are the last: position i of them sees the P cached ones and 0..i, tril(P) of (S, P + S)."
)
KEPT = "The new cache is the old one with the latents of x behind it."
SMALL = "The cache keeps latents, d_latent numbers a token. Are these what is made of them?"
HEADS_OWN = "Head h owns the features h D .. (h + 1) D - 1. Is it unflatten(-1, (num_heads, D))?"

SLIPS: Slips = {
    "k_up makes the keys, v_up the values.": {"k_up and v_up exchanged": {"ups": ("v_up", "k_up")}},
    "v_up makes the values.": {"values made by k_up": {"ups": ("k_up", "k_up")}},
    "k_up makes the keys.": {"keys made by v_up": {"ups": ("v_up", "v_up")}},
    "Keys and values are made of the cached latents, too.": {"cache not read": {"join": lambda old, new: new}},
    "The cached tokens came first.": {"cache behind the new latents": {"join": lambda old, new: torch.cat([new, old], -2)}},
    KEPT: {
        "only the new latents returned": {"returned": lambda every, new, w: new},
        "cache without the latents of x":
            {"returned": lambda every, new, w: new if every is new else every[..., : every.shape[-2] - new.shape[-2], :]},
    },
    SMALL: {
        "cache of up-projected keys": [
            {"returned": lambda every, new, w: every @ w["k_up"].mT},
            {"returned": lambda every, new, w: every @ torch.cat([w["k_up"], w["v_up"]]).mT},
        ],
    },
    SEES: {
        "causal mask without the cache's offset": {"triangle": lambda ones, P: ones.tril()},
        "nothing is masked": {"triangle": lambda ones, P: ones},
        "a position does not see itself": {"triangle": lambda ones, P: ones.tril(P - 1)},
        "one position of the future is seen": {"triangle": lambda ones, P: ones.tril(P + 1)},
    },
    "Is the mask value -inf or the dtype's lowest number, or merely a low one?": {
        "mask value is not low enough": [{"fill": -1e4}, {"fill": -65504.0}, {"fill": -1e5}],
    },
    "Divide the scores by sqrt(D), D the width of a head.": {"not scaled": {"scale": lambda D, heads, latent: 1.0}},
    "Divide by the root of the width of a head, not of the model.": {
        "scaled by sqrt(d_model)": {"scale": lambda D, heads, latent: (D * heads) ** -0.5},
    },
    "Keys are compared at the width of a head, not of the latent.": {
        "scaled by sqrt(d_latent)": {"scale": lambda D, heads, latent: latent**-0.5},
    },
    "The weights of a query sum to one: dim=-1.": {"softmax over the queries": {"axis": -2}},
    "Is d_model split into num_heads heads?": {"one head": {"heads": lambda heads: 1}},
    HEADS_OWN: {
        "heads interleaved": {"split": lambda x, heads: x.unflatten(-1, (-1, heads)).movedim(-1, -3)},
        "number and width of the heads exchanged": {"split": lambda x, heads: x.unflatten(-1, (-1, heads)).transpose(-3, -2)},
    },
    "Before flatten, the head axis must stand next to its features.": {
        "heads merged without a transpose": {"merge": lambda x: x.reshape(*x.shape[:-3], x.shape[-2], x.shape[-3] * x.shape[-1])},
    },
    "The latent is kv_down(x) as it is.": {"nonlinearity on the latent": [{"squash": torch.tanh}, {"squash": torch.relu}]},
    "Queries are q_proj(x).": {"q_proj not applied": {"used": (False, True)}},
    "The output is out_proj of the merged heads.": {"out_proj not applied": {"used": (True, False)}},
}  # fmt: skip

LATENT_ATTENTION = Exercise(
    name="LatentAttention",
    assignment="efficient_attention",
    target=Target("LatentAttention", OUTPUTS, formula),
    positional=("x",),
    parameters=tuple(
        Parameter(name, shape)
        for name, shape in {
            "q_proj": ("d_model", "d_model"), "kv_down": ("d_latent", "d_model"), "k_up": ("d_model", "d_latent"),
            "v_up": ("d_model", "d_latent"), "out_proj": ("d_model", "d_model"),
        }.items()
    ),
    used_as=ConfiguredModule,
    situations=Situations(
        draw=draw,
        factors={"given": GIVEN, "dtype": DTYPES, "lengths": LENGTHS, "heads": HEADS, "latent": LATENTS, "scores": SCORES,
                 "axes": MODULE_AXES},
        axes=SHAPES,
        groups=groups(
            "causal attention of heads made of the latents, and kv_down(x) as the cache", 2.5,
            (Group(CACHE, "the tokens of x see the cached ones, and their latents stand behind them", 1.5, ("given",)),
             Group("sizes of heads and latents", "one head or many, and a latent of any width", 0.5, ("heads", "latent"))),
            lengths=0.5, scores=0.75, gradient=0.5, dtypes=0.25, calls=0.75,
        ),
        never=({"scores": "all scores low", "latent": "a latent of one number"},  # all values alike
               {"scores": ("all scores low", "a token of zeros"), "lengths": "a single token"},  # no token hidden
               {"latent": "a latent as wide as x", "heads": "one head"}),  # d_latent and D alike
        together=(("given", "lengths", "mode"),),
        module=True,
    ),
    recipes=(Recipe("plain", draw), Recipe("a text", lambda one: draw(one, S=20, axes=0))),
    checks=(
        Check("decoding", "a text in pieces equals the full pass; texts in turn and two continuations of one stand apart", 0.25,
              ("a text",), in_turn(pieces_agree(("x",), ("cache",)), texts_in_turn(("x",), ("cache",)),
                                   branches_apart("x", "cache")), (FORMULA, CACHE, "calls")),
        Check("parameters", "every parameter is used and learns", 0.5, ("plain",),
              in_turn(every_parameter_learns(), works_as_made()), FORMULA),
        Check("own work", "attention is written out", 0.25, ("plain",), obeys(FUSED, "attention"), FORMULA, binding=True),
    ),
    diagnoses={"": (finite_when("huge scores", "all scores low"), responds({"x": OUTPUTS}, mixing="x"))},
    mistakes=slips(_steps, SLIPS),
    hints=(
        "Which tensor is made of x alone, is the same for all heads, and is enough to make keys and values of again?",
        "latent = [cache, kv_down(x)] along the length: that is what you return. Keys and values are made of all of it, "
        "queries of x. There are S queries and P + S keys.",
        "`latent = torch.cat([cache, self.kv_down(x)], -2)`; split `self.q_proj(x)`, `self.k_up(latent)` and "
        "`self.v_up(latent)` into heads with `unflatten(-1, (num_heads, -1)).transpose(-3, -2)`; mask with `tril(P)`; merge "
        "with `transpose(-3, -2).flatten(-2)` and apply out_proj.",
    ),
)  # fmt: skip
