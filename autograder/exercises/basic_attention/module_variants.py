"""Self- and cross-attention with knobs, in float64, and the mistakes that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from autograder.exercises.basic_attention.attention_slips import (
    CAUSAL_SLIPS,
    MASK_SLIPS,
    PRODUCT_SLIPS,
    SCALE_SLIPS,
    WEIGHT_SLIPS,
    Slip,
)
from autograder.exercises.basic_attention.variants import attend
from autograder.exercises.exercise import Mistake

__all__ = ["CROSS_MISTAKES", "SELF_MISTAKES", "made"]

Weights = Mapping[str, Tensor]


def _linear(x: Tensor, weights: Weights, name: str, bias: bool = True, turned: bool = False) -> Tensor:
    offset = weights.get(f"{name}_bias") if bias else None
    result = x @ (weights[name] if turned else weights[name].mT)
    return result if offset is None else result + offset


def _normed(x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:])


def made(weights: Tensor, inputs: Weights) -> Tensor:
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


def _slips(*groups: tuple[Slip, ...], without: frozenset[str]) -> tuple[Mistake, ...]:
    """The slips as mistakes of a module, without those that come to the same as another, or to the right thing."""
    return tuple(
        Mistake(name, question, partial(_block, knobs=knobs))
        for group in groups
        for name, question, knobs in group
        if name not in without
    )


NO_SLIP_IN_BOTH = frozenset({"divided by sqrt(D_v)"})
NO_SLIP_IN_SELF = NO_SLIP_IN_BOTH | {
    "divided by sqrt(S_q)",
    "divided by the root of axis 1",
    "causal mask aligned at the bottom right",
}


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

SELF_MISTAKES = (
    *_slips(SCALE_SLIPS, MASK_SLIPS, CAUSAL_SLIPS, WEIGHT_SLIPS, PRODUCT_SLIPS, without=NO_SLIP_IN_SELF),
    *MODULE_SLIPS,
    *SELF_ONLY,
)
CROSS_MISTAKES = (
    *_slips(SCALE_SLIPS, MASK_SLIPS, WEIGHT_SLIPS, PRODUCT_SLIPS, without=NO_SLIP_IN_BOTH),
    *MODULE_SLIPS,
    *CROSS_ONLY,
)
