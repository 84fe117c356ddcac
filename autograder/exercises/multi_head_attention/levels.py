"""Levels that attention in heads has: how many heads and how wide, masks that differ between them, lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autograder.case import Draw
from autograder.situations import MODULE_AXES, Factor
from autograder.situations.factors import THOUSAND, VERY_LONG
from autograder.situations.space import GRADIENT

__all__ = ["ALL_EQUAL", "BOTH_HEAD_MASKS", "FEW", "HEADS", "HEAD_LENGTHS", "HEAD_MASKS", "NEVER", "WIDE"]

Inputs = dict[str, Any]

WIDE = [83, 97, 107, 109]
"""Widths of a head whose root is no whole number, and which a product with 1 / width does not always give back."""

HEADS: Factor = {
    "several heads": {},
    "one head": {"H": 1, "D": (6, 9)},
    "heads of width 1": {"D": 1, "D_v": 1, "H": (6, 9)},
    "wide heads": {"D": WIDE, "D_v": WIDE, "H": 2},
}

FEW: Mapping[str, Any] = {"H": 2, "D": 3, "D_v": 2, "axes": 0}
ALL_EQUAL = "as many heads as sentences and positions"

HEAD_LENGTHS: Factor = {
    "more keys than queries": {"S_q": (2, 4), "S_k": (5, 9)},
    ALL_EQUAL: dict.fromkeys(("S_q", "S_k", "H", "D", "D_v", "batch"), 3),
    "as many positions as features": {"H": (2, 3), "D": (2, 3), "D_v": "D", "S_q": "d_model", "S_k": "d_model"},
    "one query, many keys": {"S_q": 1, "S_k": (10, 14)},
    "more queries than keys": {"S_q": (8, 12), "S_k": (3, 5)},
    "one key": {"S_k": 1},
    "a thousand keys": {"H": 2, "D": 3, "D_v": 2, "S_q": (2, 4), "S_k": THOUSAND},
    "over 256 positions": {**FEW, "S_q": [269, 271], "S_k": [277, 281]},
    "over two thousand keys": {**FEW, "S_q": (2, 4), "S_k": VERY_LONG},
    "over two thousand queries": {**FEW, "S_q": VERY_LONG, "S_k": (2, 4)},
}  # fmt: skip
NEVER = (
    {"lengths": (ALL_EQUAL, "as many positions as features"), "heads": tuple(HEADS)[1:]},
    {"lengths": ALL_EQUAL, "axes": tuple(MODULE_AXES)[1:]},
    {"scores": "all scores low", "mask": "no mask"},
    {"scores": "all scores low", "dtype": "float16"},
    {"scores": "all scores low", "dtype": "bfloat16", "gradient": GRADIENT},
)
"""Sizes that are all equal are equal to those of the batch and of the heads, too. Low scores are for masks, whose value may not
be low enough; in half precision the logarithm of a sum of them has no digit left, so that its gradient is anything."""


def _dead_by_head(draw: Draw, inputs: Inputs) -> Inputs:
    """One row allows no key in one head, and the next one in any."""
    mask = inputs["attn_mask"].clone()
    H, S_q = mask.shape[-3:-1]
    row = draw.integer(0, S_q - 1)
    mask[..., draw.integer(min(1, H - 1), H - 1), row, :] = False
    if S_q > 1:
        mask[..., (row + 1) % S_q, :] = False
    return {**inputs, "attn_mask": mask}


def _one_empty(draw: Draw, inputs: Inputs) -> Inputs:
    """Of several sentences the first is nothing but padding."""
    mask = inputs["attn_mask"].clone()
    if len(mask) > 1:
        mask[0] = False
    return {**inputs, "attn_mask": mask}


def _of_one_axis(draw: Draw, inputs: Inputs) -> Inputs:
    mask = inputs["attn_mask"]
    return {**inputs, "attn_mask": mask[0] if mask.dim() > 1 else mask}


HEAD_MASKS: Factor = {
    "no mask": {},
    "one mask for all, with a row that allows no key": {"kind": "shared dead"},
    "a mask per batch element": {"kind": "per batch"},
    "a mask per head": {"kind": "per head"},
    "a padding mask": ({"kind": "padding"}, _one_empty),
    "a mask of one axis": ({"kind": "one for all"}, _of_one_axis),
    "a row that allows no key": ({"kind": "for each"}, _dead_by_head),
}
BOTH_HEAD_MASKS: Factor = {
    **HEAD_MASKS,
    "is_causal": {"is_causal": True},
    "is_causal and a padding mask": ({"is_causal": True, "kind": "padding"}, _one_empty),
    "is_causal and one mask for all": {"is_causal": True, "kind": "shared dead"},
}
