"""Scores between queries and keys, in float64: the five kinds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autograder.oracle.quantity import Quantity, Rounder, exact, farther

__all__ = ["additive", "cosine", "dot", "multiplicative", "scaled_dot"]


def dot(query: Tensor, key: Tensor, round: Rounder = exact) -> Quantity:
    """query (..., S_q, D), key (..., S_k, D) -> q . k, (..., S_q, S_k)."""
    return Quantity(round(query @ key.mT), query.abs() @ key.abs().mT)


def scaled_dot(query: Tensor, key: Tensor, round: Rounder = exact) -> Quantity:
    """query (..., S_q, D), key (..., S_k, D) -> q . k / sqrt(D), (..., S_q, S_k)."""
    scale = 1 / math.sqrt(query.shape[-1])
    # A student may scale the query, or the scores.
    before, after = round(round(query * scale) @ key.mT), round(round(query @ key.mT) * scale)
    return Quantity(farther(query @ key.mT * scale, before, after), query.abs() @ key.abs().mT * scale)


def cosine(query: Tensor, key: Tensor, eps: float = 1e-8, round: Rounder = exact) -> Quantity:
    """query (..., S_q, D), key (..., S_k, D) -> q . k / (max(|q|, eps) max(|k|, eps)), (..., S_q, S_k)."""
    unit_query = round(query / round(torch.linalg.vector_norm(query, dim=-1, keepdim=True)).clamp_min(eps))
    unit_key = round(key / round(torch.linalg.vector_norm(key, dim=-1, keepdim=True)).clamp_min(eps))
    return Quantity(round(unit_query @ unit_key.mT), unit_query.abs() @ unit_key.abs().mT)


def additive(
    query: Tensor, key: Tensor, W_q: Tensor, W_k: Tensor, v: Tensor, round: Rounder = exact
) -> Quantity:
    """query (..., S_q, d_query), key (..., S_k, d_key), W_q (d_hidden, d_query), W_k (d_hidden, d_key), v (d_hidden,)
    -> v . tanh(W_q q + W_k k), (..., S_q, S_k)."""
    queries, keys = round(query @ W_q.mT).unsqueeze(-2), round(key @ W_k.mT).unsqueeze(-3)
    hidden = round(torch.tanh(round(queries + keys)))
    inside = (query.abs() @ W_q.abs().mT).unsqueeze(-2) + (key.abs() @ W_k.abs().mT).unsqueeze(-3)
    return Quantity(round(hidden @ v), (1.0 + inside) @ v.abs())


def multiplicative(query: Tensor, key: Tensor, W: Tensor, round: Rounder = exact) -> Quantity:
    """query (..., S_q, d_query), key (..., S_k, d_key), W (d_query, d_key) -> q W k, (..., S_q, S_k)."""
    magnitude = query.abs() @ W.abs() @ key.abs().mT
    # q (W k) rounds elsewhere than (q W) k; the larger of the two errors is what a right solution may make.
    left, right = round(round(query @ W) @ key.mT), round(query @ round(W @ key.mT))
    return Quantity(farther(query @ W @ key.mT, left, right), magnitude)
