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


def grouped_query_attention(query, key, value, is_causal=False):
    H_q, H_kv = query.shape[1], key.shape[1]
    if H_q % H_kv or value.shape[1] != H_kv:
        raise ValueError("heads do not fit")
    key, value = key.repeat(1, H_q // H_kv, 1, 1), value.repeat(1, H_q // H_kv, 1, 1)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -torch.inf)
    weights = torch.softmax(scores, -1)
    return weights @ value, weights


def merge_heads(heads):
    return heads.flatten(-3).reshape(*heads.shape[:-3], heads.shape[-2], -1)


def causal_mask(S_q, S_k):
    if S_q > S_k:
        raise ValueError("more queries than keys")
    return torch.ones(S_q, S_k, dtype=torch.bool).tril()
