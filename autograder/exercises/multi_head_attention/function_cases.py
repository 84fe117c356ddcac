"""The cases of `multi_head_attention`, and what they may cost."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe, without_root

__all__ = ["RECIPES", "flops", "largest", "mask_for"]


def mask_for(draw: Draw, kind: str, lead: list[int], sizes: tuple[int, int, int]) -> dict[str, Tensor]:
    """attn_mask for sizes (H, S_q, S_k), or none.

    kind: "full" (..., H, S_q, S_k), "heads" (H, S_q, S_k), "shared" (S_q, S_k), "batch" (..., 1, S_q, S_k), "padding"
    (..., 1, 1, S_k), "dead" (full; one row allows no key in one head, another in any), "single" (one key a row).
    """
    if not kind:
        return {}
    H, S_q, S_k = sizes
    if kind == "single":
        chosen = draw.uniform(*lead, H, S_q, S_k).argmax(-1, keepdim=True)
        return {"attn_mask": torch.zeros(*lead, H, S_q, S_k, dtype=torch.bool).scatter_(-1, chosen, True)}
    shapes = {
        "shared": (S_q, S_k),
        "batch": (*lead, 1, S_q, S_k),
        "padding": (*lead, 1, 1, S_k),
        "heads": (H, S_q, S_k),
    }
    mask = draw.mask(*shapes.get(kind, (*lead, H, S_q, S_k)))
    if kind == "dead":
        row = draw.integer(0, S_q - 1)
        mask[..., draw.integer(0, H - 1), row, :] = False
        mask[..., (row + 1) % S_q, :] = False
    return {"attn_mask": mask}


def _inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    mask: str = "",
    size: float = 1.0,
    kind: str = "",
) -> dict[str, Any]:
    """query (..., S_q, H D), key (..., S_k, H D), value (..., S_k, H D_v), all sizes different.

    kind: "one head", "thin" for heads of width 1, "square" for S_q = S_k = H D = H D_v, "long" for 33 to 50 queries and
    over 128 keys, "small".
    """
    high = 6 if kind == "small" else 9
    *lead, S_q, S_k, H, D, D_v = draw.sizes(axes + 5, low=2, high=high)
    if dtype == torch.float64:
        D = without_root(D)
    if kind == "one head":
        H = 1
    elif kind == "thin":
        D = D_v = 1
    elif kind == "square":
        H, D = min(H, 5), min(D, 5)
        D_v, S_q, S_k = D, H * D, H * D
    elif kind == "long":
        lead, H = [2] * axes, 3
        S_q, S_k = draw.integer(33, 50), draw.integer(130, 150)
    inputs: dict[str, Any] = {
        "query": draw.normal(*lead, S_q, H * D, dtype=dtype) * size,
        "key": draw.normal(*lead, S_k, H * D, dtype=dtype) * size,
        "value": draw.normal(*lead, S_k, H * D_v, dtype=dtype),
        "num_heads": H,
    }
    return inputs | mask_for(draw, mask, lead, (H, S_q, S_k))


def _many_heads(draw: Draw) -> dict[str, Any]:
    """Narrow vectors and many heads: pairing a query with another head's keys would cost more than the whole."""
    S_q, S_k, D, D_v = draw.sizes(4, low=2, high=6)
    B, H = 3, 7
    query, key, value = ((S_q, H * D), (S_k, H * D), (S_k, H * D_v))
    return {
        "query": draw.normal(B, *query),
        "key": draw.normal(B, *key),
        "value": draw.normal(B, *value),
        "num_heads": H,
    }


def _misfit(draw: Draw, *, what: str) -> dict[str, Any]:
    """Sizes that do not fit. what: "width" (not a multiple of H), "value", "key" (another width), "length".

    "one value", "one key": a length of 1, which would stretch without a word where it is not refused.
    """
    S_q, S_k, H, D, D_v, other = draw.sizes(6)
    extra = draw.integer(1, H - 1)
    width = H * D + (extra if what == "width" else 0)
    return {
        "query": draw.normal(S_q, width),
        "key": draw.normal(1 if what == "one key" else S_k, H * other if what == "key" else width),
        "value": draw.normal(
            {"length": other, "one value": 1}.get(what, S_k), H * D_v + (extra if what == "value" else 0)
        ),
        "num_heads": H,
    }


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


def _sizes(inputs: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    """Batch elements, S_q, S_k, D, D_v."""
    *lead, S_q, D = inputs["query"].shape
    S_k, D_v = inputs["value"].shape[-2:]
    return prod(lead), S_q, S_k, D, D_v


def flops(inputs: Mapping[str, Any]) -> int:
    """2 S_q S_k D and 2 S_q S_k D_v operations for each batch element, as for one head, each made twice if need be."""
    B, S_q, S_k, D, D_v = _sizes(inputs)
    return B * 4 * S_q * S_k * (D + D_v)


def largest(inputs: Mapping[str, Any]) -> int:
    """One tensor of (..., H, S_q, S_k, D / H), for those who multiply and sum: twice that is too much."""
    B, S_q, S_k, D, D_v = _sizes(inputs)
    return B * 2 * S_q * S_k * max(D, D_v)


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("one head", kind="one head"),
    _recipe("heads of width 1", kind="thin"),
    _recipe("all sizes equal", kind="square"),
    _recipe("large scores", size=3.0),
    _recipe("two leading axes", axes=2),
    _recipe("a mask for each head", mask="full"),
    _recipe("a mask for each batch element", mask="batch"),
    _recipe("a mask for each head, the same in the batch", mask="heads"),
    _recipe("one mask for all", mask="shared"),
    _recipe("a padding mask", mask="padding"),
    _recipe("rows that allow no key", mask="dead", dtype=torch.float64),
    _recipe("long sequences", kind="long"),
    _recipe("huge scores", size=100.0),
    _recipe("huge scores, masked", size=1000.0, mask="single", kind="long"),
    _recipe("small, float64", axes=0, dtype=torch.float64, kind="small"),
    _recipe("float64, masked", axes=0, dtype=torch.float64, mask="full"),
    _recipe("float64", dtype=torch.float64),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16),
    _recipe("float16, masked", dtype=torch.float16, mask="full"),
    Recipe("many heads", _many_heads),
    Recipe("a width that num_heads does not divide", partial(_misfit, what="width")),
    Recipe("a value width that num_heads does not divide", partial(_misfit, what="value")),
    Recipe("query and key of unequal width", partial(_misfit, what="key")),
    Recipe("key and value of unequal length", partial(_misfit, what="length")),
    Recipe("a value of length 1", partial(_misfit, what="one value")),
    Recipe("a key of length 1", partial(_misfit, what="one key")),
)
