# mypy: ignore-errors
"""Bruno is right, and writes einsum."""

import math

import torch
from torch import nn


def softmax(scores, dim=-1):
    weights = torch.exp(scores - scores.max(dim=dim, keepdim=True).values)
    return weights / weights.sum(dim=dim, keepdim=True)


def masked_softmax(scores, attn_mask):
    minus_infinity = torch.full_like(scores, float("-inf"))
    allowed = attn_mask.expand(scores.shape)
    dead = ~allowed.any(dim=-1, keepdim=True)
    hidden = torch.where(allowed | dead, scores, minus_infinity)
    return torch.where(allowed, torch.softmax(hidden, dim=-1), torch.zeros_like(scores))


def dot_scores(query, key):
    return torch.einsum("...id,...jd->...ij", query, key)


def scaled_dot_scores(query, key):
    return torch.einsum("...id,...jd->...ij", query, key) * query.shape[-1] ** -0.5


class AdditiveScores(nn.Module):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.W_q = nn.Linear(d_query, d_hidden, bias=False)
        self.W_k = nn.Linear(d_key, d_hidden, bias=False)
        self.v = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, query, key):
        hidden = torch.tanh(self.W_q(query)[..., :, None, :] + self.W_k(key)[..., None, :, :])
        return self.v(hidden)[..., 0]


class MultiplicativeScores(nn.Module):
    def __init__(self, d_query, d_key):
        super().__init__()
        self.W = nn.Parameter(torch.empty(d_query, d_key))
        nn.init.xavier_uniform_(self.W)

    def forward(self, query, key):
        return torch.einsum("...iq,qk,...jk->...ij", query, self.W, key)


def attention(query, key, value, attn_mask=None, is_causal=False):
    if query.shape[-1] != key.shape[-1]:
        raise ValueError("query and key differ in width")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError("key and value differ in length")
    scores = torch.einsum("...id,...jd->...ij", query, key) / math.sqrt(query.shape[-1])
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    if is_causal:
        allowed = torch.tril(allowed)
    if attn_mask is not None:
        allowed = allowed & attn_mask
    weights = masked_softmax(scores, allowed)
    return torch.einsum("...ij,...jv->...iv", weights, value), weights
