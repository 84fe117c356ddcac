"""Exercise `TransformerBlock`: attention and a feed-forward network, each with a residual and a norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu

from autograder.case import Draw, Recipe
from autograder.checks import Check, Parameter, Target
from autograder.checks.check import in_turn
from autograder.checks.configured import ConfiguredModule, biases_as_asked, refused_when_made
from autograder.checks.gradients import every_parameter_learns, works_as_made
from autograder.checks.heads import past_stands
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise
from autograder.exercises.multi_head_attention.levels import ALL_EQUAL, BOTH_HEAD_MASKS, FEW, HEADS, NEVER
from autograder.exercises.multi_head_attention.module import LAYERS, linear, projected
from autograder.mistakes import Slips, slips
from autograder.oracle.multi_head import block as formula
from autograder.situations import (
    DTYPES,
    MODULE_AXES,
    Factor,
    Group,
    Situations,
    drawn_by,
    groups,
    module_scores,
    without,
)
from autograder.situations.factors import HUNDREDS, LONG_PRIMES, WEIGHTS

__all__ = ["TRANSFORMER_BLOCK"]

Inputs = dict[str, Any]
Step = Callable[[Tensor], Tensor]
Order = Callable[[Tensor, Step, Step], Tensor]
"""x, norm, step -> x after that step."""

# The block in named steps


def pre(x: Tensor, norm: Step, step: Step) -> Tensor:
    return x + step(norm(x))


def post(x: Tensor, norm: Step, step: Step) -> Tensor:
    return norm(x + step(x))


def deviation(centred: Tensor) -> Tensor:
    return (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def block(
    x: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    num_heads: int,
    norm_first: bool = True,
    before: tuple[Order, Order] = (pre, pre),
    after: tuple[Order, Order] = (post, post),
    whole: Callable[..., Tensor] | None = None,
    swapped: bool = False,
    active: Step = torch.relu,
    deviation: Step = deviation,
    masks: Callable[[Tensor | None, bool], tuple[Tensor | None, bool]] = lambda m, c: (m, c),
    norms: tuple[str, str] = ("norm1", "norm2"),
    heads: int | None = None,
    **weights: Tensor,
) -> Mapping[str, Tensor]:
    """before, after: how attention and network are wired in pre-norm and in post-norm. whole: how all is wired, of x, norm_first,
    attention, network and their norms. swapped: the network comes first. masks: attn_mask, is_causal -> those that are used."""
    inner: dict[str, Any] = {
        n.removeprefix("attention."): w for n, w in weights.items() if n.startswith("attention.")
    }
    mask, causal = masks(attn_mask, is_causal)

    def norm(name: str, source: Tensor) -> Tensor:
        centred = source - source.mean(-1, keepdim=True)
        return centred / deviation(centred) * weights[name] + weights.get(f"{name}_bias", 0.0)

    def attention(source: Tensor) -> Tensor:
        return projected(source, attn_mask=mask, is_causal=causal, num_heads=heads or num_heads, **inner)[
            "output"
        ]

    def network(source: Tensor) -> Tensor:
        return linear(active(linear(source, weights, "linear1")), weights, "linear2")

    norm1, norm2 = (partial(norm, name) for name in norms)
    if whole is not None:
        return {"output": whole(x, norm_first, attention, network, norm1, norm2)}
    first, second = before if norm_first else after
    steps = (network, attention) if swapped else (attention, network)
    return {"output": second(first(x, norm1, steps[0]), norm2, steps[1])}


def _first_input_again(x: Tensor, norm_first: bool, a: Step, f: Step, norm1: Step, norm2: Step) -> Tensor:
    return x + f(norm2(x + a(norm1(x)))) if norm_first else norm2(x + f(norm1(x + a(x))))


def _side_by_side(x: Tensor, norm_first: bool, a: Step, f: Step, norm1: Step, norm2: Step) -> Tensor:
    return x + a(norm1(x)) + f(norm2(x)) if norm_first else norm2(norm1(x + a(x)) + f(x))


def _of_the_normed(x: Tensor, norm: Step, step: Step) -> Tensor:
    return pre(norm(x), lambda y: y, step)


def _both(x: Tensor, norm: Step, step: Step) -> Tensor:
    return norm(pre(x, norm, step))


def _pre_twice(x: Tensor, norm: Step, step: Step) -> Tensor:
    return x + pre(x, norm, step)


def _post_twice(x: Tensor, norm: Step, step: Step) -> Tensor:
    return norm(x + x + step(x))


def _pre_bare(x: Tensor, norm: Step, step: Step) -> Tensor:
    return step(norm(x))


def _post_bare(x: Tensor, norm: Step, step: Step) -> Tensor:
    return norm(step(x))


def _unnormed(x: Tensor, norm: Step, step: Step) -> Tensor:
    return x + step(x)


def _skipped(x: Tensor, norm: Step, step: Step) -> Tensor:
    return x


def _always(first: Order, second: Order) -> dict[str, tuple[Order, Order]]:
    return {"before": (first, second), "after": (first, second)}


ORDER = "Pre-norm is x + step(norm(x)), post-norm is norm(x + step(x)); norm_first=True asks for pre-norm."
ONCE = "Each x is added once, the one that the step started from."

SLIPS: Slips = {
    ORDER: {
        "pre-norm and post-norm exchanged": {"before": (post, post), "after": (pre, pre)},
        "normed before and after": [_always(_both, _both), {"before": (_both, pre)}],
    },
    "Does norm_first decide anything? " + ORDER: {
        "always pre-norm": {"after": (pre, pre)},
        "always post-norm": {"before": (post, post)},
    },
    "One order throughout. " + ORDER: {
        "half pre-norm, half post-norm": [
            _always(post, pre), _always(pre, post), {"before": (post, pre)}, {"before": (pre, post)}, {"after": (post, pre)},
            {"after": (pre, post)},
        ],
    },
    "norm_first is True where the constructor is told nothing.": {"post-norm by default": {"norm_first": False}},
    ONCE + " Does a step's result already hold x?": {
        "skip path counted twice": [
            {"before": (_pre_twice, _pre_twice), "after": (_post_twice, _post_twice)},
            {"before": (pre, _pre_twice), "after": (post, _post_twice)},
            {"before": (_pre_twice, _pre_twice)}, {"after": (_post_twice, _post_twice)},
            {"before": (pre, _pre_twice)}, {"after": (post, _post_twice)},
        ],
    },
    "In pre-norm the skip path goes round the norm. Is x overwritten by norm(x)?": {
        "the normed x is added, not x itself": {"before": (_of_the_normed, _of_the_normed)},
    },
    ONCE: {
        "no residual at the attention": {"before": (_pre_bare, pre), "after": (_post_bare, post)},
        "no residual at the feed-forward network": {"before": (pre, _pre_bare), "after": (post, _post_bare)},
        "no residuals": {"before": (_pre_bare, _pre_bare), "after": (_post_bare, _post_bare)},
    },
    ONCE + " The second step starts from what the first has made.": {
        "the second residual adds the block's input": {"whole": _first_input_again},
    },
    "Does the feed-forward network read what attention has made?": {"the two steps side by side": {"whole": _side_by_side}},
    "Which of the two steps comes first?": {"feed-forward network before the attention": {"swapped": True}},
    "Is attention called?": {"attention never applied": {"before": (_skipped, pre), "after": (_skipped, post)}},
    "Are linear1 and linear2 called?": {
        "feed-forward network never applied": {"before": (pre, _skipped), "after": (post, _skipped)},
    },
    "Are norm1 and norm2 called?": {"norms never applied": _always(_unnormed, _unnormed)},
    "Is norm2 called?": {"norm2 never applied": {"before": (pre, _unnormed), "after": (post, _unnormed)}},
    "Each step has a norm of its own.": {"norm1 used twice": {"norms": ("norm1", "norm1")}},
    "norm1 belongs to the attention.": {"norm1 and norm2 exchanged": {"norms": ("norm2", "norm1")}},
    "Two linear layers in a row are one. Where is the relu?": {
        "no nonlinearity in the feed-forward network": {"active": lambda s: s},
    },
    "Is attention made with the number of heads that was asked for?": {"num_heads not handed on": {"heads": 1}},
    "Which nonlinearity is asked for?": {
        "gelu where relu is meant": {"active": gelu},
        "tanh where relu is meant": {"active": torch.tanh},
    },
    "nn.LayerNorm adds 1e-5 to the variance. Is another number given?": {
        "layer norm with another eps": [
            {"deviation": lambda c: (c.square().mean(-1, keepdim=True) + 1e-6).sqrt()},
            {"deviation": lambda c: (c.square().mean(-1, keepdim=True) + 1e-12).sqrt()},
        ],
    },
    "nn.LayerNorm divides by sqrt(variance + eps), the variance over D and not D - 1. Is std() used?": {
        "layer norm by the sample deviation": {"deviation": lambda c: c.std(-1, keepdim=True) + 1e-5},
    },
    "Is attn_mask handed on to attention?": {"mask ignored": {"masks": lambda m, c: (None, c)}},
    "True means allowed, here and in attention. Is the mask inverted on the way?": {
        "mask turned round": {"masks": lambda m, c: (None if m is None else ~m, c)},
    },
    "Is is_causal handed on to attention?": {"is_causal ignored": {"masks": lambda m, c: (m, False)}},
    "Should the triangle apply only if is_causal is True?": {"always causal": {"masks": lambda m, c: (m, True)}},
    "With both given, a position must be allowed by both.": {
        "attn_mask replaces the causal mask": {"masks": lambda m, c: (m, c and m is None)},
    },
}  # fmt: skip

# Its situations

QUERY, KEY = "attention.q_proj", "attention.k_proj"
SHAPES = {"x": "... S d_model"}
drawn = drawn_by(
    SHAPES,
    mask="... H S S",
    init={"d_model": "d_model", "num_heads": "H", "d_ff": "d_ff"},
    values={"num_heads": "H"},
    derived={"d_model": lambda s: s["H"] * s["D"], "d_ff": lambda s: s["H"] * s["D"] + s["more"]},
    free="D more",
    leading=1,
)


def draw(one: Draw, *, norm_first: bool | None = True, size: float = 3.0, **options: Any) -> Inputs:
    """norm_first: None leaves it to the constructor. size: at 3, what a norm adds to the variance is lost in float32."""
    inputs = drawn(one, size=size, **options)
    order = {} if norm_first is None else {"norm_first": norm_first}
    return {**inputs, "init": inputs["init"] | order, **order}


def _far(draw: Draw, inputs: Inputs) -> Inputs:
    """Rows whose mean is far larger than what they vary by: the mean of squares less the square of the mean has no digit left."""
    return {
        **inputs,
        "x": inputs["x"] + (8.0 if inputs["x"].dtype in (torch.float16, torch.bfloat16) else 256.0),
    }


def _huge(draw: Draw, inputs: Inputs) -> Inputs:
    factor = 2.0 if inputs["x"].dtype in (torch.float16, torch.bfloat16) else 16.0
    return {**inputs, WEIGHTS: lambda given: {name: given[name] * factor for name in (QUERY, KEY)}}


def _low(draw: Draw, inputs: Inputs) -> Inputs:
    """All scores equal, and as low as the dtype allows: queries and keys are nothing but biases."""
    width = inputs["x"].shape[-1] // inputs["num_heads"]
    most = 57600 / width if inputs["x"].dtype == torch.float16 else 1e5 / width**0.5
    power = math.floor(math.log2(min(most, 1e5 / width**0.5)))
    bias = {QUERY: 2.0 ** (power - power // 2), KEY: -(2.0 ** (power // 2))}

    def weights(given: Mapping[str, Any]) -> dict[str, Tensor]:
        made = {name: torch.zeros_like(given[name]) for name in bias}
        return made | {
            f"{n}_bias": torch.full_like(given[f"{n}_bias"], b)
            for n, b in bias.items()
            if f"{n}_bias" in given
        }

    return {**inputs, WEIGHTS: weights}


LENGTHS: Factor = {
    "several positions": {"S": (3, 9)},
    ALL_EQUAL: dict.fromkeys(("S", "H", "D", "batch"), 3),
    "as many positions as features": {"H": (2, 3), "D": (2, 3), "S": "d_model"},
    "one position": {"S": 1},
    "hundreds of positions": {"H": 2, "D": 3, "D_v": 2, "S": HUNDREDS},
    "over 256 positions": {**FEW, "S": [269, 271, 277]},
    "over a thousand positions": {**FEW, "H": 1, "S": LONG_PRIMES},
}
MASKS = without(BOTH_HEAD_MASKS, "a mask of one axis", "is_causal and one mask for all")
"""All that is asked of masks here is that they are handed on."""

TRANSFORMER_BLOCK = Exercise(
    name="TransformerBlock",
    assignment="multi_head_attention",
    target=Target("TransformerBlock", ("output",), formula),
    positional=("x",),
    parameters=(
        *(Parameter(f"attention.{name}", ("d_model", "d_model"), bias=True) for name in LAYERS),
        Parameter("linear1", ("d_ff", "d_model"), bias=True),
        Parameter("linear2", ("d_model", "d_ff"), bias=True),
        Parameter("norm1", ("d_model",), bias=True),
        Parameter("norm2", ("d_model",), bias=True),
    ),
    used_as=ConfiguredModule,
    situations=Situations(
        draw=draw,
        factors={
            "order": {"pre-norm": {}, "post-norm": {"norm_first": False}, "order not given": {"norm_first": None}},
            "lengths": LENGTHS,
            "heads": {**HEADS, "wide heads": {"H": 2, "D": [11, 13]}},
            "mask": MASKS,
            "rows": {"rows that vary": {}, "nearly constant rows": {"size": 1e-3},
                     "rows far from zero": _far},
            "scores": {**module_scores("x", query=QUERY, key=KEY), "huge scores": _huge, "all scores low": _low},
            "dtype": DTYPES,
            "axes": MODULE_AXES,
        },
        axes={**SHAPES, "attn_mask": "... H S S"},
        groups=groups(
            "x + attention(norm1(x)), then x + f(norm2(x))", 2.0,
            (
                Group("order", "post-norm: norm1(x + attention(x)), then norm2(x + f(x)); by default pre-norm", 1.5, ("order",)),
                Group("heads", "one head, heads of width 1 and wide heads", 0.25, ("heads",)),
                Group("norms", "rows that hardly vary, to whose variance 1e-5 is added, and rows far from zero", 0.25, ("rows",)),
            ),
            masks=1.25, lengths=0.25, scores=0.25, gradient=0.5, dtypes=0.25, calls=0.75,
        ),
        never=(
            *NEVER,
            {"lengths": "hundreds of positions", "heads": "heads of width 1"},
            # The norm behind takes off what rows have in common, and rounding shows instead of the mask.
            {"order": "post-norm", "rows": "rows far from zero", "mask": tuple(BOTH_HEAD_MASKS)[1:]},
        ),
        module=True,
    ),
    recipes=(Recipe("pre-norm", draw), Recipe("post-norm", partial(draw, norm_first=False))),
    checks=(
        Check("uneven heads", "a d_model that num_heads does not divide is refused, saying why", 0.25, ("pre-norm",),
              refused_when_made(), "agrees with the formula"),
        Check("biases", "every layer and norm has one", 0.25, ("pre-norm", "post-norm"),
              biases_as_asked((*(f"attention.{name}" for name in LAYERS), "linear1", "linear2", "norm1", "norm2"))),
        Check("parameters", "every parameter is used and learns", 0.25, ("pre-norm", "post-norm"),
              in_turn(every_parameter_learns(), works_as_made()), ("agrees with the formula", "order")),
    ),
    diagnoses={
        "": (responds({"x": ("output",)}, mixing="x"), agrees_with_slices({"x": 2}, ("output",))),
        "is_causal": (past_stands("x"),),
    },
    mistakes=slips(block, SLIPS),
    hints=(
        "Two steps, attention and a small network of two layers. Each has a norm, and each is bypassed by x. "
        "Write both orders on paper first: where does the norm stand, and which x is added?",
        "Pre-norm: x = x + step(norm(x)), so the path of x itself meets no norm. Post-norm: x = norm(x + step(x)). "
        "Do that with attention and norm1, then with the feed-forward network and norm2.",
        "`self.attention(...)` returns a pair: take `[0]`, and pass attn_mask and is_causal on by name. The network is "
        "`self.linear2(torch.relu(self.linear1(x)))`. Use an `if self.norm_first:` with two lines in each branch.",
    ),
)  # fmt: skip
