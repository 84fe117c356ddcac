"""Masks for the cases of `MultiHeadAttention` and `TransformerBlock`."""

from __future__ import annotations

import torch
from torch import Tensor

from autograder.case import Draw

__all__ = ["mask_for"]


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
