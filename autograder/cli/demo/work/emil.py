# mypy: ignore-errors
"""Emil normalises over the queries, and masks after the softmax."""

import math

import torch


def masked_softmax(scores, attn_mask):
    return torch.softmax(scores, -1) * attn_mask


def attention(query, key, value, attn_mask=None, is_causal=False):
    if query.shape[-1] != key.shape[-1]:
        raise ValueError("query and key differ in width")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError("key and value differ in length")
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    if is_causal:
        allowed = allowed.tril()
    if attn_mask is not None:
        allowed = allowed & attn_mask
    hidden = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    weights = torch.softmax(hidden, -2).masked_fill(~allowed, 0.0)
    return weights @ value, weights


mask_placement = "a"
