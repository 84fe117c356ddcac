"""Exercise `attention`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.averaging import average_of_values, few_keys, sharp, ties_share
from autograder.checks.causality import causal
from autograder.checks.conduct import FUSED, affordable, dtype_kept, inputs_untouched, obeys, repeatable
from autograder.checks.gradients import differentiable
from autograder.checks.masking import dead_rows, hidden_keys_do_nothing, mask_selects
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.basic_attention.variants import ATTENTION_SLIPS, attend
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.attention import attention as formula

__all__ = ["ATTENTION"]

OUTPUTS = ("output", "weights")
COUNTS = "every input counts"
FORMULA = "agrees with the formula"
RESULTS = (FORMULA, "weights")
MASKED_RESULTS = (*RESULTS, "mask", "behind the mask")


def _inputs(
    draw: Draw,
    *,
    axes: int = 2,
    dtype: torch.dtype = torch.float32,
    mask: str = "",
    is_causal: bool = False,
    size: float = 1.0,
    lengths: str = "",
    low: int = 2,
    high: int = 9,
) -> dict[str, Any]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v), all sizes different.

    mask: "full", "shared" (S_q, S_k), "padding" (B, 1, 1, S_k), "dead" (with a row that allows no key). lengths: "<" or
    ">" for S_q against S_k, "square" for S_q = S_k = D = D_v, "many" for 12 to 20 keys, "long" for 33 to 60 of both.
    """
    *lead, S_q, S_k, D, D_v = draw.sizes(axes + 4, low=low, high=high)
    if lengths in ("<", ">"):
        shorter, longer = min(S_q, S_k), max(S_q, S_k) + high  # so far apart that no two alignments are one
        S_q, S_k = (shorter, longer) if lengths == "<" else (longer, shorter)
    elif lengths == "square":
        S_k = D = D_v = S_q
    elif lengths == "many":
        S_k = draw.integer(12, 20)
    elif lengths == "long":
        S_q, S_k = draw.sizes(2, low=33, high=60)
    inputs: dict[str, Any] = {
        "query": draw.normal(*lead, S_q, D, dtype=dtype) * size,
        "key": draw.normal(*lead, S_k, D, dtype=dtype),
        "value": draw.normal(*lead, S_k, D_v, dtype=dtype),
    }
    if mask:
        shapes = {"shared": (S_q, S_k), "padding": (*lead[:1], *[1] * axes, S_k)}
        inputs["attn_mask"] = draw.mask(*shapes.get(mask, (*lead, S_q, S_k)), dead_rows=mask == "dead")
    return inputs | ({"is_causal": True} if is_causal else {})


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


def _one_query(draw: Draw) -> dict[str, Any]:
    """One query, which is the first and not the last: with is_causal it sees key 0 alone."""
    inputs = _inputs(draw, is_causal=True, low=3)
    return inputs | {"query": inputs["query"][..., :1, :].clone()}


def _both_masks(draw: Draw) -> dict[str, Any]:
    """attn_mask and is_causal, each of which hides something that the other shows; every query may see key 0."""
    inputs = _inputs(draw, is_causal=True, mask="full", lengths="<", low=3)
    inputs["attn_mask"][..., 0] = True
    inputs["attn_mask"][..., 1:, 1] = False
    return inputs


def _no_key_left(draw: Draw) -> dict[str, Any]:
    """One query for which attn_mask allows just the keys of its future: the two masks together leave it none."""
    inputs = _both_masks(draw)
    row = draw.integer(0, inputs["query"].shape[-2] - 2)
    future = torch.arange(inputs["key"].shape[-2]) > row
    inputs["attn_mask"][..., row, :] = future
    return inputs


def _worked_example(draw: Draw) -> dict[str, Any]:
    """Three queries of width 1 against five keys, as small whole numbers: nothing about it is random."""
    return {
        "query": torch.tensor([[1.0], [0.0], [-1.0]]),
        "key": torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]]),
        "value": torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]]),
    }


def _unequal_widths(draw: Draw) -> dict[str, Any]:
    S_q, S_k, D, other, D_v = draw.sizes(5)
    return {"query": draw.normal(S_q, D), "key": draw.normal(S_k, other), "value": draw.normal(S_k, D_v)}


def _width_of_one(draw: Draw) -> dict[str, Any]:
    """A key of width 1 would stretch to the query's width without a word, where it is not refused."""
    S_q, S_k, D, D_v = draw.sizes(4)
    return {"query": draw.normal(S_q, D), "key": draw.normal(S_k, 1), "value": draw.normal(S_k, D_v)}


def _unequal_lengths(draw: Draw) -> dict[str, Any]:
    S_q, S_k, D, other, D_v = draw.sizes(5)
    return {"query": draw.normal(S_q, D), "key": draw.normal(S_k, D), "value": draw.normal(other, D_v)}


def _many_heads(draw: Draw) -> dict[str, Any]:
    """Narrow vectors and many heads: pairing a query with another head's keys would cost more than the whole."""
    S_q, S_k, D, D_v = draw.sizes(4, low=2, high=6)
    B, H = 5, 7
    return {
        "query": draw.normal(B, H, S_q, D),
        "key": draw.normal(B, H, S_k, D),
        "value": draw.normal(B, H, S_k, D_v),
    }


def _flops(inputs: Mapping[str, Any]) -> int:
    """Two products of 2 S_q S_k D and 2 S_q S_k D_v operations for each batch element, each made twice if need be."""
    *lead, S_q, D = inputs["query"].shape
    S_k, D_v = inputs["value"].shape[-2:]
    elements = int(torch.tensor(lead).prod()) if lead else 1
    return elements * 4 * S_q * S_k * (D + D_v)


def _largest(inputs: Mapping[str, Any]) -> int:
    """One tensor of (..., S_q, S_k, max(D, D_v)), for those who multiply and sum: twice that is too much."""
    *lead, S_q, D = inputs["query"].shape
    S_k, D_v = inputs["value"].shape[-2:]
    elements = int(torch.tensor(lead).prod()) if lead else 1
    return elements * 2 * S_q * S_k * max(D, D_v)


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    output: Tensor = weights @ inputs["value"]
    return output


KEYS = {"key": -2, "value": -2}
MASKED = ("query", ("key", "value"))
BATCHED = {"query": 2, "key": 2, "value": 2, "attn_mask": 2}

ATTENTION = Exercise(
    name="attention",
    assignment="basic_attention",
    target=Target("attention", OUTPUTS, formula),
    positional=("query", "key", "value"),
    recipes=(
        _recipe("unequal sizes", low=3),
        _recipe("many keys", lengths="many", axes=1),
        Recipe("worked example", _worked_example),
        _recipe("large scores", size=6.0),
        _recipe("all sizes equal", lengths="square", axes=1),
        _recipe("float64", axes=1, dtype=torch.float64),
        _recipe("one leading axis", axes=1),
        _recipe("a mask for each head", mask="full", lengths="many"),
        _recipe("one mask for all", mask="shared", axes=1),
        _recipe("a padding mask", mask="padding"),
        _recipe("rows that allow no key", mask="dead", dtype=torch.float64, low=3),
        _recipe("causal, fewer queries than keys", is_causal=True, lengths="<"),
        _recipe("causal, more queries than keys", is_causal=True, lengths=">", low=3),
        Recipe("causal, one query", _one_query),
        Recipe("causal and masked", _both_masks),
        Recipe("causal and masked, one query left without a key", _no_key_left),
        _recipe("three leading axes", axes=3),
        _recipe("long sequences", axes=1, lengths="long"),
        _recipe("small, float64", axes=0, dtype=torch.float64, high=5),
        _recipe("float64, masked", axes=0, dtype=torch.float64, mask="full", lengths="many"),
        _recipe("bfloat16", dtype=torch.bfloat16),
        _recipe("float16", dtype=torch.float16),
        _recipe("float16, masked", dtype=torch.float16, mask="full"),
        Recipe("query and key of unequal width", _unequal_widths),
        Recipe("a key of width 1", _width_of_one),
        Recipe("key and value of unequal length", _unequal_lengths),
        Recipe("many heads", _many_heads),
    ),
    checks=(
        Check(
            COUNTS,
            "the results change when query, key or value do",
            0.25,
            ("unequal sizes",),
            responds({"query": OUTPUTS, "key": OUTPUTS, "value": ("output",)}),
        ),
        Check(
            FORMULA,
            "softmax(query key^T / sqrt(D)) value",
            1.5,
            ("unequal sizes", "many keys", "worked example", "large scores", "all sizes equal", "float64"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights that made the output, rows summing to 1",
            1.0,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(_made),
            COUNTS,
        ),
        Check(
            "mask",
            "attn_mask says which keys each query may see",
            1.0,
            ("a mask for each head", "one mask for all", "a padding mask"),
            mask_selects(*MASKED),
            COUNTS,
        ),
        Check(
            "behind the mask",
            "forbidden keys weigh exactly zero, and nothing there matters",
            0.5,
            ("a mask for each head",),
            hidden_keys_do_nothing(_made),
            COUNTS,
        ),
        Check(
            "dead rows",
            "a query that may see no key gets zero, with finite gradients",
            0.75,
            ("rows that allow no key",),
            dead_rows(through=("query", "key", "value")),
            COUNTS,
        ),
        Check(
            "causal",
            "the future cannot change the past; query i sees keys 0..i",
            1.0,
            ("causal, fewer queries than keys", "causal, more queries than keys", "causal, one query"),
            causal(KEYS, {"query": -2}, OUTPUTS),
            COUNTS,
        ),
        Check(
            "both masks",
            "with attn_mask and is_causal, a key must be allowed by both",
            0.25,
            ("causal and masked", "causal and masked, one query left without a key"),
            mask_selects(*MASKED),
            COUNTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements and heads stand alone",
            0.5,
            ("three leading axes", "a mask for each head"),
            agrees_with_slices(BATCHED, OUTPUTS),
            COUNTS,
        ),
        Check(
            "order of the keys",
            "keys and values may come in any order",
            0.25,
            ("long sequences",),
            permutation(KEYS, {"output": None, "weights": -1}, "keys"),
            COUNTS,
        ),
        Check(
            "order of the queries",
            "each query stands alone",
            0.25,
            ("long sequences",),
            permutation({"query": -2}, {"output": -2, "weights": -2}, "queries"),
            COUNTS,
        ),
        Check("ties", "equal keys share their weight", 0.25, ("one leading axis",), ties_share(), COUNTS),
        Check(
            "average",
            "the output is linear in the values and stays among them",
            0.25,
            ("one leading axis",),
            average_of_values(),
            COUNTS,
        ),
        Check(
            "few keys",
            "one key gets all the weight, two keys share it by a sigmoid",
            0.25,
            ("unequal sizes",),
            few_keys(),
            COUNTS,
        ),
        Check(
            "huge scores",
            "no overflow; all weight goes to the best key",
            0.25,
            ("unequal sizes",),
            sharp(),
            COUNTS,
        ),
        Check(
            "sizes that do not fit",
            "are refused with a ValueError",
            0.25,
            ("query and key of unequal width", "a key of width 1", "key and value of unequal length"),
            raises_value_error(),
            COUNTS,
        ),
        Check(
            "gradient",
            "backward() gives the derivative",
            0.25,
            ("small, float64", "float64, masked"),
            differentiable(OUTPUTS),
            MASKED_RESULTS,
        ),
        Check(
            "dtype",
            "the inputs' dtype is kept, and its precision",
            0.25,
            ("float64", "bfloat16", "float16", "float16, masked"),
            dtype_kept(OUTPUTS),
            MASKED_RESULTS,
        ),
        Check(
            "inputs untouched",
            "no input is written to",
            0.25,
            ("a mask for each head",),
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
        Check(
            "own work",
            "attention is written out",
            0.25,
            ("unequal sizes", "a mask for each head", "causal, fewer queries than keys"),
            obeys(FUSED, "attention"),
            RESULTS,
        ),
        Check(
            "cost",
            "no more work and memory than the formula needs",
            0.25,
            ("many heads",),
            affordable(_flops, _largest),
            RESULTS,
        ),
    ),
    mistakes=tuple(
        Mistake(name, question, partial(attend, **knobs)) for name, question, knobs in ATTENTION_SLIPS
    ),
    hints=(
        (
            "Four steps: scores, mask, softmax over the keys, average of the values. Check the widths and "
            "the lengths before the first step."
        ),
        (
            "Build one boolean table `allowed` of shape (S_q, S_k): all True, its lower triangle if "
            "is_causal, and `&` with attn_mask if there is one. Fill the rest of the scaled scores with "
            "the dtype's lowest number, softmax over -1, then zero the forbidden weights."
        ),
        (
            "`allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)`; `.tril()` "
            "aligns at the top left. After the softmax: `weights = weights.masked_fill(~allowed, 0.0)`, "
            "and the output is `weights @ value`."
        ),
    ),
)
