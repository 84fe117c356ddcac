"""Scores between queries and keys, in float64: the five kinds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autograder.oracle.quantity import Quantity, Rounder, exact, farther

__all__ = ["additive", "cosine", "dot", "multiplicative", "scaled_dot"]


def products(rows: Tensor, columns: Tensor, round: Rounder) -> Tensor:
    """rows (..., m, D), columns (..., n, D) -> the rounded rows @ columns.mT, (..., m, n).

    A matrix product rounds once, a product and a sum twice, a loop over D at every step: of these the one
    that is farthest off, for each is a right way to do it.
    """
    value = rows @ columns.mT
    if round is exact:
        return value
    terms = round(rows.unsqueeze(-2) * columns.unsqueeze(-3))  # (..., m, n, D)
    step_by_step = terms[..., 0]
    for term in terms.unbind(-1)[1:]:
        step_by_step = round(step_by_step + term)
    return farther(value, round(value), round(terms.sum(-1)), step_by_step)


def dot(query: Tensor, key: Tensor, round: Rounder = exact) -> Quantity:
    """query (..., S_q, D), key (..., S_k, D) -> q . k, (..., S_q, S_k)."""
    return Quantity(products(query, key, round), query.abs() @ key.abs().mT)


def scaled_dot(query: Tensor, key: Tensor, round: Rounder = exact) -> Quantity:
    """query (..., S_q, D), key (..., S_k, D) -> q . k / sqrt(D), (..., S_q, S_k)."""
    scale = 1 / math.sqrt(query.shape[-1])
    if round is exact:
        return Quantity(query @ key.mT * scale, query.abs() @ key.abs().mT * scale)
    # A student may scale the query, or the scores.
    before, after = products(round(query * scale), key, round), round(products(query, key, round) * scale)
    return Quantity(farther(query @ key.mT * scale, before, after), query.abs() @ key.abs().mT * scale)


def cosine(query: Tensor, key: Tensor, eps: float = 1e-8, round: Rounder = exact) -> Quantity:
    """query (..., S_q, D), key (..., S_k, D) -> q . k / (max(|q|, eps) max(|k|, eps)), (..., S_q, S_k)."""
    q_norm, k_norm = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(eps) for x in (query, key))
    unit_query, unit_key = query / q_norm, key / k_norm
    before = products(round(query / round(q_norm)), round(key / round(k_norm)), round)
    # Or the norms are divided out of the dot product.
    after = round(round(products(query, key, round) / round(q_norm)) / round(k_norm).mT)
    return Quantity(farther(unit_query @ unit_key.mT, before, after), unit_query.abs() @ unit_key.abs().mT)


def additive(
    query: Tensor, key: Tensor, W_q: Tensor, W_k: Tensor, v: Tensor, round: Rounder = exact
) -> Quantity:
    """query (..., S_q, d_query), key (..., S_k, d_key) -> v . tanh(W_q q + W_k k), (..., S_q, S_k).

    W_q (d_hidden, d_query), W_k (d_hidden, d_key), v (d_hidden,).
    """
    queries, keys = products(query, W_q, round).unsqueeze(-2), products(key, W_k, round).unsqueeze(-3)
    hidden = round(torch.tanh(round(queries + keys)))
    inside = (query.abs() @ W_q.abs().mT).unsqueeze(-2) + (key.abs() @ W_k.abs().mT).unsqueeze(-3)
    return Quantity(products(hidden, v.unsqueeze(0), round).squeeze(-1), (1.0 + inside) @ v.abs())


def multiplicative(query: Tensor, key: Tensor, W: Tensor, round: Rounder = exact) -> Quantity:
    """query (..., S_q, d_query), key (..., S_k, d_key), W (d_query, d_key) -> q W k, (..., S_q, S_k)."""
    magnitude = query.abs() @ W.abs() @ key.abs().mT
    # q (W k) rounds elsewhere than (q W) k; the larger of the two errors is what a right solution may make.
    left, right = (
        products(products(query, W.mT, round), key, round),
        products(query, products(key, W, round), round),
    )
    return Quantity(farther(query @ W @ key.mT, left, right), magnitude)
