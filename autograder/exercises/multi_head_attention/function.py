"""Exercise `multi_head_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import raises_value_error
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.conduct import FUSED, affordable, obeys
from autograder.checks.configured import refuses
from autograder.checks.heads import dead_rows_by_head, masks_by_head
from autograder.checks.masking import hidden_keys_do_nothing
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise
from autograder.exercises.multi_head_attention.levels import HEAD_LENGTHS, HEAD_MASKS, HEADS, NEVER
from autograder.mistakes import slips
from autograder.mistakes.attention import only
from autograder.mistakes.heads import HEAD_SLIPS, heads
from autograder.oracle.multi_head import merge, multi_head, split
from autograder.situations import DTYPES, MODULE_AXES, Group, Situations, drawn_by, groups, scores, without

__all__ = ["MULTI_HEAD_ATTENTION", "averaged"]

OUTPUTS = ("output", "weights")
FORMULA = "agrees with the formula"
RESULTS = (FORMULA, "masks")
SHAPES = {"query": "... S_q d_model", "key": "... S_k d_model", "value": "... S_k d_value"}
draw = drawn_by(
    SHAPES,
    mask="... H S_q S_k",
    values={"num_heads": "H"},
    derived={"d_model": lambda s: s["H"] * s["D"], "d_value": lambda s: s["H"] * s["D_v"]},
    free="D D_v",
    leading=1,
)

SLIPS = only(
    "not scaled", "multiplied by sqrt(D)", "divided by D", "divided by sqrt(D_v)", "divided by sqrt(S_k)", "divided by 8",
    "softmax over the queries", "softmax over the third axis", "no softmax",
    "exp without the division", "softmax applied twice", "equal weights for all keys",
    "sign turned round", "mask applied after the softmax", "mask added to the scores", "masked scores set to zero",
    "nan where no key is allowed", "uniform weights where no key is allowed", "mask ignored", "mask turned round",
    "mask of the first query used for all", "keys not transposed", "elementwise product where a matrix product is meant",
    "output made of the scores, not of the weights", "scores returned as weights",
)  # fmt: skip


def _misfit(what: str) -> Callable[[Draw], dict[str, Any]]:
    """Sizes that do not fit. what: "width" (not a multiple of H), "value" (the same of value), "key" (another width), "length".

    "one value", "one key": a length of 1, which would stretch without a word where it is not refused.
    """

    def drawn(draw: Draw) -> dict[str, Any]:
        S_q, S_k, H, D, D_v, other = draw.sizes(6)
        extra = draw.integer(1, H - 1)
        width = H * D + (extra if what == "width" else 0)
        length = {"length": other, "one value": 1}.get(what, S_k)
        return {
            "query": draw.normal(S_q, width),
            "key": draw.normal(1 if what == "one key" else S_k, H * other if what == "key" else width),
            "value": draw.normal(length, H * D_v + (extra if what == "value" else 0)),
            "num_heads": H,
        }

    return drawn


UNEVEN = {
    "a width that num_heads does not divide": "width",
    "a value width that num_heads does not divide": "value",
}
UNFIT = {
    "query and key of unequal width": "key",
    "key and value of unequal length": "length",
    "a value of length 1": "one value",
    "a key of length 1": "one key",
}


def _many_heads(one: Draw) -> dict[str, Any]:
    """Narrow vectors and many heads: pairing a query with another head's keys would cost more than the whole."""
    return draw(one, batch=3, H=7, **dict.fromkeys(("S_q", "S_k", "D", "D_v"), (3, 6)))


def _width(inputs: Mapping[str, Any]) -> int:
    """The width that num_heads does not divide."""
    widths = [int(inputs[name].shape[-1]) for name in ("query", "value")]
    return next((width for width in widths if width % int(inputs["num_heads"])), widths[0])


def _products(inputs: Mapping[str, Any]) -> tuple[int, int, int]:
    """(..., S_q, S_k) elements of a table, D, D_v."""
    *lead, S_q, D = inputs["query"].shape
    S_k, D_v = inputs["value"].shape[-2:]
    return prod(lead) * S_q * S_k, D, D_v


def flops(inputs: Mapping[str, Any]) -> int:
    """2 S_q S_k D and 2 S_q S_k D_v operations for each batch element, as for one head, each made twice if need be."""
    table, D, D_v = _products(inputs)
    return 4 * table * (D + D_v)


def largest(inputs: Mapping[str, Any]) -> int:
    """One tensor of (..., H, S_q, S_k, D / H), for those who multiply and sum: twice that is too much."""
    table, D, D_v = _products(inputs)
    return 2 * table * max(D, D_v)


def averaged(weights: Tensor, num_heads: int, values: Tensor) -> Tensor:
    """What these weights (..., H, S_q, S_k) make of values (..., S_k, D): (..., S_q, D)."""
    return merge(weights.to(values.dtype) @ split(values, num_heads))


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    return averaged(weights, inputs["num_heads"], inputs["value"])


MULTI_HEAD_ATTENTION = Exercise(
    name="multi_head_attention",
    assignment="multi_head_attention",
    target=Target("multi_head_attention", OUTPUTS, multi_head),
    positional=("query", "key", "value", "num_heads"),
    situations=Situations(
        draw=draw,
        factors={"lengths": without(HEAD_LENGTHS, "more queries than keys"), "heads": HEADS, "mask": HEAD_MASKS,
                 "scores": scores(), "dtype": DTYPES, "axes": MODULE_AXES},
        axes={**SHAPES, "attn_mask": "... H S_q S_k"},
        groups=groups(
            "each head attends with its own piece of query, key and value; the pieces are joined", 2.75,
            (Group("heads", "one head, heads of width 1 and wide heads", 0.5, ("heads",)),),
            masks=1.5, lengths=0.5, scores=0.5, gradient=0.5, dtypes=0.25, calls=0.5,
        ),
        never=(*NEVER, {"lengths": "a thousand keys", "heads": "wide heads"}),
    ),
    recipes=(
        *(Recipe(label, _misfit(what)) for label, what in {**UNEVEN, **UNFIT}.items()),
        Recipe("plain", draw),
        Recipe("masked", lambda one: draw(one, kind="for each")),
        Recipe("many heads", _many_heads),
    ),
    checks=(
        Check("uneven heads", "a width that num_heads does not divide is refused, saying why", 0.5, tuple(UNEVEN),
              refuses(width=_width, num_heads=lambda inputs: int(inputs["num_heads"])), FORMULA),
        Check("sizes that do not fit", "are refused with a ValueError", 0.25, tuple(UNFIT),
              raises_value_error(takes=("attn_mask", "axes")), FORMULA),
        Check("own work", "attention is written out", 0.25, ("plain", "masked"), obeys(FUSED, "attention"), RESULTS, True),
        Check("cost", "no more work and memory than one head of the whole width, weights aside", 0.25, ("many heads",),
              affordable(flops, largest), RESULTS),
    ),
    diagnoses={
        "attn_mask": (hidden_keys_do_nothing(_made), dead_rows_by_head(("query", "key", "value"), _made), masks_by_head(_made)),
        "": (
            responds({"query": OUTPUTS, "key": OUTPUTS, "value": ("output",)}), survives_large_inputs(), weights_agree(_made),
            agrees_with_slices({"query": 2, "key": 2, "value": 2, "attn_mask": 3}, OUTPUTS),
            permutation({"key": -2, "value": -2}, {"output": None, "weights": -1}, "keys"),
        ),
    },
    mistakes=(*slips(heads, HEAD_SLIPS), *slips(heads, *SLIPS)),
    hints=(
        "Attention you can write. What is new is before it and after it: which axis is cut, and what is put together?",
        "Split query, key and value with split_heads; the axis of heads is then just one more leading axis, and attention over "
        "the last two axes runs as before. The width under the root is that of one head.",
        "`queries, keys, values = (split_heads(x, num_heads) for x in (query, key, value))`, scores "
        "`queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])`, mask, softmax over -1, then "
        "`merge_heads(weights @ values)`.",
    ),
)  # fmt: skip
