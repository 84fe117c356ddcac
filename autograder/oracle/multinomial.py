"""How far a sample may be from the distribution that it was drawn from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["divergence", "largest_divergence"]


def divergence(counts: Tensor, probs: Tensor) -> float:
    """Kullback-Leibler divergence, in nats, of the frequencies of counts (V,) from probs (V,); inf where a count has none."""
    shares = counts.to(torch.float64) / counts.sum()
    seen = shares > 0
    return float((shares[seen] * (shares[seen] / probs[seen]).log()).sum())


def largest_divergence(draws: int, kept: int, false_alarm: float) -> float:
    """The divergence that `draws` draws from `kept` tokens exceed with probability below `false_alarm`.

    Agrawal 2020 (Finite-sample concentration of the multinomial in relative entropy, theorem 1.2): with k tokens and n
    draws, P(divergence >= d) <= exp(-n d) (e n d / (k - 1))^(k - 1) for n d > k - 1. A bound for every n and every
    distribution, not an approximation for large n.
    """
    k = max(kept, 2) - 1
    low = scaled = float(k)
    while k * (1 + math.log(scaled / k)) - scaled > math.log(false_alarm):
        low, scaled = scaled, 2 * scaled
    for _ in range(60):
        middle = (low + scaled) / 2
        if k * (1 + math.log(middle / k)) - middle > math.log(false_alarm):
            low = middle
        else:
            scaled = middle
    return scaled / draws
