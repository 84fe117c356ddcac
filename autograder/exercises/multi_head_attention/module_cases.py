"""The cases of `MultiHeadAttention` and `TransformerBlock`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from autograder.case import Draw, Recipe, without_root
from autograder.exercises.multi_head_attention.function_cases import mask_for

__all__ = ["BLOCK_RECIPES", "MODULE_RECIPES", "block_inputs", "module_inputs"]


def module_inputs(
    draw: Draw,
    *,
    axes: int = 1,
    cross: str = "",
    dtype: torch.dtype = torch.float32,
    mask: str = "",
    is_causal: bool = False,
    size: float = 1.0,
    kind: str = "",
    **made: Any,
) -> dict[str, Any]:
    """query (..., S_q, d_model); cross: "key" for a key (..., S_k, d_model), "both" for a value, too.

    kind: "one head", "thin" for heads of width 1, "square" for S = d_model, "long" for 33 to 50 positions, "very
    long" for more than a thousand, "small", "<" or ">" for S_q against S_k. made: more arguments of the constructor.
    """
    *lead, S_q, S_k, H, D = draw.sizes(axes + 4, low=2, high=6 if kind == "small" else 9)
    if dtype == torch.float64:
        D = without_root(D)
    if kind == "one head":
        H = 1
    elif kind == "very long":
        H, S_q = 1, draw.integer(1030, 1050)
    elif kind == "thin":
        D = 1
    elif kind == "long":
        lead, H = [2] * axes, 3
        S_q, S_k = draw.sizes(2, low=33, high=50)
    elif kind in ("<", ">"):
        shorter, longer = sorted((S_q + 1, S_k + 10))
        S_q, S_k = (shorter, longer) if kind == "<" else (longer, shorter)
    if kind == "square":
        H, D = min(H, 5), min(D, 5)
        S_q = S_k = H * D
    d_model, S_q = H * D, max(S_q, 3)
    inputs: dict[str, Any] = {
        "init": {"d_model": d_model, "num_heads": H, **made},
        "num_heads": H,
        "query": draw.normal(*lead, S_q, d_model, dtype=dtype) * size,
    }
    if cross:
        inputs["key"] = draw.normal(*lead, S_k, d_model, dtype=dtype) * size
    if cross == "both":
        inputs["value"] = draw.normal(*lead, S_k, d_model, dtype=dtype)
    inputs |= mask_for(draw, mask, lead, (H, S_q, S_k if cross else S_q))
    return inputs | ({"is_causal": True} if is_causal else {}) | {"need_weights": True}


def _both_masks(draw: Draw, **options: Any) -> dict[str, Any]:
    """attn_mask and is_causal, each of which hides something that the other shows; one row is left without a key."""
    inputs = module_inputs(draw, mask="full", is_causal=True, **options)
    mask = inputs["attn_mask"]
    mask[..., 0] = True
    mask[..., 1:, 1] = False
    row = draw.integer(0, min(mask.shape[-2:]) - 2)
    mask[..., row, :] = torch.arange(mask.shape[-1]) > row
    return inputs


def _value_without_key(draw: Draw) -> dict[str, Any]:
    """The query is the key, but not the value."""
    inputs = module_inputs(draw)
    query = inputs["query"]
    rest = {"key": None, "value": draw.normal(*query.shape), "need_weights": True}
    return {"init": inputs["init"], "num_heads": inputs["num_heads"], "query": query, **rest}


def _much_to_drop(draw: Draw) -> dict[str, Any]:
    """About 8000 weights, for a rate that can be told from its neighbours."""
    B, H, D = 3, 4, draw.integer(2, 3)
    S_q, S_k = draw.sizes(2, low=24, high=28)
    return {
        "init": {
            "d_model": H * D,
            "num_heads": H,
            "bias": True,
            "dropout": (0.15, 0.25, 0.35)[draw.integer(0, 2)],
        },
        "num_heads": H,
        "query": draw.normal(B, S_q, H * D),
        "key": draw.normal(B, S_k, H * D),
        "need_weights": True,
    }


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(module_inputs, **options))


MODULE_RECIPES = (
    _recipe("unequal sizes", cross="both"),
    _recipe("to itself"),
    _recipe("to itself, one head", kind="one head"),
    _recipe("key without value", cross="key"),
    Recipe("value without key", _value_without_key),
    _recipe("heads of width 1", cross="both", kind="thin"),
    _recipe("all sizes equal", cross="both", kind="square"),
    _recipe("large scores", cross="both", size=2.0),
    _recipe("without bias", cross="both", bias=False),
    _recipe("with bias", bias=True),
    _recipe("two leading axes", cross="both", axes=2),
    _recipe("a mask for each head", cross="both", mask="full"),
    _recipe("a mask for each head, the same in the batch", mask="heads"),
    _recipe("one mask for all", mask="shared"),
    _recipe("a padding mask", cross="both", mask="padding"),
    _recipe("rows that allow no key", cross="both", mask="dead", dtype=torch.float64),
    _recipe("causal", is_causal=True),
    _recipe("causal, many positions", is_causal=True, kind="long"),
    _recipe("causal, fewer queries than keys", cross="both", is_causal=True, kind="<"),
    _recipe("causal, more queries than keys", cross="both", is_causal=True, kind=">"),
    Recipe("causal and masked", _both_masks),
    Recipe("causal and masked, two sequences", partial(_both_masks, cross="both")),
    Recipe("dropout", _much_to_drop),
    _recipe("long sequences", cross="both", kind="long"),
    _recipe("huge scores", cross="both", size=100.0),
    _recipe("huge scores, causal", is_causal=True, size=1000.0),
    _recipe("huge scores, masked", cross="both", size=1000.0, mask="single", kind="long"),
    _recipe("small, float64", cross="both", axes=0, dtype=torch.float64, kind="small"),
    _recipe("float64, masked", axes=0, dtype=torch.float64, mask="full"),
    _recipe("float64, causal", axes=0, dtype=torch.float64, is_causal=True, kind="small"),
    _recipe("float64, without bias", dtype=torch.float64, bias=False),
    _recipe("float64", cross="both", dtype=torch.float64),
    _recipe("bfloat16", cross="both", dtype=torch.bfloat16),
    _recipe("float16", cross="both", dtype=torch.float16),
    _recipe("float16, masked", dtype=torch.float16, mask="full"),
    _recipe("float16, causal", dtype=torch.float16, is_causal=True),
    _recipe("causal, very many positions", axes=0, is_causal=True, kind="very long"),
)


def block_inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    mask: str = "",
    is_causal: bool = False,
    size: float = 3.0,
    kind: str = "",
    norm_first: bool | None = True,
    heads: int = 0,
) -> dict[str, Any]:
    """x (..., S, d_model). kind: "one head", "square" for S = d_model, "long" for 33 to 50 positions, "small".

    size: of the numbers in x; at 3, rows vary so much that what a norm adds to the variance is lost in float32.
    norm_first: None leaves it to the constructor's default, which is True.
    """
    *lead, S, H, D, d_ff = draw.sizes(axes + 4, low=2, high=6 if kind == "small" else 9)
    if kind == "one head" or heads:
        H = 1
    elif kind == "long":
        H, S = min(H, 3), draw.integer(33, 50)
    elif kind == "square":
        H, D = min(H, 5), min(D, 5)
        S = H * D
    D = max(D, 6) if H == 1 else D
    d_model, S = H * D, max(S, 3)
    init = {"d_model": d_model, "num_heads": H, "d_ff": d_ff + d_model}
    order = {} if norm_first is None else {"norm_first": norm_first}
    inputs: dict[str, Any] = {
        "init": init | order,
        "num_heads": H,
        **order,
        "x": draw.normal(*lead, S, d_model, dtype=dtype) * size,
    }
    inputs |= mask_for(draw, mask, lead, (H, S, S))
    return inputs | ({"is_causal": True} if is_causal else {})


def _block(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(block_inputs, **options))


BLOCK_RECIPES = (
    _block("pre-norm"),
    _block("pre-norm, one head", kind="one head"),
    _block("pre-norm, float64", dtype=torch.float64),
    _block("post-norm", norm_first=False),
    _block("post-norm, one head", norm_first=False, kind="one head"),
    _block("post-norm, float64", norm_first=False, dtype=torch.float64),
    _block("order not given", norm_first=None),
    _block("all sizes equal", kind="square"),
    _block("nearly constant rows", size=1e-3, dtype=torch.float64),
    _block("nearly constant rows, post-norm", size=1e-3, norm_first=False, dtype=torch.float64),
    _block("a mask for each head", mask="full"),
    _block("a mask for each head, post-norm", mask="full", norm_first=False),
    _block("a padding mask", mask="padding"),
    _block("rows that allow no key", mask="dead", dtype=torch.float64),
    _block("causal", is_causal=True),
    _block("causal, post-norm", is_causal=True, norm_first=False),
    _block("causal and masked", is_causal=True, mask="full"),
    _block("two leading axes", axes=2),
    _block("long sequences", kind="long"),
    _block("small, float64", axes=0, dtype=torch.float64, kind="small"),
    _block("small, float64, post-norm", axes=0, dtype=torch.float64, kind="small", norm_first=False),
    _block("bfloat16", dtype=torch.bfloat16),
    _block("float16, causal", dtype=torch.float16, is_causal=True),
    _block("float64, causal", axes=0, dtype=torch.float64, is_causal=True, kind="small"),
    _block("float16", dtype=torch.float16, norm_first=False),
)
