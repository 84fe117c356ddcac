"""How far a sample may be from the distribution that it was drawn from."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

__all__ = ["divergence", "largest_divergence", "too_even"]


def divergence(counts: Tensor, probs: Tensor) -> float:
    """Kullback-Leibler divergence, in nats, of the frequencies of counts (V,) from probs (V,); inf where a count has none."""
    shares = counts.to(torch.float64) / counts.sum()
    seen = shares > 0
    return float((shares[seen] * (shares[seen] / probs[seen]).log()).sum())


@cache
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


ENOUGH = 100
"""A token that is expected less often is counted together with the others of its kind."""

LEAST_KINDS = 6


def too_even(counts: Tensor, probs: Tensor, false_alarm: float) -> bool:
    """Whether frequencies fit their probabilities better than draws do, save with probability `false_alarm`.

    2 n divergence follows chi-square with f = k - 1 degrees of freedom where every token of the k is expected often, and
    P(chi-square <= x) <= (x / 2)^(f / 2) / Gamma(f / 2 + 1). With fewer than LEAST_KINDS tokens nothing can be said.
    """
    draws = float(counts.sum())
    often = probs * draws >= ENOUGH
    kinds = [torch.cat([each[often], each[~often].sum().reshape(1)]) for each in (counts, probs)]
    if float(kinds[1][-1]) * draws < ENOUGH:
        kinds = [torch.cat([each[:-2], each[-2:].sum().reshape(1)]) for each in kinds]
    if len(kinds[1]) < LEAST_KINDS:
        return False
    half = (len(kinds[1]) - 1) / 2
    return draws * divergence(*kinds) < math.exp((math.log(false_alarm) + math.lgamma(half + 1)) / half)
