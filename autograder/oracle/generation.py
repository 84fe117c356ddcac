"""Generating text, in float64: masks, perplexity, what may be drawn, cached attention, beams, encoder and decoder.

Token results are whole numbers in float64, so that one kind of result serves all formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from autograder.oracle.attention import linear, masked_softmax
from autograder.oracle.quantity import Quantity, Rounder, exact

__all__ = ["aligned", "beams", "cached_attention", "greedy", "kept", "perplexity", "whole"]

NextLogits = Callable[[list[int]], Tensor]
"""The float64 logits (V,) of the token that follows a text."""


def whole(numbers: list[int] | Tensor) -> Quantity:
    """Whole numbers as a result: nothing is lost."""
    value = torch.as_tensor(numbers).to(torch.float64)
    return Quantity(value, value.abs())


def aligned(S_q: int, S_k: int) -> Tensor:
    """The (S_q, S_k) mask in which query i, at position S_k - S_q + i, sees the keys up to its own position."""
    if S_q > S_k:
        raise ValueError(f"{S_q} queries, {S_k} keys")
    places = torch.arange(S_k)
    return places <= places[S_k - S_q :, None]


def perplexity(
    logits: Tensor, targets: Tensor, ignore_index: int = -100, round: Rounder = exact
) -> dict[str, Quantity]:
    """logits (..., S, V), targets (..., S) -> exp of the mean negative log-likelihood of targets that count."""
    counts = targets != ignore_index
    if not bool(counts.any()):
        raise ValueError("no target counts")
    rows, wanted = logits[counts], targets[counts].unsqueeze(-1)
    losses = round(round(rows.logsumexp(-1, keepdim=True)) - rows.gather(-1, wanted))
    total = losses.sum() if round is exact else _added_up(losses.flatten(), round)
    # exp turns the rounding of the mean loss, which is as large as logits and losses, into a relative error.
    largest = max(float(part.detach().abs().nan_to_num(0.0, 0.0, 0.0).max()) for part in (rows, losses))
    value = round((round(total / losses.numel()) + _step(largest, round)).exp())
    return {"perplexity": Quantity(value, value.abs(), 2 * largest)}


def _step(size: float, round: Rounder) -> float:
    """What is lost at most where numbers up to that size are rounded: one number alone loses that or nothing, by chance."""
    numbers = torch.linspace(size / 2, size, 65, dtype=torch.float64)
    return 0.0 if round is exact else float((round(numbers) - numbers).abs().max())


def _added_up(terms: Tensor, round: Rounder) -> Tensor:
    """Their sum, as one gets it who adds them up in a dtype."""
    total = torch.zeros_like(terms[0])
    for part in terms.split(max(1, len(terms) // 16)):
        total = round(total + part.sum())
    return total


def kept(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """logits (V,) -> the probabilities (V,) with which the tokens are drawn; equals go by their index."""
    order = logits.sort(descending=True, stable=True).indices[: 1 if temperature == 0 else top_k]
    some = torch.softmax(logits[order] / (temperature or 1.0), 0)
    if top_p is not None:
        some = some[: int((some.cumsum(0) < top_p).sum()) + 1]
    return torch.zeros_like(logits).index_copy(0, order[: len(some)], some / some.sum())


def greedy(following: NextLogits, prompt: list[int], most: int, eos: int | None) -> list[int]:
    """The prompt, and the most likely next tokens, up to `most` of them or up to eos."""
    text = list(prompt)
    for _ in range(most):
        text.append(int(following(text).argmax()))
        if text[-1] == eos:
            break
    return text


def beams(
    following: NextLogits, prompt: list[int], beam_size: int, most: int, eos: int, length_penalty: float
) -> tuple[list[int], float, float]:
    """The best text, its score, and the margin: the smallest gap in log-probability or score that decided anything."""
    live, finished, margin = [(0.0, list(prompt))], [], math.inf
    for step in range(1, most + 1):
        rows = torch.log_softmax(torch.stack([following(text) for _, text in live]), -1).tolist()
        every = [
            (total + more, place, token)
            for place, ((total, _), row) in enumerate(zip(live, rows, strict=True))
            for token, more in enumerate(row)
        ]
        every.sort(key=lambda one: -one[0])  # stable: equals keep the order in which they were found
        margin = min([margin, *(one[0] - other[0] for one, other in pairwise(every[: beam_size + 1]))])
        chosen = [(total, [*live[place][1], token]) for total, place, token in every[:beam_size]]
        done = [one for one in chosen if one[1][-1] == eos or step == most]
        finished += [(total / step**length_penalty, text) for total, text in done]
        live = [one for one in chosen if one not in done]
        if not live:
            break
    finished.sort(key=lambda one: -one[0])
    margin = min([margin, *(one[0] - other[0] for one, other in pairwise(finished[:2]))])
    return finished[0][1], finished[0][0], margin


def cached_attention(
    x: Tensor, num_heads: int, round: Rounder = exact, **weights: Tensor
) -> dict[str, Quantity]:
    """x (..., S, d_model), weights `q_proj`, `q_proj_bias`, ... as in nn.Linear -> the full causal pass (..., S, d_model)."""

    def heads(name: str) -> Quantity:
        made = linear(Quantity(x, x.abs()), weights[name], weights.get(f"{name}_bias"), round)
        value, magnitude = (
            part.unflatten(-1, (num_heads, -1)).transpose(-3, -2) for part in (made.value, made.magnitude)
        )
        return Quantity(value, magnitude)  # (..., H, S, D)

    query, key, value = heads("q_proj"), heads("k_proj"), heads("v_proj")
    width = query.value.shape[-1]
    scores = round(round(query.value @ key.value.mT) / math.sqrt(width))
    allowed = aligned(*scores.shape[-2:])
    probs = masked_softmax(scores, allowed, round)
    terms = query.magnitude @ key.magnitude.mT / math.sqrt(width)
    growth = float(torch.where(allowed, terms, 0.0).detach().max())
    mixed = Quantity(
        round(probs.value @ value.value).transpose(-3, -2).flatten(-2),
        (probs.magnitude @ value.magnitude).transpose(-3, -2).flatten(-2),
        growth,
    )
    return {"output": linear(mixed, weights["out_proj"], weights.get("out_proj_bias"), round)}
