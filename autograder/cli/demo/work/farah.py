# mypy: ignore-errors
"""Farah takes True in a mask for "forbidden"."""

import math

import torch


def softmax(scores, dim=-1):
    numerator = scores.exp()
    return numerator / numerator.sum(dim, keepdim=True)


def masked_softmax(scores, attn_mask):
    hidden = scores.masked_fill(attn_mask, torch.finfo(scores.dtype).min)
    return torch.softmax(hidden, -1).masked_fill(attn_mask, 0.0)


def attention(query, key, value, attn_mask=None, is_causal=False):
    if query.shape[-1] != key.shape[-1]:
        raise ValueError("query and key differ in width")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError("key and value differ in length")
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    forbidden = torch.zeros(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    if is_causal:
        forbidden = torch.ones_like(forbidden).triu(1)
    if attn_mask is not None:
        forbidden = forbidden | attn_mask
    hidden = scores.masked_fill(forbidden, torch.finfo(scores.dtype).min)
    weights = torch.softmax(hidden, -1).masked_fill(forbidden, 0.0)
    return weights @ value, weights
