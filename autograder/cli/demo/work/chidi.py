# mypy: ignore-errors
"""Chidi is right, and computes one query at a time."""

import torch


def cosine_scores(query, key, eps=1e-8):
    lengths = query.norm(dim=-1).clamp(min=eps)[..., :, None], key.norm(dim=-1).clamp(min=eps)[..., None, :]
    return (query / lengths[0]) @ (key / lengths[1].transpose(-2, -1)).transpose(-2, -1)


def attention(query, key, value, attn_mask=None, is_causal=False):
    if query.shape[-1] != key.shape[-1]:
        raise ValueError("query and key differ in width")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError("key and value differ in length")
    n_queries, n_keys = query.shape[-2], key.shape[-2]
    allowed = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device)
    if is_causal:
        allowed = allowed.tril()
    if attn_mask is not None:
        allowed = allowed & attn_mask
    outputs, rows = [], []
    for i in range(n_queries):
        scores = (query[..., i : i + 1, :] * key).sum(-1) / query.shape[-1] ** 0.5  # (..., S_k)
        open_keys = allowed[..., i, :].expand(scores.shape)
        scores = scores.masked_fill(~open_keys, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, -1).masked_fill(~open_keys, 0.0)
        outputs.append((weights[..., None] * value).sum(-2))
        rows.append(weights)
    return torch.stack(outputs, -2), torch.stack(rows, -2)
