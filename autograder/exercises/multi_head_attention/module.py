"""Exercise `MultiHeadAttention`: four projections around attention in heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Parameter, Target
from autograder.checks.averaging import finite_when
from autograder.checks.check import in_turn
from autograder.checks.conduct import obeys
from autograder.checks.configured import ConfiguredModule, biases_as_asked, refused_when_made
from autograder.checks.dropout import drops_weights
from autograder.checks.gradients import every_parameter_learns, works_as_made
from autograder.checks.heads import dead_rows_by_head, masks_by_head
from autograder.checks.structure import agrees_with_slices
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise
from autograder.exercises.multi_head_attention.function import averaged
from autograder.exercises.multi_head_attention.levels import BOTH_HEAD_MASKS, FEW, HEAD_LENGTHS, HEADS, NEVER
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import CAUSAL_SLIPS, only
from autograder.mistakes.heads import HEAD_SLIPS, heads
from autograder.oracle.multi_head import module as formula
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
from autograder.situations.factors import LONG_PRIMES

__all__ = ["LAYERS", "MULTI_HEAD_MODULE", "linear", "projected"]

LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")
OUTPUTS = ("output", "weights")
FORMULA = "agrees with the formula"
READY_MADE = frozenset({"multi_head_attention_forward", "_native_multi_head_attention"})
Inputs = dict[str, Any]
Weights = Mapping[str, Tensor]
Triple = tuple[Tensor, Tensor, Tensor]


def linear(x: Tensor, weights: Weights, name: str, bias: bool = True, turned: bool = False) -> Tensor:
    """The layer `name` on x (..., D). bias: add it, if there is one. turned: multiply by the weight as it is stored."""
    result = x @ (weights[name] if turned else weights[name].mT)
    offset = weights.get(f"{name}_bias") if bias else None
    return result if offset is None else result + offset


def _given(query: Tensor, key: Tensor | None, value: Tensor | None) -> Triple:
    key = query if key is None else key
    return query, key, key if value is None else value


def projected(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    need_weights: bool = False,
    *,
    num_heads: int,
    names: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj"),
    used: tuple[bool, bool, bool] = (True, True, True),
    bias: bool = True,
    turned: bool = False,
    sources: Callable[[Tensor, Tensor | None, Tensor | None], Triple] = _given,
    finish: Callable[[Tensor, Tensor, Weights], Tensor] = lambda output, query, w: linear(
        output, w, "out_proj"
    ),
    knobs: Mapping[str, Any] | None = None,
    **weights: Tensor,
) -> Mapping[str, Tensor]:
    """The module in named steps. names, used: which layer makes query, key and value, and whether it is applied. sources: what
    is projected. finish: output, query, weights -> output. knobs: the steps of `heads`."""
    parts = [
        linear(source, weights, name, bias, turned) if one else source
        for source, name, one in zip(sources(query, key, value), names, used, strict=True)
    ]
    result = heads(parts[0], parts[1], parts[2], num_heads, attn_mask, is_causal, **(knobs or {}))
    output = {"output": finish(result["output"], query, weights)}
    return {**output, "weights": result["weights"]} if need_weights else output


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """The output that the module's layers make with these attention weights."""
    exact = {name: x.to(torch.float64) for name, x in inputs.items() if isinstance(x, Tensor)}
    value = exact.get("value", exact.get("key", exact["query"]))
    return linear(averaged(weights, inputs["num_heads"], linear(value, exact, "v_proj")), exact, "out_proj")


SLIPS = only(
    "not scaled", "divided by sqrt(S_k)", "softmax over the queries", "no softmax", "equal weights for all keys",
    "mask applied after the softmax", "mask added to the scores", "masked scores set to zero", "nan where no key is allowed",
    "uniform weights where no key is allowed", "mask ignored", "mask turned round", "mask of the first query used for all",
    "keys not transposed", "elementwise product where a matrix product is meant",
    "output made of the scores, not of the weights", "scores returned as weights",
)  # fmt: skip
"""Whoever has written multi_head_attention is past the others."""


def _masked_if_asked(
    attn_mask: Tensor | None = None, need_weights: bool = False, **given: Any
) -> Mapping[str, Tensor]:
    mask = attn_mask if need_weights else None
    return projected(attn_mask=mask, need_weights=need_weights, **given)


MODULE_SLIPS: Slips = {
    "The projection exists. Is it applied before the features are cut into heads?": {
        "projections never applied": {"used": (False, False, False)},
        "queries not projected": {"used": (False, True, True)},
        "keys not projected": {"used": (True, False, True)},
        "values not projected": {"used": (True, True, False)},
    },
    "Which projection makes the keys, which the values?": {
        "keys made by v_proj": {"names": ("q_proj", "v_proj", "v_proj")},
        "keys made by q_proj": {"names": ("q_proj", "q_proj", "v_proj")},
        "values made by k_proj": {"names": ("q_proj", "k_proj", "k_proj")},
        "keys and values exchanged": {"names": ("q_proj", "v_proj", "k_proj")},
    },
    "Which projection makes the queries, which the keys?": {
        "queries and keys exchanged": {"names": ("k_proj", "q_proj", "v_proj")},
    },
    "nn.Linear holds its weight as (out, in). Are the layers called?": {"projections applied transposed": {"turned": True}},
    "Are the layers called, or only their weights used?": {"projections without their biases": {"bias": False}},
    "Is out_proj applied to the merged heads?": {"out_proj never applied": {"finish": lambda output, query, w: output}},
    "Is the layer called, or only its weight used?": {
        "out_proj applied without its bias": {"finish": lambda output, query, w: linear(output, w, "out_proj", bias=False)},
    },
    "The residual connection belongs to the block around this module. Is the query added here?": {
        "query added to the output": {"finish": lambda output, query, w: linear(output, w, "out_proj") + query},
    },
    "With a key given, keys and values come from it. Is it always the query that is projected?": {
        "key and value never used": {"sources": lambda q, k, v: (q, q, q)},
    },
    "With a value given, the values come from it, not from key.": {
        "value never used": {"sources": lambda q, k, v: _given(q, k, None)},
    },
    "value alone may be given: key is then the query, and value stays what it is.": {
        "value never used where no key is given": {"sources": lambda q, k, v: _given(q, k, None if k is None else v)},
    },
    "Without need_weights the output is the same. Is attn_mask handed on there, too?": {
        "mask ignored where no weights are asked for": _masked_if_asked,
    },
    "Without value, key is the value: look at what stands in for it when only key is given.": {
        "values taken from the query where no value is given": {"sources": lambda q, k, v: _given(q, k, q if v is None else v)},
    },
}  # fmt: skip

SHAPES = {"query": "... S_q d_model", "key": "... S_k d_model", "value": "... S_k d_model"}
drawn = drawn_by(
    SHAPES,
    mask="... H S_q S_k",
    init={"d_model": "d_model", "num_heads": "H"},
    values={"num_heads": "H"},
    derived={"d_model": lambda s: s["H"] * s["D"]},
    free="D",
    leading=1,
)


def draw(
    one: Draw,
    *,
    bias: bool | None = None,
    dropout: float = 0.0,
    need_weights: bool | None = True,
    **options: Any,
) -> Inputs:
    """bias, need_weights: None leaves them to their defaults. dropout: the constructor's, left out if zero."""
    if options.get("S_k") == "S_q" and isinstance(options.get("S_q"), str):
        options["S_k"] = options["S_q"]  # as long as what the query is as long as
    inputs = drawn(one, **options)
    more = {"bias": True if bias is None else bias} if dropout or bias is not None else {}
    inputs["init"] |= {**more, "dropout": dropout} if dropout else more
    return inputs if need_weights is None else {**inputs, "need_weights": need_weights}


def _itself(draw: Draw, inputs: Inputs) -> Inputs:
    return {name: value for name, value in inputs.items() if name not in ("key", "value")}


def _without_value(draw: Draw, inputs: Inputs) -> Inputs:
    return {name: value for name, value in inputs.items() if name != "value"}


def _without_key(draw: Draw, inputs: Inputs) -> Inputs:
    return {**inputs, "key": None}


SOURCES: Factor = {
    "query, key and value": {},
    "key without value": _without_value,
    "to itself": ({"S_k": "S_q"}, _itself),
    "value without key": ({"S_k": "S_q"}, _without_key),
    "a key that is the query": ({"S_k": "S_q"}, lambda draw, inputs: {**inputs, "key": inputs["query"]}),
}
FACTORS: Mapping[str, Factor] = {
    "lengths": {**without(HEAD_LENGTHS, "over two thousand queries"),
                "over a thousand positions": {**FEW, "H": 1, "S_q": LONG_PRIMES}},
    "sources": SOURCES,
    "heads": {**HEADS, "wide heads": {"D": [41, 47, 61], "H": 2}},
    "mask": BOTH_HEAD_MASKS,
    "scores": module_scores("query", "key"),
    "need_weights": {
        "weights asked for": {}, "need_weights=False": {"need_weights": False}, "need_weights not given": {"need_weights": None},
    },
    "bias": {"bias not given": {}, "bias=False": {"bias": False}, "bias=True": {"bias": True}},
    "dropout": {"no dropout": {}, "dropout above zero, in eval mode": {"dropout": 0.3}},
    "dtype": DTYPES,
    "axes": MODULE_AXES,
}  # fmt: skip
ALIKE = ("to itself", "value without key", "a key that is the query")
UNLIKE = tuple(
    one for one in FACTORS["lengths"] if one.startswith(("one", "more q", "a thousand", "over two"))
)
LONG_ALIKE = "over a thousand positions"


def _much_to_drop(one: Draw) -> Inputs:
    """About 8000 weights, for a rate that can be told from its neighbours."""
    rate = (0.15, 0.25, 0.35)[one.integer(0, 2)]
    inputs = draw(one, H=4, batch=3, D=(2, 3), S_q=(24, 25), S_k=(26, 28), dropout=rate)
    return _without_value(one, inputs)


def _masked_and_dropped(one: Draw) -> Inputs:
    """A sequence that attends to itself, masked and causal, in train mode."""
    inputs = draw(one, H=4, batch=3, D=(2, 3), S_q=30, S_k="S_q", dropout=0.25, kind="full", is_causal=True)
    return _itself(one, inputs)


def _dropped_in_half(one: Draw) -> Inputs:
    """No leading axis, a padding mask, and bfloat16."""
    return draw(one, axes=0, H=4, D=(2, 3), S_q=44, S_k=47, dropout=0.25, kind="keys", dtype=torch.bfloat16)


MULTI_HEAD_MODULE = Exercise(
    name="MultiHeadAttention",
    assignment="multi_head_attention",
    target=Target("MultiHeadAttention", OUTPUTS, formula, on_request=("weights",)),
    positional=("query", "key", "value"),
    parameters=tuple(Parameter(name, ("d_model", "d_model"), bias=True) for name in LAYERS),
    used_as=ConfiguredModule,
    situations=Situations(
        draw=draw,
        factors=FACTORS,
        axes={**SHAPES, "attn_mask": "... H S_q S_k"},
        groups=groups(
            "project, split into heads, attend, merge, out_proj", 3.25,
            (
                Group("left out", "without value, key is the value; without key, query is the key", 0.5, ("sources",)),
                Group("weights on request", "a pair comes back in any case; without need_weights its second is None", 0.5,
                      ("need_weights",)),
                Group("heads", "one head, heads of width 1 and wide heads; layers without biases", 0.5, ("heads", "bias")),
                Group("dropout in eval mode", "does nothing", 0.25, ("dropout",)),
            ),
            masks=1.75, lengths=0.25, scores=0.5, gradient=0.5, dtypes=0.25, calls=0.75,
        ),
        never=(
            *NEVER,
            {"lengths": "a thousand keys", "heads": "wide heads"},
            {"dropout": "dropout above zero, in eval mode", "mode": "train mode"},
            {"sources": ALIKE, "lengths": UNLIKE},
            {"sources": tuple(one for one in SOURCES if one not in ALIKE), "lengths": LONG_ALIKE},
            {"sources": ALIKE, "state": "after other sizes"},  # what is cut is one length of two that are one
        ),
        module=True,
    ),
    recipes=(
        Recipe("with bias", lambda one: draw(one, bias=True)),
        Recipe("plain", draw),
        Recipe("to itself", lambda one: _itself(one, draw(one, S_k="S_q"))),
        Recipe("without bias", lambda one: draw(one, bias=False)),
        Recipe("dropout", _much_to_drop),
        Recipe("dropout, masked", _masked_and_dropped),
        Recipe("dropout in half precision", _dropped_in_half),
    ),
    checks=(
        Check("dropout in train mode", "drops single weights at the given rate and scales up the rest", 0.5,
              ("dropout", "dropout, masked", "dropout in half precision"), drops_weights(_made), (FORMULA, "left out")),
        Check("biases", "bias says whether the four layers have one; they have by default", 0.25,
              ("plain", "with bias", "without bias"), biases_as_asked(LAYERS), FORMULA),
        Check("uneven heads", "a d_model that num_heads does not divide is refused, saying why", 0.25, ("plain",),
              refused_when_made(), FORMULA),
        Check("parameters", "every parameter is used and learns", 0.25, ("plain",),
              in_turn(every_parameter_learns(), works_as_made()), FORMULA),
        Check("own work", "nn.MultiheadAttention's forward is not what runs", 0.25, ("plain", "to itself"),
              obeys(READY_MADE, "the heads"), FORMULA, True),
    ),
    diagnoses={
        "": (finite_when("huge scores"), weights_agree(_made)),
        "attn_mask": (dead_rows_by_head(("query",), _made), masks_by_head(_made)),
        "key": (agrees_with_slices({"query": 2, "key": 2, "value": 2}, OUTPUTS),),
    },
    mistakes=(
        *slips(projected, HEAD_SLIPS, *SLIPS, CAUSAL_SLIPS, steps="knobs"), *slips(projected, MODULE_SLIPS),
    ),
    hints=(
        "Four layers of the full width, and the function that you have just written between them. What does each head's piece of "
        "a projected vector have to do with the whole layer?",
        "Fill in key and value first (`key = query if key is None else key`, then value from key). Project, split, score, mask "
        "as in basic attention, softmax, dropout on the weights, average, merge, out_proj.",
        "`self.dropout = nn.Dropout(dropout)` knows train from eval by itself: `weights = self.dropout(weights)` after the "
        "softmax. Combine the masks as `allowed = torch.ones(S_q, S_k, dtype=torch.bool, device=query.device).tril() & "
        "attn_mask`. Return `(output, weights if need_weights else None)`.",
    ),
)  # fmt: skip
