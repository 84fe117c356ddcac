"""The cases of `attention`, and what they may cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from autograder.case import Draw, Recipe, without_root

__all__ = ["RECIPES", "flops", "largest"]


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

    mask: "full", "shared" (S_q, S_k), "heads" (H, S_q, S_k), "padding" (B, 1, 1, S_k), "dead" (with a row that allows no
    key). lengths: "<" or ">" for S_q against S_k, "<<" or ">>" for beyond a thousand of the longer, "square" for
    S_q = S_k = D = D_v, "many" for 12 to 20 keys, "long" for 33 to 60 queries and over 128 keys.
    """
    *lead, S_q, S_k, D, D_v = draw.sizes(axes + 4, low=low, high=high)
    if dtype == torch.float64:
        D = without_root(D)
    if lengths in ("<", ">"):
        shorter, longer = min(S_q, S_k), max(S_q, S_k) + high  # so far apart that no two alignments are one
        S_q, S_k = (shorter, longer) if lengths == "<" else (longer, shorter)
    elif lengths == "square":
        S_k = D = D_v = S_q
    elif lengths == "many":
        S_k = draw.integer(12, 20)
    elif lengths == "long":
        S_q, S_k = draw.integer(33, 60), draw.integer(130, 160)
    elif lengths in ("<<", ">>"):
        longer = draw.integer(1030, 1200)
        S_q, S_k = (S_q, longer) if lengths == "<<" else (longer, S_k)
    inputs: dict[str, Any] = {
        "query": draw.normal(*lead, S_q, D, dtype=dtype) * size,
        "key": draw.normal(*lead, S_k, D, dtype=dtype),
        "value": draw.normal(*lead, S_k, D_v, dtype=dtype),
    }
    if mask:
        shapes = {
            "shared": (S_q, S_k),
            "heads": (*lead[1:], S_q, S_k),
            "padding": (*lead[:1], *[1] * axes, S_k),
        }
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


def _sizes_that_do_not_fit(
    *, key: int = 0, width: int = 0, value: int = 0
) -> Callable[[Draw], dict[str, Any]]:
    """A key of another width than the query's by `width`, or a value of another length than the key's by `value`.

    Size one is a case of its own: it would stretch without a word, where it is not refused. key, value, width: such a
    size, if it is 1; else a difference in size.
    """

    def draw(draw: Draw) -> dict[str, Any]:
        S_q, S_k, D, D_v = draw.sizes(4, low=3)
        other = {0: D, 1: 1}.get(width, D + width)
        length = {0: S_k, 1: 1}.get(value, S_k + value)
        S_k = 1 if key == 1 else S_k
        return {
            "query": draw.normal(S_q, D),
            "key": draw.normal(S_k, other),
            "value": draw.normal(length, D_v),
        }

    return draw


def _many_heads(draw: Draw) -> dict[str, Any]:
    """Narrow vectors and many heads: pairing a query with another head's keys would cost more than the whole."""
    S_q, S_k, D, D_v = draw.sizes(4, low=2, high=6)
    B, H = 5, 7
    return {
        "query": draw.normal(B, H, S_q, D),
        "key": draw.normal(B, H, S_k, D),
        "value": draw.normal(B, H, S_k, D_v),
    }


def _low_scores(draw: Draw) -> dict[str, Any]:
    """Queries of length 3,000 and more along one direction, and keys as far on its other side: scores below -1e6."""
    inputs = _inputs(draw, axes=1, is_causal=True, low=3)
    direction = inputs["query"][..., :1, :] / inputs["query"][..., :1, :].norm(dim=-1, keepdim=True)
    query = (3e3 * direction).expand_as(inputs["query"]).clone()
    return inputs | {"query": query, "key": inputs["key"] - 3e3 * direction}


def flops(inputs: Mapping[str, Any]) -> int:
    """Two products of 2 S_q S_k D and 2 S_q S_k D_v operations for each batch element, each made twice if need be."""
    *lead, S_q, D = inputs["query"].shape
    S_k, D_v = inputs["value"].shape[-2:]
    elements = int(torch.tensor(lead).prod()) if lead else 1
    return elements * 4 * S_q * S_k * (D + D_v)


def largest(inputs: Mapping[str, Any]) -> int:
    """One tensor of (..., S_q, S_k, max(D, D_v)), for those who multiply and sum: twice that is too much."""
    *lead, S_q, D = inputs["query"].shape
    S_k, D_v = inputs["value"].shape[-2:]
    elements = int(torch.tensor(lead).prod()) if lead else 1
    return elements * 2 * S_q * S_k * max(D, D_v)


RECIPES = (
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
    Recipe("a key wider than the query", _sizes_that_do_not_fit(width=2)),
    Recipe("a key of width 1", _sizes_that_do_not_fit(width=1)),
    Recipe("a value longer than the key", _sizes_that_do_not_fit(value=2)),
    Recipe("many heads", _many_heads),
    Recipe("a key narrower than the query", _sizes_that_do_not_fit(width=-1)),
    Recipe("a value shorter than the key", _sizes_that_do_not_fit(value=-1)),
    Recipe("a value of length 1", _sizes_that_do_not_fit(value=1)),
    Recipe("a key of length 1", _sizes_that_do_not_fit(key=1)),
    _recipe("one mask for all batch elements", mask="heads"),
    _recipe("float16, causal", dtype=torch.float16, is_causal=True),
    _recipe("causal, very many keys", axes=0, is_causal=True, lengths="<<"),
    _recipe("causal, very many queries", axes=0, is_causal=True, lengths=">>"),
    Recipe("causal, low scores", _low_scores),
)
