# mypy: ignore-errors
"""Dana forgets to divide by the square root of D, and takes the claims of a bad article for true."""

import torch


def scaled_dot_scores(query, key):
    return query @ key.transpose(-2, -1)


def attention(query, key, value, attn_mask=None, is_causal=False):
    if query.shape[-1] != key.shape[-1]:
        raise ValueError("query and key differ in width")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError("key and value differ in length")
    scores = query @ key.transpose(-2, -1)
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    if is_causal:
        allowed = allowed.tril()
    if attn_mask is not None:
        allowed = allowed & attn_mask
    weights = masked_softmax(scores, allowed)
    return weights @ value, weights


score_variance = 8

why_scale = "a"
