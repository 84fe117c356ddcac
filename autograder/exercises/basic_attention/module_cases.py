"""The cases of `SelfAttention` and `CrossAttention`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe, without_root

__all__ = ["CROSS_RECIPES", "SELF_RECIPES"]

LENGTHS = {"many": (12, 20), "long": (33, 60), "very many": (1030, 1050)}


def _mask(draw: Draw, kind: str, lead: list[int], S_q: int, S_k: int) -> dict[str, Tensor]:
    """attn_mask: "full", "shared" (S_q, S_k), "heads" (without the first axis), "padding" (..., 1, S_k), "dead" (with a
    row that allows no key), "single" (each row allows one key), or none."""
    if not kind:
        return {}
    if kind == "single":
        chosen = draw.uniform(*lead, S_q, S_k).argmax(-1, keepdim=True)
        return {"attn_mask": torch.zeros(*lead, S_q, S_k, dtype=torch.bool).scatter_(-1, chosen, True)}
    shapes = {"shared": (S_q, S_k), "heads": (*lead[1:], S_q, S_k), "padding": (*lead, 1, S_k)}
    return {"attn_mask": draw.mask(*shapes.get(kind, (*lead, S_q, S_k)), dead_rows=kind == "dead")}


def _self_inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    mask: str = "",
    is_causal: bool = False,
    lengths: str = "",
    size: float = 1.0,
    high: int = 9,
) -> dict[str, Any]:
    """x (..., S, d_model). lengths: "square" for S = d_model, "many" for 12 to 20 positions, "long" for 33 to 60."""
    *lead, S, d_model = draw.sizes(axes + 2, low=3, high=high)
    if dtype == torch.float64:
        d_model = without_root(d_model)
    if lengths == "square":
        d_model = S
    elif lengths:
        S = draw.integer(*LENGTHS[lengths])
    inputs: dict[str, Any] = {
        "init": {"d_model": d_model},
        "x": draw.normal(*lead, S, d_model, dtype=dtype) * size,
    }
    return inputs | _mask(draw, mask, lead, S, S) | ({"is_causal": True} if is_causal else {})


def _both_masks(draw: Draw) -> dict[str, Any]:
    """attn_mask and is_causal, each of which hides something that the other shows; one row is left without a key."""
    inputs = _self_inputs(draw, mask="full", is_causal=True)
    S = inputs["x"].shape[-2]
    inputs["attn_mask"][..., 0] = True
    inputs["attn_mask"][..., 1:, 1] = False
    row = draw.integer(0, S - 2)
    inputs["attn_mask"][..., row, :] = torch.arange(S) > row
    return inputs


def _cross_inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    mask: str = "",
    lengths: str = "",
    size: float = 1.0,
    high: int = 9,
) -> dict[str, Any]:
    """x (..., S_q, d_model), context (..., S_k, d_context). lengths: "square" for all alike, or as for one sequence."""
    *lead, S_q, S_k, d_model, d_context = draw.sizes(axes + 4, low=3, high=high)
    if dtype == torch.float64:
        d_model = without_root(d_model)
    if lengths == "square":
        S_k = d_model = d_context = S_q
    elif lengths:
        S_q, S_k = draw.sizes(2, *LENGTHS[lengths])
    inputs: dict[str, Any] = {
        "init": {"d_model": d_model, "d_context": d_context},
        "x": draw.normal(*lead, S_q, d_model, dtype=dtype) * size,
        "context": draw.normal(*lead, S_k, d_context, dtype=dtype) * size,
    }
    return inputs | _mask(draw, mask, lead, S_q, S_k)


def _recipes(inputs: Callable[..., dict[str, Any]], *more: Recipe) -> tuple[Recipe, ...]:
    def recipe(label: str, **options: Any) -> Recipe:
        return Recipe(label, partial(inputs, **options))

    return (
        recipe("unequal sizes"),
        recipe("all sizes equal", lengths="square"),
        recipe("large scores", size=2.5),
        recipe("a mask for each element", mask="full"),
        recipe("one mask for all", mask="shared"),
        recipe("a padding mask", mask="padding"),
        recipe("rows that allow no key", mask="dead"),
        recipe("two leading axes", axes=2),
        recipe("long sequences", lengths="long"),
        recipe("huge scores", size=100.0),
        recipe("huge scores, masked", size=1000.0, mask="single", lengths="long"),
        recipe("small, float64", axes=0, dtype=torch.float64, high=6),
        recipe("float64, masked", axes=0, dtype=torch.float64, mask="full", lengths="many"),
        recipe("float64", dtype=torch.float64),
        recipe("bfloat16", dtype=torch.bfloat16),
        recipe("float16", dtype=torch.float16),
        recipe("float16, masked", dtype=torch.float16, mask="full"),
        *more,
    )


SELF_RECIPES = _recipes(
    _self_inputs,
    Recipe("causal", partial(_self_inputs, is_causal=True)),
    Recipe("causal and masked", _both_masks),
    Recipe("one mask for all batch elements", partial(_self_inputs, mask="heads", axes=2)),
    Recipe("float16, causal", partial(_self_inputs, is_causal=True, dtype=torch.float16)),
    Recipe("huge scores, causal", partial(_self_inputs, is_causal=True, size=1000.0, lengths="long")),
    Recipe("causal, very many positions", partial(_self_inputs, axes=0, is_causal=True, lengths="very many")),
)
CROSS_RECIPES = _recipes(
    _cross_inputs, Recipe("one mask for all batch elements", partial(_cross_inputs, mask="heads", axes=2))
)
