"""Exercises `SelfAttention` and `CrossAttention`: four projections around attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from autograder.case import Recipe
from autograder.checks import Check, Parameter, Probe, Target
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.causality import causal
from autograder.checks.check import in_turn
from autograder.checks.gradients import every_parameter_learns, works_as_made
from autograder.checks.masking import dead_rows, mask_of_fewer_axes, mask_selects
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import ATTENTION_SLIPS, CAUSAL_SLIPS, attend
from autograder.oracle.attention import cross_attention, self_attention
from autograder.situations import (
    BOTH_MASKS,
    DTYPES,
    LENGTHS,
    MASKS,
    MODULE_AXES,
    ONE_LENGTH,
    Factor,
    Situations,
    drawn_by,
    groups,
    module_scores,
    without,
)
from autograder.situations.space import MANY

__all__ = ["CROSS_ATTENTION", "SELF_ATTENTION"]

OUTPUTS = ("output", "weights")
FORMULA = "agrees with the formula"
SQUARE = ("d_model", "d_model")
Weights = Mapping[str, Tensor]


def linear(x: Tensor, weights: Weights, name: str, bias: bool = True, turned: bool = False) -> Tensor:
    offset = weights.get(f"{name}_bias") if bias else None
    result = x @ (weights[name] if turned else weights[name].mT)
    return result if offset is None else result + offset


def normed(x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:])


def projected_out(output: Tensor, weights: Weights) -> Tensor:
    return linear(output, weights, "out_proj")


def made(weights: Tensor, inputs: Weights) -> Tensor:
    """The output that the module's layers make with these attention weights."""
    exact = {
        name: value.to(torch.float64)
        for name, value in inputs.items()
        if name not in ("attn_mask", "is_causal")
    }
    values = linear(exact.get("context", exact["x"]), exact, "v_proj")
    return linear(weights.to(torch.float64) @ values, exact, "out_proj")


def block(
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
    finish: Callable[[Tensor, Tensor, Weights], Tensor] = lambda output, x, w: projected_out(output, w),
    knobs: Mapping[str, Any] | None = None,
    **weights: Tensor,
) -> Mapping[str, Tensor]:
    """A self- or cross-attention module with knobs; `knobs` are those of `attend`."""
    given = sources(x, x if context is None else context)
    inputs = [
        linear(prepare(source), weights, name, bias, turned) if used else prepare(source)
        for source, name, used in zip(given, names, projected, strict=True)
    ]
    if again:
        inputs[0] = linear(inputs[0], weights, names[0])
    query, key, value = inputs
    result = attend(query, key, value, attn_mask, is_causal, **(knobs or {}))
    return {"output": finish(result["output"], x, weights), "weights": result["weights"]}


def by_context_width(context: Tensor, **given: Any) -> Mapping[str, Tensor]:
    return block(context=context, knobs={"scale": lambda q, k, v: context.shape[-1] ** -0.5}, **given)


NORM = "Normalising belongs to the block around this module. Is it done here?"
PROJECTED = "The projection exists. Is it applied before the scores are computed?"

MODULE_SLIPS: Slips = {
    "Is out_proj applied to the weighted values?": {"out_proj never applied": {"finish": lambda output, x, w: output}},
    "Is the layer called, or only its weight used?": {
        "out_proj applied without its bias": {"finish": lambda output, x, w: output @ w["out_proj"].mT},
    },
    "Are the layers called, or only their weights used?": {"projections without their biases": {"bias": False}},
    PROJECTED: {
        "values not projected": {"projected": (True, True, False)},
        "queries not projected": {"projected": (False, True, True)},
        "keys not projected": {"projected": (True, False, True)},
        "projections never applied": {"projected": (False, False, False)},
    },
    "Which projection makes the keys?": {"keys made by v_proj": {"names": ("q_proj", "v_proj", "v_proj")}},
    "Which projection makes the values?": {"values made by k_proj": {"names": ("q_proj", "k_proj", "k_proj")}},
    "Which projection makes the keys, which the values?": {
        "keys and values exchanged": {"names": ("q_proj", "v_proj", "k_proj")},
    },
    "The residual connection belongs to the block around this module. Is x added here?": {
        "input added to the output": {"finish": lambda output, x, w: projected_out(output, w) + x},
    },
    "nn.Linear holds its weight as (out, in). Is the layer called?": {
        "out_proj applied transposed": {"finish": lambda output, x, w: output @ w["out_proj"] + w.get("out_proj_bias", 0.0)},
    },
    "Is q_proj applied to what q_proj has made?": {"queries projected twice": {"again": True}},
    NORM: {
        "layer norm of the inputs": {"prepare": normed},
        "layer norm of the output": {"finish": lambda output, x, w: normed(projected_out(output, w))},
    },
    "Is there a nonlinearity where the formula has none?": {
        "relu of the output": {"finish": lambda output, x, w: projected_out(output, w).relu()},
        "tanh of the output": {"finish": lambda output, x, w: projected_out(output, w).tanh()},
    },
}  # fmt: skip

SELF_ONLY: Slips = {
    "nn.Linear holds its weight as (out, in). Are the layers called?": {
        "projections applied transposed": [{"turned": True}, {"turned": True, "bias": False}],
    },
    "Which projection makes the keys?": {"keys made by q_proj": {"names": ("q_proj", "q_proj", "v_proj")}},
    "Which projection makes the queries?": {"queries made by k_proj": {"names": ("k_proj", "k_proj", "v_proj")}},
    "Which projection makes the queries, which the keys?": {
        "queries and keys exchanged": {"names": ("k_proj", "q_proj", "v_proj")},
    },
    "Which projection makes the values?": {"values made by q_proj": {"names": ("q_proj", "k_proj", "q_proj")}},
}  # fmt: skip

CROSS_ONLY: Slips = {
    "The scores are products of vectors of which width?": {"divided by sqrt(d_context)": by_context_width},
    "Do keys and values come from context?": {"context never used": {"sources": lambda x, c: (x, x, x)}},
    "Do the values come from context?": {"values taken from x": {"sources": lambda x, c: (x, c, x)}},
    "Do the keys come from context?": {"keys taken from x": {"sources": lambda x, c: (x, x, c)}},
    "Who asks, and who is asked? Queries come from x.": {"queries taken from context": {"sources": lambda x, c: (c, x, x)}},
    "Do the queries come from x?": {"x never used": {"sources": lambda x, c: (c, c, c)}},
}  # fmt: skip


SAME = ("divided by sqrt(D_v)",)
"""No mistake here: all widths are d_model."""
SAME_IN_SELF = (
    *SAME,
    "divided by sqrt(S_q)",
    "divided by the root of axis 1",
    "causal mask aligned at the bottom right",
)


def diagnoses(*sources: str) -> Mapping[str, tuple[Probe, ...]]:
    """What to try for a name: sources are the sequences, the one with the keys last."""
    through = {name: 2 for name in sources}
    return {
        "": (
            responds(dict.fromkeys(sources, OUTPUTS), mixing="x" if len(sources) == 1 else None), weights_agree(made),
            agrees_with_slices(through, OUTPUTS), survives_large_inputs(),
            permutation({sources[-1]: -2}, {"output": -2 if len(sources) == 1 else None}, "positions"),
        ),
        "attn_mask": (mask_selects("x", (sources[-1],), "weights"), mask_of_fewer_axes("x"), dead_rows(through=sources)),
        "is_causal": (causal({"x": -2}, {"x": -2}, OUTPUTS),),
    }  # fmt: skip


def learns(draw: Callable[..., dict[str, Any]]) -> tuple[tuple[Recipe, ...], tuple[Check, ...]]:
    """The one written check of both, and its case."""
    probe = in_turn(every_parameter_learns(), works_as_made())
    return (Recipe("plain", draw),), (
        Check("parameters", "every parameter is used and learns", 0.25, ("plain",), probe, FORMULA),
    )


X = {"x": "... S d_model"}
draw_self = drawn_by(X, mask="... S S", init={"d_model": "d_model"}, leading=1, low=3)

ONE_HEAD = {"mask": "a mask per head", "axes": "two leading axes", "lengths": MANY}
"""Where there is much of everything else, the second axis is of length 1, and a mask for each head one for all."""

SELF_ATTENTION = Exercise(
    name="SelfAttention",
    assignment="basic_attention",
    target=Target("SelfAttention", OUTPUTS, self_attention),
    positional=("x",),
    parameters=tuple(Parameter(name, SQUARE, bias=True) for name in ("q_proj", "k_proj", "v_proj", "out_proj")),
    situations=Situations(
        draw=draw_self,
        factors={"lengths": ONE_LENGTH, "mask": BOTH_MASKS, "scores": module_scores(), "dtype": DTYPES, "axes": MODULE_AXES},
        axes={**X, "attn_mask": "... S S"},
        groups=groups(
            "out_proj(attention(q_proj(x), k_proj(x), v_proj(x)))", 1.5,
            masks=1.25, lengths=0.5, scores=0.5, gradient=0.25, dtypes=0.25, calls=0.5,
        ),
        never=(ONE_HEAD,),
        module=True,
    ),
    recipes=learns(draw_self)[0],
    checks=learns(draw_self)[1],
    diagnoses=diagnoses("x"),
    mistakes=(
        *slips(block, *ATTENTION_SLIPS, steps="knobs", without=SAME_IN_SELF), *slips(block, MODULE_SLIPS, SELF_ONLY),
    ),
    hints=(
        "One sequence plays three parts. Which four linear layers do you need, and where does each of them act?",
        "Query, key and value are three different projections of the same x. Your `attention` does the rest, masks "
        "included; the output passes through out_proj, the weights do not.",
        "In forward: call `attention` with `self.q_proj(x)`, `self.k_proj(x)`, `self.v_proj(x)`, `attn_mask` and "
        "`is_causal`; return `self.out_proj(output)` and the weights.",
    ),
)  # fmt: skip

X_AND_CONTEXT = {"x": "... S_q d_model", "context": "... S_k d_context"}
draw_cross = drawn_by(
    X_AND_CONTEXT, mask="... S_q S_k", init={"d_model": "d_model", "d_context": "d_context"}, leading=1, low=3
)
CROSSED: Factor = {
    **without(LENGTHS, "one tensor for several"),
    "a sequence with itself":
        ({"S_k": "S_q", "d_context": "d_model"}, lambda draw, given: {**given, "context": given["x"]}),
}  # fmt: skip

CROSS_ATTENTION = Exercise(
    name="CrossAttention",
    assignment="basic_attention",
    target=Target("CrossAttention", OUTPUTS, cross_attention),
    positional=("x", "context"),
    parameters=tuple(
        Parameter(name, ("d_model", "d_context") if name in ("k_proj", "v_proj") else SQUARE, bias=True)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj")
    ),
    situations=Situations(
        draw=draw_cross,
        factors={"lengths": CROSSED, "mask": MASKS, "scores": module_scores("x", "context"),
                 "dtype": DTYPES, "axes": MODULE_AXES},
        axes={**X_AND_CONTEXT, "attn_mask": "... S_q S_k"},
        groups=groups(
            "out_proj(attention(q_proj(x), k_proj(context), v_proj(context)))", 1.5,
            masks=1.25, lengths=0.5, scores=0.5, gradient=0.25, dtypes=0.25, calls=0.5,
        ),
        never=(ONE_HEAD, {"scores": "all scores low", "dtype": "bfloat16"},  # their rounding hides what is wrong
               {"lengths": "a sequence with itself", "state": "after other sizes"}),  # which are two lengths
        module=True,
    ),
    recipes=learns(draw_cross)[0],
    checks=learns(draw_cross)[1],
    diagnoses=diagnoses("x", "context"),
    mistakes=(
        *slips(block, *(table for table in ATTENTION_SLIPS if table is not CAUSAL_SLIPS), steps="knobs", without=SAME),
        *slips(block, MODULE_SLIPS, CROSS_ONLY),
    ),
    hints=(
        "Who asks, and who answers? Only one of the two sequences gives the queries.",
        "Queries come from x, keys and values both from context. So k_proj and v_proj take d_context in and give "
        "d_model out; q_proj and out_proj stay d_model to d_model.",
        "In forward: `attention(self.q_proj(x), self.k_proj(context), self.v_proj(context), attn_mask)`, then "
        "`self.out_proj` on the output only.",
    ),
)  # fmt: skip
