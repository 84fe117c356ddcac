"""Exercise `SymmetricAttention`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from autograder.case import Draw, Recipe
from autograder.checks import Check, Parameter, Target
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.causality import causal
from autograder.checks.check import in_turn
from autograder.checks.gradients import every_parameter_learns, works_as_made
from autograder.checks.sharing import symmetric_scores
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import only
from autograder.mistakes.modules import block, made_by
from autograder.oracle.sharing import symmetric_attention
from autograder.situations import (
    CAUSAL,
    DTYPES,
    MODULE_AXES,
    ONE_LENGTH,
    Factor,
    Group,
    Situations,
    drawn_by,
    groups,
    module_scores,
)

__all__ = ["SYMMETRIC_ATTENTION"]

OUTPUTS = ("output", "weights")
FORMULA = "agrees with the formula"
SQUARE = ("d_model", "d_model")
X = {"x": "... S d_model"}
GRADIENT = ("a gradient asked", "a gradient of one input", "activation checkpointing")
HALVES = (torch.float16, torch.bfloat16)
draw = drawn_by(X, init={"d_model": "d_model"}, leading=1, low=3)


def _huge(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """Scores that exp cannot take; in half precision, which would not know the larger of two such scores, large ones."""
    factor = {torch.float16: 6.0, torch.bfloat16: 3.0}.get(inputs["x"].dtype, 100.0)
    return {**inputs, "x": inputs["x"] * factor}


def _last_larger(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """The last position is far larger than the others, which do not see it with is_causal."""
    x = inputs["x"].clone()
    x[..., -1, :] *= 8.0 if x.dtype in HALVES else 1e4
    return {**inputs, "x": x}


_of_modules = module_scores("x", query="qk_proj", key="qk_proj")
SCORES: Factor = {
    "ordinary scores": {},
    "huge scores": _huge,
    "all scores high": _of_modules["all scores low"],  # which one layer for both sides turns round
    "all scores equal": _of_modules["all scores equal"],
    "a last position far larger": _last_larger,
}


def _without_itself(scores: Tensor, allowed: Tensor) -> Tensor:
    hidden = scores.masked_fill(~allowed, -1e30)
    hidden.diagonal(dim1=-2, dim2=-1).fill_(-1e30)
    return hidden.softmax(-1)


def _mean_with_its_transpose(scores: Tensor, allowed: Tensor) -> Tensor:
    weights = scores.masked_fill(~allowed, -1e30).softmax(-1)
    return (weights + weights.mT) / 2


def _of_unit_vectors(query: Tensor, key: Tensor) -> Tensor:
    return normalize(query, dim=-1) @ normalize(key, dim=-1).mT


LAYERS: dict[str, Any] = {"names": ("qk_proj", "qk_proj", "v_proj", "out_proj")}
APPLIED = "The layer exists. Is it applied where the formula has it?"

LAYER_SLIPS: Slips = {
    APPLIED: {
        "keys not projected": {**LAYERS, "used": (True, False, True, True)},
        "queries not projected": {**LAYERS, "used": (False, True, True, True)},
        "qk_proj never applied": {**LAYERS, "used": (False, False, True, True)},
        "v_proj never applied": {**LAYERS, "used": (True, True, False, True)},
        "out_proj never applied": {**LAYERS, "used": (True, True, True, False)},
    },
    "Which layer makes the keys?": {"keys made by v_proj": {"names": ("qk_proj", "v_proj", "v_proj", "out_proj")}},
    "Sharing ends at the scores. Which layer makes the values?": {
        "values made by qk_proj": {"names": ("qk_proj", "qk_proj", "qk_proj", "out_proj")},
    },
    "Are the layers called, or only their weights used?": {"projections without their biases": {**LAYERS, "bias": False}},
    "The residual connection belongs to the block around this module. Is x added here?": {
        "input added to the output": {**LAYERS, "finish": lambda output, x, weights: output + x},
    },
    "Is there a nonlinearity where the formula has none?": {
        "relu of the output": {**LAYERS, "finish": lambda output, x, weights: output.relu()},
    },
    "The scores are symmetric; the weights are not, since each row is normalised on its own.": {
        "weights made symmetric": {**LAYERS, "knobs": {"weigh": _mean_with_its_transpose}},
    },
    "Are the shared vectors normalised? Here their length counts.": {
        "scores of unit vectors": {**LAYERS, "knobs": {"score": _of_unit_vectors}},
    },
    "May a position see itself? Here it may.": {"the diagonal is hidden": {**LAYERS, "knobs": {"weigh": _without_itself}}},
}  # fmt: skip

SHARED_SLIPS = only(
    "not scaled", "divided by D", "divided by sqrt(S_k)", "softmax over the queries", "softmax over the second axis",
    "no softmax", "sigmoid of each score", "one-hot maximum", "is_causal ignored", "always causal",
    "causal mask hides the present", "causal mask shows one key of the future", "causal mask turned round",
    "output made of the scores, not of the weights", "scores returned as weights",
)  # fmt: skip


def _with_knobs(x: Tensor, is_causal: bool = False, *, knobs: dict[str, Any], **weights: Tensor) -> Any:
    return block(x, is_causal, **{**LAYERS, **weights, "knobs": knobs})


SYMMETRIC_ATTENTION = Exercise(
    name="SymmetricAttention",
    assignment="shared_attention",
    target=Target("SymmetricAttention", OUTPUTS, symmetric_attention),
    positional=("x",),
    parameters=tuple(Parameter(name, SQUARE, bias=True) for name in ("qk_proj", "v_proj", "out_proj")),
    situations=Situations(
        draw=draw,
        factors={"lengths": ONE_LENGTH, "causal": CAUSAL, "scores": SCORES, "dtype": DTYPES, "axes": MODULE_AXES},
        axes=X,
        groups=groups(
            "out_proj(softmax(p p^T / sqrt(d_model)) v_proj(x)), p = qk_proj(x)", 2.0,
            (Group("causal", "with is_causal the future cannot change the past", 0.75, ("causal",)),),
            lengths=0.75, scores=0.5, gradient=0.5, dtypes=0.25, calls=0.25,
        ),
        never=(
            {"lengths": "over a thousand positions", "causal": "not causal"},
            {"scores": ("all scores high", "all scores equal"), "gradient": GRADIENT},
            {"causal": "is_causal", "gradient": "a gradient asked", "lengths": "two positions"},
            {"causal": "is_causal", "gradient": "a gradient asked", "dtype": ("bfloat16", "float16")},  # which tell little
        ),
        module=True,
    ),
    recipes=(Recipe("plain", draw),),
    checks=(
        Check(
            "parameters", "every parameter is used and learns", 0.5, ("plain",),
            in_turn(every_parameter_learns(), works_as_made()), FORMULA,
        ),
    ),
    diagnoses={
        "": (
            survives_large_inputs(), responds({"x": OUTPUTS}, mixing="x"),
            permutation({"x": -2}, {"output": -2}, "positions"),
            weights_agree(made_by("v_proj", lambda inputs: "out_proj")), symmetric_scores(),
            agrees_with_slices({"x": 2}, OUTPUTS),
        ),
        "is_causal": (causal({"x": -2}, {"x": -2}, OUTPUTS, attn_mask=False),),
    },
    mistakes=(*slips(_with_knobs, *SHARED_SLIPS, steps="knobs"), *slips(block, LAYER_SLIPS)),
    hints=(
        "Self-attention with one layer less. Which two of the three projections become one?",
        "Project x once with qk_proj and use the result on both sides of the product. The values still "
        "have their own projection, and the softmax still runs over each row.",
        "`both = self.qk_proj(x)`; `scores = both @ both.transpose(-2, -1) / math.sqrt(x.shape[-1])`; with "
        "is_causal fill what lies above the diagonal with -inf; then softmax, average of self.v_proj(x), "
        "and self.out_proj.",
    ),
)  # fmt: skip
