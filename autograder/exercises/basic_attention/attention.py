"""Exercise `attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import raises_value_error
from autograder.checks.averaging import average_of_values, sharp, ties_share
from autograder.checks.causality import causal
from autograder.checks.conduct import FUSED, affordable, obeys
from autograder.checks.masking import dead_rows, hidden_keys_do_nothing, mask_selects
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise
from autograder.mistakes import slips
from autograder.mistakes.attention import ATTENTION_SLIPS, attend
from autograder.oracle.attention import attention as formula
from autograder.situations import AXES, BOTH_MASKS, DTYPES, LENGTHS, Situations, drawn_by, groups, scores

__all__ = ["ATTENTION"]

OUTPUTS = ("output", "weights")
RESULTS = ("agrees with the formula", "masks")
SHAPES = {"query": "... S_q D", "key": "... S_k D", "value": "... S_k D_v"}
draw = drawn_by(SHAPES, mask="... S_q S_k")


def _do_not_fit(*, key: int = 0, width: int = 0, value: int = 0) -> Callable[[Draw], dict[str, Any]]:
    """A key of another width than the query's by `width`, or a value of another length than the key's by `value`.

    Size one is a case of its own: it would stretch without a word, where it is not refused. key, value, width: such a
    size, if it is 1; else a difference in size.
    """

    def drawn(draw: Draw) -> dict[str, Any]:
        S_q, S_k, D, D_v = draw.sizes(4, low=3)
        lead = (2,) * draw.integer(0, 1)
        other, length = {0: D, 1: 1}.get(width, D + width), {0: S_k, 1: 1}.get(value, S_k + value)
        shapes = {"query": (S_q, D), "key": (1 if key == 1 else S_k, other), "value": (length, D_v)}
        return {name: draw.normal(*lead, *shape) for name, shape in shapes.items()}

    return drawn


UNFIT = {
    "a key wider than the query": {"width": 2}, "a key narrower than the query": {"width": -1},
    "a value longer than the key": {"value": 2}, "a value shorter than the key": {"value": -1},
    "a key of width 1": {"width": 1}, "a value of length 1": {"value": 1}, "a key of length 1": {"key": 1},
}  # fmt: skip


def _products(inputs: Mapping[str, Any]) -> tuple[int, int, int]:
    """(..., S_q, S_k) elements of a table, D, D_v."""
    *lead, S_q, D = inputs["query"].shape
    S_k, D_v = inputs["value"].shape[-2:]
    return int(torch.tensor([1, *lead]).prod()) * S_q * S_k, D, D_v


def flops(inputs: Mapping[str, Any]) -> int:
    """Two products of 2 S_q S_k D and 2 S_q S_k D_v operations for each batch element, each made twice if need be."""
    table, D, D_v = _products(inputs)
    return 4 * table * (D + D_v)


def largest(inputs: Mapping[str, Any]) -> int:
    """One tensor of (..., S_q, S_k, max(D, D_v)), for those who multiply and sum: twice that is too much."""
    table, D, D_v = _products(inputs)
    return 2 * table * max(D, D_v)


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    output: Tensor = weights @ inputs["value"]
    return output


ATTENTION = Exercise(
    name="attention",
    assignment="basic_attention",
    target=Target("attention", OUTPUTS, formula),
    positional=("query", "key", "value"),
    situations=Situations(
        draw=draw,
        factors={"lengths": LENGTHS, "mask": BOTH_MASKS, "scores": scores(), "dtype": DTYPES, "axes": AXES},
        axes={**SHAPES, "attn_mask": "... S_q S_k"},
        never=({"lengths": "all sizes equal", "axes": tuple(AXES)[1:]},),  # those of the batch and the heads, too
        groups=groups(
            "softmax(query key^T / sqrt(D)) value", 3.0,
            masks=3.25, lengths=0.75, scores=0.75, gradient=0.5, dtypes=0.5, calls=0.5,
        ),
    ),
    recipes=(
        *(Recipe(label, _do_not_fit(**sizes)) for label, sizes in UNFIT.items()),
        Recipe("plain", draw),
        Recipe("masked", partial(draw, kind="full")),
        Recipe("causal", lambda one: {**draw(one, S_q=(2, 4), S_k=(10, 14)), "is_causal": True}),
        Recipe("many heads", partial(draw, axes=2, batch=5, high=6)),
    ),
    checks=(
        Check("sizes that do not fit", "are refused with a ValueError", 0.25, tuple(UNFIT),
              raises_value_error(takes=("attn_mask", "is_causal", "axes")), RESULTS[0]),
        Check("own work", "attention is written out", 0.25, ("plain", "masked", "causal"), obeys(FUSED, "attention"),
              RESULTS, binding=True),
        Check("cost", "no more work and memory than the formula needs", 0.25, ("many heads",),
              affordable(flops, largest), RESULTS),
    ),
    diagnoses={
        "": (
            responds({"query": OUTPUTS, "key": OUTPUTS, "value": ("output",)}), weights_agree(_made),
            average_of_values(), sharp(),
            agrees_with_slices({**dict.fromkeys(("query", "key", "value", "attn_mask"), 2)}, OUTPUTS), ties_share(),
            permutation({"key": -2, "value": -2}, {"output": None, "weights": -1}, "keys"),
            permutation({"query": -2}, {"output": -2, "weights": -2}, "queries"),
        ),
        "attn_mask": (
            mask_selects("query", ("key", "value")), hidden_keys_do_nothing(_made), dead_rows(("query", "key", "value")),
        ),
        "is_causal": (causal({"key": -2, "value": -2}, {"query": -2}, OUTPUTS),),
    },
    mistakes=slips(attend, *ATTENTION_SLIPS),
    hints=(
        "Four steps: scores, mask, softmax over the keys, average of the values. Check the widths and the lengths "
        "before the first step.",
        "Build one boolean table `allowed` of shape (S_q, S_k): all True, its lower triangle if is_causal, and `&` "
        "with attn_mask if there is one. Fill the rest of the scaled scores with the dtype's lowest number, softmax "
        "over -1, then zero the forbidden weights.",
        "`allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)`; `.tril()` aligns at the "
        "top left. After the softmax: `weights = weights.masked_fill(~allowed, 0.0)`, and the output is `weights @ "
        "value`.",
    ),
)  # fmt: skip
