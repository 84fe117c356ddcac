"""What the exercises that compute attention in parts have in common: cases, and how to behave once results are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from autograder.case import Draw
from autograder.checks import Check
from autograder.checks.conduct import FUSED, obeys
from autograder.checks.customary import COUNTS, FORMULA, conduct
from autograder.checks.structure import agrees_with_slices, responds
from autograder.checks.tiling import survives_extremes

__all__ = ["COUNTS", "DEEP", "FORMULA", "TRIPLE", "behaviour", "counts", "deep", "leading", "triple"]

TRIPLE = ("query", "key", "value")
DEEP = "scores far below zero"


def triple(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    S_q: int = 0,
    S_k: int = 0,
    low: int = 5,
    high: int = 14,
    widths: int = 9,
    zero: bool = False,
) -> dict[str, Any]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v), lengths and widths all different; S_q, S_k: so many.

    zero: one key is zero, so that not every score of 0 is a hidden one.
    """
    lead = draw.sizes(axes, low=2, high=4)
    lengths = draw.sizes(2, low=low, high=high)
    S_q, S_k = S_q or lengths[0], S_k or lengths[1]
    D, D_v = draw.sizes(2, low=2, high=widths)
    inputs = {
        "query": draw.normal(*lead, S_q, D, dtype=dtype) * size,
        "key": draw.normal(*lead, S_k, D, dtype=dtype),
        "value": draw.normal(*lead, S_k, D_v, dtype=dtype),
    }
    if zero:
        inputs["key"][..., 1, :] = 0.0
    return inputs


def deep(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs with all scores between -1.2e4 and -1.5e5: a mask value of -1e4 wins against them."""
    query, key = (draw.uniform(*inputs[name].shape, low=1.0, high=2.0).float() for name in ("query", "key"))
    return inputs | {"query": query * 1.2e4, "key": -key}


def leading(inputs: Mapping[str, Any]) -> int:
    """Batch times heads."""
    return int(inputs["query"][..., 0, 0].numel())


def counts(outputs: tuple[str, ...], case: str = "unequal sizes") -> Check:
    """The results change with each of the three; only the output with the values."""
    effects = {"query": outputs, "key": outputs, "value": ("output",)}
    return Check(COUNTS, "the results change with query, key and value", 0.5, (case,), responds(effects))


def behaviour(
    needs: tuple[str, ...], outputs: tuple[str, ...], **cases: tuple[str, ...]
) -> tuple[Check, ...]:
    """Leading axes, huge scores, gradient, dtype, inputs, layout, and own work. cases: those of `conduct`, where others."""
    return (
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices(dict.fromkeys(TRIPLE, 2), outputs),
            COUNTS,
        ),
        Check(
            "huge scores",
            "no overflow for large inputs, and hidden keys lose against scores far below zero",
            0.5,
            ("huge scores", DEEP),
            survives_extremes(outputs),
            needs,
        ),
        *conduct(needs, None, outputs, "backward() gives the derivative", **cases),
        Check(
            "own work",
            "attention is written out",
            0.25,
            ("unequal sizes",),
            obeys(FUSED, "attention"),
            needs,
            binding=True,
        ),
    )
