"""Exercises `SelfAttention` and `CrossAttention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from autograder.case import Draw, Recipe
from autograder.checks import Check, Parameter, Target
from autograder.checks.agreement import agrees
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.causality import causal
from autograder.checks.conduct import dtype_kept, inputs_untouched, repeatable
from autograder.checks.gradients import differentiable, every_parameter_learns
from autograder.checks.masking import dead_rows, mask_selects
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.basic_attention.variants import (
    CAUSAL_SLIPS,
    MASK_SLIPS,
    PRODUCT_SLIPS,
    SCALE_SLIPS,
    WEIGHT_SLIPS,
    Slip,
    attend,
)
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.attention import cross_attention, self_attention

__all__ = ["CROSS_ATTENTION", "SELF_ATTENTION"]

OUTPUTS = ("output", "weights")
COUNTS = "every input counts"
FORMULA = "agrees with the formula"
RESULTS = (FORMULA, "weights")
MASKED_RESULTS = (*RESULTS, "mask")
LENGTHS = {"many": (12, 20), "long": (33, 60)}
Weights = Mapping[str, Tensor]


def _mask(draw: Draw, kind: str, lead: list[int], S_q: int, S_k: int) -> dict[str, Tensor]:
    """attn_mask: "full", "shared" (S_q, S_k), "padding" (..., 1, S_k), "dead" (with a row that allows no key), "single"
    (each row allows one key), or none."""
    if not kind:
        return {}
    if kind == "single":
        chosen = draw.uniform(*lead, S_q, S_k).argmax(-1, keepdim=True)
        return {"attn_mask": torch.zeros(*lead, S_q, S_k, dtype=torch.bool).scatter_(-1, chosen, True)}
    shapes = {"shared": (S_q, S_k), "padding": (*lead, 1, S_k)}
    return {"attn_mask": draw.mask(*shapes.get(kind, (*lead, S_q, S_k)), dead_rows=kind == "dead")}


def _self_inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    mask: str = "",
    is_causal: bool = False,
    lengths: str = "",
    size: float = 1.0,
    high: int = 9,
) -> dict[str, Any]:
    """x (..., S, d_model). lengths: "square" for S = d_model, "many" for 12 to 20 positions, "long" for 33 to 60."""
    *lead, S, d_model = draw.sizes(axes + 2, low=3, high=high)
    if lengths == "square":
        d_model = S
    elif lengths:
        S = draw.integer(*LENGTHS[lengths])
    inputs: dict[str, Any] = {
        "init": {"d_model": d_model},
        "x": draw.normal(*lead, S, d_model, dtype=dtype) * size,
    }
    return inputs | _mask(draw, mask, lead, S, S) | ({"is_causal": True} if is_causal else {})


def _both_masks(draw: Draw) -> dict[str, Any]:
    """attn_mask and is_causal, each of which hides something that the other shows; one row is left without a key."""
    inputs = _self_inputs(draw, mask="full", is_causal=True)
    S = inputs["x"].shape[-2]
    inputs["attn_mask"][..., 0] = True
    inputs["attn_mask"][..., 1:, 1] = False
    row = draw.integer(0, S - 2)
    inputs["attn_mask"][..., row, :] = torch.arange(S) > row
    return inputs


def _cross_inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    mask: str = "",
    lengths: str = "",
    size: float = 1.0,
    high: int = 9,
) -> dict[str, Any]:
    """x (..., S_q, d_model), context (..., S_k, d_context). lengths: "square" for all alike, or as for one sequence."""
    *lead, S_q, S_k, d_model, d_context = draw.sizes(axes + 4, low=3, high=high)
    if lengths == "square":
        S_k = d_model = d_context = S_q
    elif lengths:
        S_q, S_k = draw.sizes(2, *LENGTHS[lengths])
    inputs: dict[str, Any] = {
        "init": {"d_model": d_model, "d_context": d_context},
        "x": draw.normal(*lead, S_q, d_model, dtype=dtype) * size,
        "context": draw.normal(*lead, S_k, d_context, dtype=dtype) * size,
    }
    return inputs | _mask(draw, mask, lead, S_q, S_k)


def _linear(x: Tensor, weights: Weights, name: str, bias: bool = True, turned: bool = False) -> Tensor:
    offset = weights.get(f"{name}_bias") if bias else None
    result = x @ (weights[name] if turned else weights[name].mT)
    return result if offset is None else result + offset


def _normed(x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:])


def _made(weights: Tensor, inputs: Weights) -> Tensor:
    """The output that the module's layers make with these attention weights."""
    exact = {
        name: value.to(torch.float64)
        for name, value in inputs.items()
        if name not in ("attn_mask", "is_causal")
    }
    values = _linear(exact.get("context", exact["x"]), exact, "v_proj")
    return _linear(weights.to(torch.float64) @ values, exact, "out_proj")


Block = Callable[..., Mapping[str, Tensor]]


def _block(
    x: Tensor,
    context: Tensor | None = None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    names: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj"),
    projected: tuple[bool, bool, bool] = (True, True, True),
    bias: bool = True,
    turned: bool = False,
    again: bool = False,
    prepare: Callable[[Tensor], Tensor] = lambda x: x,
    sources: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] = lambda x, context: (
        x,
        context,
        context,
    ),
    finish: Callable[[Tensor, Tensor, Weights], Tensor] = lambda output, x, w: _linear(output, w, "out_proj"),
    knobs: Mapping[str, Any] | None = None,
    **weights: Tensor,
) -> Mapping[str, Tensor]:
    """A self- or cross-attention module with knobs; `knobs` are those of `attend`."""
    given = sources(x, x if context is None else context)
    inputs = [
        _linear(prepare(source), weights, name, bias, turned) if used else prepare(source)
        for source, name, used in zip(given, names, projected, strict=True)
    ]
    if again:
        inputs[0] = _linear(inputs[0], weights, names[0])
    query, key, value = inputs
    result = attend(query, key, value, attn_mask, is_causal, **(knobs or {}))
    return {"output": finish(result["output"], x, weights), "weights": result["weights"]}


def _by_context_width(
    x: Tensor, context: Tensor, attn_mask: Tensor | None = None, **weights: Tensor
) -> Mapping[str, Tensor]:
    knobs = {"scale": lambda q, k, v: context.shape[-1] ** -0.5}
    block: Block = partial(_block, knobs=knobs)
    return block(x, context, attn_mask, **weights)


def _slips(*groups: tuple[Slip, ...]) -> tuple[Mistake, ...]:
    return tuple(Mistake(n, q, partial(_block, knobs=k)) for group in groups for n, q, k in group)


NORM = "Normalising belongs to the block around this module. Is it done here?"
PROJECTED = "The projection exists. Is it applied before the scores are computed?"
MODULE_SLIPS = (
    Mistake(
        "out_proj never applied",
        "Is out_proj applied to the weighted values?",
        partial(_block, finish=lambda output, x, w: output),
    ),
    Mistake(
        "out_proj applied without its bias",
        "Is the layer called, or only its weight used?",
        partial(_block, finish=lambda output, x, w: output @ w["out_proj"].mT),
    ),
    Mistake(
        "projections without their biases",
        "Are the layers called, or only their weights used?",
        partial(_block, bias=False),
    ),
    Mistake("values not projected", PROJECTED, partial(_block, projected=(True, True, False))),
    Mistake("queries not projected", PROJECTED, partial(_block, projected=(False, True, True))),
    Mistake("keys not projected", PROJECTED, partial(_block, projected=(True, False, True))),
    Mistake("projections never applied", PROJECTED, partial(_block, projected=(False, False, False))),
    Mistake(
        "keys made by v_proj",
        "Which projection makes the keys?",
        partial(_block, names=("q_proj", "v_proj", "v_proj")),
    ),
    Mistake(
        "values made by k_proj",
        "Which projection makes the values?",
        partial(_block, names=("q_proj", "k_proj", "k_proj")),
    ),
    Mistake(
        "keys and values exchanged",
        "Which projection makes the keys, which the values?",
        partial(_block, names=("q_proj", "v_proj", "k_proj")),
    ),
    Mistake(
        "input added to the output",
        "The residual connection belongs to the block around this module. Is x added here?",
        partial(_block, finish=lambda output, x, w: _linear(output, w, "out_proj") + x),
    ),
    Mistake(
        "out_proj applied transposed",
        "nn.Linear holds its weight as (out, in). Is the layer called?",
        partial(_block, finish=lambda output, x, w: output @ w["out_proj"] + w.get("out_proj_bias", 0.0)),
    ),
    Mistake(
        "projections applied transposed",
        "nn.Linear holds its weight as (out, in). Are the layers called?",
        partial(_block, turned=True),
    ),
    Mistake(
        "projections applied transposed",
        "nn.Linear holds its weight as (out, in). Are the layers called?",
        partial(_block, turned=True, bias=False),
    ),
    Mistake(
        "queries projected twice", "Is q_proj applied to what q_proj has made?", partial(_block, again=True)
    ),
    Mistake("layer norm of the inputs", NORM, partial(_block, prepare=_normed)),
    Mistake(
        "layer norm of the output",
        NORM,
        partial(_block, finish=lambda output, x, w: _normed(_linear(output, w, "out_proj"))),
    ),
    Mistake(
        "relu of the output",
        "Is there a nonlinearity where the formula has none?",
        partial(_block, finish=lambda output, x, w: _linear(output, w, "out_proj").relu()),
    ),
    Mistake(
        "tanh of the output",
        "Is there a nonlinearity where the formula has none?",
        partial(_block, finish=lambda output, x, w: _linear(output, w, "out_proj").tanh()),
    ),
)
SELF_ONLY = (
    Mistake(
        "keys made by q_proj",
        "Which projection makes the keys?",
        partial(_block, names=("q_proj", "q_proj", "v_proj")),
    ),
    Mistake(
        "queries made by k_proj",
        "Which projection makes the queries?",
        partial(_block, names=("k_proj", "k_proj", "v_proj")),
    ),
    Mistake(
        "queries and keys exchanged",
        "Which projection makes the queries, which the keys?",
        partial(_block, names=("k_proj", "q_proj", "v_proj")),
    ),
    Mistake(
        "values made by q_proj",
        "Which projection makes the values?",
        partial(_block, names=("q_proj", "k_proj", "q_proj")),
    ),
)
CROSS_ONLY = (
    Mistake(
        "divided by sqrt(d_context)", "The scores are products of vectors of which width?", _by_context_width
    ),
    Mistake(
        "context never used",
        "Do keys and values come from context?",
        partial(_block, sources=lambda x, c: (x, x, x)),
    ),
    Mistake(
        "values taken from x",
        "Do the values come from context?",
        partial(_block, sources=lambda x, c: (x, c, x)),
    ),
    Mistake(
        "keys taken from x", "Do the keys come from context?", partial(_block, sources=lambda x, c: (x, x, c))
    ),
    Mistake(
        "queries taken from context",
        "Who asks, and who is asked? Queries come from x.",
        partial(_block, sources=lambda x, c: (c, x, x)),
    ),
    Mistake("x never used", "Do the queries come from x?", partial(_block, sources=lambda x, c: (c, c, c))),
)

SQUARE = ("d_model", "d_model")
MASKED = ("a mask for each element", "one mask for all", "a padding mask")


def _recipes(inputs: Callable[..., dict[str, Any]], *more: Recipe) -> tuple[Recipe, ...]:
    def recipe(label: str, **options: Any) -> Recipe:
        return Recipe(label, partial(inputs, **options))

    return (
        recipe("unequal sizes"),
        recipe("all sizes equal", lengths="square"),
        recipe("large scores", size=2.5),
        recipe("a mask for each element", mask="full"),
        recipe("one mask for all", mask="shared"),
        recipe("a padding mask", mask="padding"),
        recipe("rows that allow no key", mask="dead"),
        recipe("two leading axes", axes=2),
        recipe("long sequences", lengths="long"),
        recipe("huge scores", size=100.0),
        recipe("huge scores, masked", size=1000.0, mask="single", lengths="long"),
        recipe("small, float64", axes=0, dtype=torch.float64, high=6),
        recipe("float64, masked", axes=0, dtype=torch.float64, mask="full", lengths="many"),
        recipe("float64", dtype=torch.float64),
        recipe("bfloat16", dtype=torch.bfloat16),
        recipe("float16", dtype=torch.float16),
        recipe("float16, masked", dtype=torch.float16, mask="full"),
        *more,
    )


def _conduct() -> tuple[Check, ...]:
    """What both modules must respect once their results are right."""
    return (
        Check(
            "huge scores",
            "no overflow for large inputs",
            0.25,
            ("huge scores", "huge scores, masked"),
            survives_large_inputs(),
            MASKED_RESULTS,
        ),
        Check(
            "parameters",
            "every parameter is used and learns",
            0.25,
            ("unequal sizes",),
            every_parameter_learns(),
            RESULTS,
        ),
        Check(
            "gradient",
            "backward() gives the derivative, for inputs and weights",
            0.25,
            ("small, float64", "float64, masked"),
            differentiable(OUTPUTS),
            MASKED_RESULTS,
        ),
        Check(
            "dtype",
            "the dtype of inputs and weights is kept, and its precision",
            0.25,
            ("float64", "bfloat16", "float16", "float16, masked"),
            dtype_kept(OUTPUTS),
            MASKED_RESULTS,
        ),
        Check(
            "inputs untouched",
            "no input is written to",
            0.25,
            ("a mask for each element",),
            inputs_untouched(),
            RESULTS,
        ),
        Check(
            "layout",
            "strides and earlier calls do not matter",
            0.25,
            ("unequal sizes",),
            repeatable(OUTPUTS),
            RESULTS,
        ),
    )


SELF_ATTENTION = Exercise(
    name="SelfAttention",
    assignment="basic_attention",
    target=Target("SelfAttention", OUTPUTS, self_attention),
    positional=("x",),
    parameters=tuple(
        Parameter(name, SQUARE, bias=True) for name in ("q_proj", "k_proj", "v_proj", "out_proj")
    ),
    recipes=_recipes(
        _self_inputs,
        Recipe("causal", partial(_self_inputs, is_causal=True)),
        Recipe("causal and masked", _both_masks),
    ),
    checks=(
        Check(
            COUNTS,
            "the results change with x, also with x at other positions",
            0.25,
            ("unequal sizes",),
            responds({"x": OUTPUTS}, mixing="x"),
        ),
        Check(
            FORMULA,
            "out_proj(attention(q_proj(x), k_proj(x), v_proj(x)))",
            1.0,
            ("unequal sizes", "all sizes equal", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights, rows summing to 1",
            0.25,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(_made),
            COUNTS,
        ),
        Check(
            "mask",
            "attn_mask says which positions may be seen",
            0.5,
            MASKED,
            mask_selects("x", ("x",), "weights"),
            COUNTS,
        ),
        Check(
            "dead rows",
            "a position that may see none comes out as out_proj's bias",
            0.25,
            ("rows that allow no key",),
            dead_rows(through=("x",)),
            COUNTS,
        ),
        Check(
            "causal",
            "the future cannot change the past",
            0.5,
            ("causal",),
            causal({"x": -2}, {"x": -2}, OUTPUTS),
            COUNTS,
        ),
        Check(
            "both masks",
            "with attn_mask and is_causal, a position must be allowed by both",
            0.25,
            ("causal and masked",),
            mask_selects("x", ("x",), "weights"),
            COUNTS,
        ),
        Check(
            "order of the positions",
            "in another order the results are the same, in that order",
            0.25,
            ("long sequences",),
            permutation({"x": -2}, {"output": -2}, "positions"),
            COUNTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"x": 2}, OUTPUTS),
            COUNTS,
        ),
        *_conduct(),
    ),
    mistakes=(
        *_slips(SCALE_SLIPS, MASK_SLIPS, CAUSAL_SLIPS, WEIGHT_SLIPS, PRODUCT_SLIPS),
        *MODULE_SLIPS,
        *SELF_ONLY,
    ),
    hints=(
        (
            "One sequence plays three parts. Which four linear layers do you need, and where does each of "
            "them act?"
        ),
        (
            "Query, key and value are three different projections of the same x. Your `attention` does "
            "the rest, masks included; the output passes through out_proj, the weights do not."
        ),
        (
            "In forward: call `attention` with `self.q_proj(x)`, `self.k_proj(x)`, `self.v_proj(x)`, "
            "`attn_mask` and `is_causal`; return `self.out_proj(output)` and the weights."
        ),
    ),
)

CROSS_ATTENTION = Exercise(
    name="CrossAttention",
    assignment="basic_attention",
    target=Target("CrossAttention", OUTPUTS, cross_attention),
    positional=("x", "context"),
    parameters=(
        Parameter("q_proj", SQUARE, bias=True),
        Parameter("k_proj", ("d_model", "d_context"), bias=True),
        Parameter("v_proj", ("d_model", "d_context"), bias=True),
        Parameter("out_proj", SQUARE, bias=True),
    ),
    recipes=_recipes(_cross_inputs),
    checks=(
        Check(
            COUNTS,
            "the results change when x or context do",
            0.25,
            ("all sizes equal",),
            responds({"x": OUTPUTS, "context": OUTPUTS}),
        ),
        Check(
            FORMULA,
            "out_proj(attention(q_proj(x), k_proj(context), v_proj(context)))",
            1.25,
            ("all sizes equal", "unequal sizes", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights, rows summing to 1",
            0.5,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(_made),
            COUNTS,
        ),
        Check(
            "mask",
            "attn_mask says which positions of the context may be seen",
            0.5,
            MASKED,
            mask_selects("x", ("context",), "weights"),
            COUNTS,
        ),
        Check(
            "dead rows",
            "a position that may see none comes out as out_proj's bias",
            0.5,
            ("rows that allow no key",),
            dead_rows(through=("x", "context")),
            COUNTS,
        ),
        Check(
            "order of the context",
            "the context may come in any order",
            0.25,
            ("long sequences",),
            permutation({"context": -2}, {"output": None, "weights": -1}, "context positions"),
            COUNTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"x": 2, "context": 2}, OUTPUTS),
            COUNTS,
        ),
        *_conduct(),
    ),
    mistakes=(*_slips(SCALE_SLIPS, MASK_SLIPS, WEIGHT_SLIPS, PRODUCT_SLIPS), *MODULE_SLIPS, *CROSS_ONLY),
    hints=(
        "Who asks, and who answers? Only one of the two sequences gives the queries.",
        (
            "Queries come from x, keys and values both from context. So k_proj and v_proj take d_context "
            "in and give d_model out; q_proj and out_proj stay d_model to d_model."
        ),
        (
            "In forward: `attention(self.q_proj(x), self.k_proj(context), self.v_proj(context), "
            "attn_mask)`, then `self.out_proj` on the output only."
        ),
    ),
)
