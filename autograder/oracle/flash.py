"""What a fused attention kernel yields, in float64: output, log-sum-exp, and the three gradients.

A kernel rounds where it must and nowhere else, so each computation names its baseline: where a right one of that kind
rounds. `fused`: the weights and the gradient of the scores, where they enter a matrix product, and the results.
`eager`: the scores, too, and each head's share of a gradient. `tf32`: both operands of every matrix product.
An exercise names its baseline with `functools.partial(flash_attention, baseline="eager")`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from autograder.oracle.attention import allowed_keys
from autograder.oracle.quantity import Quantity, Rounder, exact

__all__ = ["BASELINES", "flash_attention", "flash_gradients"]

BASELINES = {
    "fused": frozenset({"weights", "results"}),
    "eager": frozenset({"scores", "weights", "results"}),
    "tf32": frozenset({"operands"}),
}
"""Where each kind rounds."""


class _Steps:
    """The forward pass up to the weights, with every intermediate value that the backward pass needs."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        is_causal: bool,
        attn_mask: Tensor | None,
        round: Rounder,
        baseline: str,
    ):
        places = BASELINES[baseline]
        self.at: Callable[[str], Rounder] = lambda place: round if place in places else exact
        operand, score = self.at("operands"), self.at("scores")
        if query.shape[1] % key.shape[1] or key.shape[1] != value.shape[1]:
            raise ValueError("heads that do not fit have no result")
        self.kv_heads, self.group = key.shape[1], query.shape[1] // key.shape[1]
        self.scale = 1 / math.sqrt(query.shape[-1])
        # Query head h reads head h // group.
        self.query, self.key, self.value = query, *(x.repeat_interleave(self.group, 1) for x in (key, value))
        allowed = allowed_keys((*query.shape[:-1], key.shape[-2]), attn_mask, is_causal)
        self.scores = score(score(operand(self.query) @ operand(self.key).mT) * self.scale)
        terms = torch.where(allowed, self.query.abs() @ self.key.abs().mT * self.scale, 0.0)
        self.row_terms = terms.amax(-1) if terms.shape[-1] else terms.sum(-1)
        self.growth = float(terms.max()) if terms.numel() else 0.0
        hidden = self.scores.masked_fill(~allowed, -torch.inf)
        self.log_sum_exp = hidden.logsumexp(-1)  # -inf in a dead row
        self.alive = allowed.any(-1)
        shift = torch.where(self.alive, self.log_sum_exp, 0.0).unsqueeze(-1)
        self.weights = torch.exp(hidden - shift)
        # A kernel rounds exp(scores - maximum), and divides by the sum in the end.
        peak = torch.where(self.alive, hidden.amax(-1), 0.0).unsqueeze(-1)
        tall = self.at("weights")(operand(torch.exp(hidden - peak)))
        self.output = self.at("results")(tall @ operand(self.value) * torch.exp(peak - shift))


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool = False,
    attn_mask: Tensor | None = None,
    round: Rounder = exact,
    baseline: str = "fused",
) -> dict[str, Quantity]:
    """query (B, H_q, S_q, D), key (B, H_kv, S_k, D), value (B, H_kv, S_k, D_v)
    -> output (B, H_q, S_q, D_v), log_sum_exp (B, H_q, S_q), which is -inf in a dead row. Causal is top left."""
    steps = _Steps(query, key, value, is_causal, attn_mask, round, baseline)
    peaks = torch.where(steps.alive, 1.0 + steps.row_terms + steps.log_sum_exp.abs(), 0.0)
    return {
        "output": Quantity(steps.output, steps.weights @ steps.value.abs(), steps.growth),
        "log_sum_exp": Quantity(steps.log_sum_exp, peaks),
    }


def flash_gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    upstream: Tensor,
    is_causal: bool = False,
    attn_mask: Tensor | None = None,
    round: Rounder = exact,
    baseline: str = "fused",
) -> dict[str, Quantity]:
    """Gradients of the output times upstream (B, H_q, S_q, D_v), summed, for inputs as in `flash_attention`
    -> d_query, d_key, d_value, shaped like query, key and value."""
    steps = _Steps(query, key, value, is_causal, attn_mask, round, baseline)
    operand, score, weight, result = map(steps.at, ("operands", "scores", "weights", "results"))
    towards = score(operand(upstream) @ operand(steps.value).mT)  # dP, (B, H_q, S_q, S_k)
    delta = (upstream * steps.output).sum(-1, keepdim=True)
    d_scores = operand(weight(steps.weights * (towards - delta)))  # dS
    spread = upstream.abs() @ steps.value.abs().mT
    terms = steps.weights * (spread + (steps.weights * spread).sum(-1, keepdim=True))

    def summed(per_head: Tensor) -> Tensor:
        """The group's shares added up, (B, H_kv, S_k, ...)."""
        shares = result(per_head) if baseline == "eager" else per_head
        return shares.unflatten(1, (steps.kv_heads, steps.group)).sum(2)

    def quantity(value: Tensor, magnitude: Tensor) -> Quantity:
        return Quantity(result(value), magnitude, steps.growth)

    d_query = d_scores @ operand(steps.key) * steps.scale
    d_key = summed(d_scores.mT @ operand(steps.query) * steps.scale)
    d_value = summed(operand(weight(steps.weights)).mT @ operand(upstream))
    return {
        "d_query": quantity(d_query, terms @ steps.key.abs() * steps.scale),
        "d_key": quantity(d_key, summed(terms.mT @ steps.query.abs() * steps.scale)),
        "d_value": quantity(d_value, summed(steps.weights.mT @ upstream.abs())),
    }
