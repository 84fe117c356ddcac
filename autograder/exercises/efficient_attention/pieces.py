"""What exercises share that compute attention in pieces: inputs, kinds of scores, and the check on their own work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from autograder.case import Draw
from autograder.checks import Check
from autograder.checks.conduct import FUSED, obeys
from autograder.situations import AXES, Factor, scores, without

__all__ = [
    "DEEP",
    "PIECE_AXES",
    "SHAPES",
    "TRIPLE",
    "growing_values",
    "kinds_of_scores",
    "leading",
    "own_work",
]

TRIPLE = ("query", "key", "value")
SHAPES = {"query": "... S_q D", "key": "... S_k D", "value": "... S_k D_v"}
DEEP = "all scores low"

PIECE_AXES: Factor = {
    "one leading axis": {"axes": 1},
    **{name: AXES[name] for name in ("no leading axis", "three leading axes")},
}


NEVER = (
    {
        "scores": (DEEP, "huge scores"),
        "gradient": ("a gradient asked", "a gradient of one input", "activation checkpointing"),
    },
    {"scores": "huge scores", "dtype": ("bfloat16", "float16")},
    {"scores": DEEP, "dtype": ("float32", "bfloat16", "float16")},
)
"""Where scores are huge, their rounding is, too: only a wider dtype shows what is wrong."""


def kinds_of_scores() -> Factor:
    """Those of attention, lower ones, and huge ones: "1e5 and more of either sign"."""

    def low(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
        """All products equal, so that none is rounded, and scores of about -1e7; large values besides."""
        far = 2.0**13
        made = {name: torch.zeros_like(inputs[name]) for name in ("query", "key")}
        made["query"][..., 0], made["key"][..., 0] = far, -far
        return {**inputs, **made, "value": inputs["value"] * 1e3}

    def huge(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
        far = 30.0 if inputs["query"].dtype == torch.float16 else 1e3
        return {**inputs, "query": inputs["query"] * far}

    return {**without(scores(), "keys alike", "one key far ahead"), DEEP: low, "huge scores": huge}


def growing_values(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """All scores zero, and values that double every four positions: one key too many, or too few, shows anywhere."""
    growth = torch.exp2(torch.arange(inputs["value"].shape[-2]) / 4).unsqueeze(-1)
    value = inputs["value"].sign().double() * growth
    return {**inputs, "query": torch.zeros_like(inputs["query"]), "value": value.to(inputs["value"].dtype)}


def leading(inputs: Mapping[str, Any]) -> int:
    """Batch times heads."""
    return int(inputs["query"][..., 0, 0].numel())


def own_work(case: str, needs: str | tuple[str, ...]) -> Check:
    """Attention is written out: while it is not, nothing else counts."""
    return Check(
        "own work", "attention is written out", 0.25, (case,), obeys(FUSED, "attention"), needs, binding=True
    )
