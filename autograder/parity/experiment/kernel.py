"""A made-up fused kernel, block by block, in many right ways, and wrong in one way on request."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from autograder.parity.cases import Inputs
from autograder.parity.experiment.arithmetic import Arithmetic

__all__ = ["Kernel", "Plan"]

LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Plan:
    """How a kernel goes about it. Every value is right, but a slip.

    block: keys in a block. order: of the blocks, "forward", "backward" or "shuffled". base2: exp2 instead of exp. splits:
    parts of the keys that are merged in the end. lazy: the maximum rises only by steps larger than this. passes: 2 finds
    the log-sum-exp first. slip: the name of a mistake.
    """

    block: int = 16
    order: str = "forward"
    base2: bool = False
    splits: int = 1
    lazy: float = 0.0
    passes: int = 1
    slip: str = ""


class Kernel:
    """One run on one case: forward and backward."""

    def __init__(self, inputs: Inputs, precision: str, plan: Plan):
        self.plan, self.arithmetic = plan, Arithmetic(precision)
        self.inputs = inputs
        query, key, value, self.upstream = (x.float() for x in (*inputs.tensors, inputs.upstream))
        H_q, self.H_kv = query.shape[1], key.shape[1]
        heads = torch.arange(H_q) // (H_q // self.H_kv)
        if self.slip("query heads read key heads in turn"):
            heads = torch.arange(H_q) % self.H_kv
        if self.slip("every query head reads key head 0"):
            heads = torch.zeros_like(heads)
        self.heads = heads
        self.query, self.key, self.value = query, key[:, heads], value[:, heads]
        self.scale = self._scale(query.shape[-1])
        self.allowed = self._allowed(query.shape[-2], key.shape[-2])
        self._cut_or_pad()

    def slip(self, name: str) -> bool:
        """Whether this is the mistake to make."""
        return self.plan.slip == name

    def _scale(self, D: int) -> float:
        if self.slip("sqrt(D) is missing"):
            return 1.0
        if self.slip("sqrt(D) divides twice"):
            return 1.0 / D
        if self.slip("sqrt of D padded to a power of two"):
            return 1.0 / math.sqrt(1 << (D - 1).bit_length())
        return (1.01 if self.slip("scale 1 % too large") else 1.0) / math.sqrt(D)

    def _allowed(self, S_q: int, S_k: int) -> Tensor:
        """(S_q, S_k), True where attention is allowed."""
        allowed = torch.ones(S_q, S_k, dtype=torch.bool)
        if self.inputs.is_causal:
            offset = 0
            if self.slip("causal hides a query's own position"):
                offset = -1
            if self.slip("causal shows the next position"):
                offset = 1
            if self.slip("causal is aligned at the other end"):
                offset = S_k - S_q
            allowed = allowed.tril(offset)
            if self.slip("causal skips the block on the diagonal"):
                starts = torch.arange(S_q) // self.plan.block * self.plan.block
                allowed &= torch.arange(S_k) < starts.clamp_min(1).unsqueeze(-1)
        return allowed if self.inputs.attn_mask is None else allowed & self.inputs.attn_mask

    def _cut_or_pad(self) -> None:
        """Mistakes at the end of the keys."""
        S_k, block = self.key.shape[-2], self.plan.block
        kept = S_k
        if self.slip("the last key is dropped"):
            kept = S_k - 1
        if self.slip("the ragged last block is dropped"):
            kept = S_k // block * block
        if kept < S_k:
            self.allowed = self.allowed.clone()
            self.allowed[:, kept:] = False
        if self.slip("the tail is not masked") and S_k % block:
            pad = block - S_k % block
            self.key, self.value = (
                torch.nn.functional.pad(x, (0, 0, 0, pad)) for x in (self.key, self.value)
            )
            self.allowed = torch.nn.functional.pad(self.allowed, (0, pad), value=True)

    def _blocks(self, start: int, stop: int) -> list[tuple[int, int]]:
        edges = [(at, min(at + self.plan.block, stop)) for at in range(start, stop, self.plan.block)]
        if self.plan.order == "backward":
            return edges[::-1]
        if self.plan.order == "shuffled":
            order = torch.randperm(len(edges), generator=torch.Generator().manual_seed(1))
            return [edges[i] for i in order]
        return edges

    def _scores(self, start: int, stop: int) -> Tensor:
        """The masked scores of one block, (B, H_q, S_q, block), in the units of the exponential."""
        scores = self.arithmetic.product(self.query, self.key[..., start:stop, :].mT)
        if self.slip("scores rounded to half precision"):
            scores = scores.to(self.arithmetic.dtype if self.arithmetic.half else torch.float16).float()
        scores = scores * (self.scale * (LOG2_E if self.plan.base2 else 1.0))
        return scores.masked_fill(~self.allowed[:, start:stop], -torch.inf)

    def _exp(self, x: Tensor) -> Tensor:
        return torch.exp2(x) if self.plan.base2 or self.slip("exp2 without log2(e)") else torch.exp(x)

    def forward(self) -> tuple[Tensor, Tensor]:
        """-> output (B, H_q, S_q, D) in the precision's dtype, log_sum_exp (B, H_q, S_q) float32, natural."""
        S_k, splits = self.key.shape[-2], self.plan.splits
        edges = [round(S_k * part / splits) for part in range(splits + 1)]
        parts = [self._part(start, stop) for start, stop in pairwise(edges)]
        output, log_sum_exp = self._merged(parts)
        if self.slip("the last query is not written"):
            output[..., -1, :] = 0.0
        if self.slip("dead rows are not zeroed"):
            output = torch.where(
                self.allowed.any(-1, keepdim=True), output, self.value.mean(-2, keepdim=True)
            )
        output = output.to(self.arithmetic.dtype)
        if self.slip("log-sum-exp in units of log 2"):
            log_sum_exp = log_sum_exp * LOG2_E
        return output, log_sum_exp

    def _merged(self, parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Outputs and log-sum-exps of parts of the keys -> those of all keys."""
        if self.slip("the last split is forgotten"):
            parts = parts[:-1]
        sums = torch.stack([part[1] for part in parts])  # (splits, B, H_q, S_q)
        total = sums.logsumexp(0)
        shares = torch.exp(sums - torch.where(total.isfinite(), total, 0.0))
        if self.slip("splits are averaged"):
            shares = torch.full_like(shares, 1.0 / len(parts))
        outputs = torch.stack([part[0] for part in parts])
        return (shares.unsqueeze(-1) * outputs).sum(0), total

    def _part(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Online softmax over the keys start..stop -> output (B, H_q, S_q, D), log_sum_exp (B, H_q, S_q), float32."""
        rows = (*self.query.shape[:-1], 1)
        peak, total = torch.full(rows, -torch.inf), torch.zeros(rows)
        sums = torch.zeros(*rows[:-1], self.value.shape[-1])
        store, block_sum = self.arithmetic.store, total
        blocks = self._blocks(start, stop)
        if self.plan.passes == 2:
            peak = torch.cat([self._scores(*edges) for edges in blocks], -1).logsumexp(-1, keepdim=True)
        for number, (first, last) in enumerate(blocks):
            scores = self._scores(first, last)
            higher = self._risen(peak, scores, number)
            shift = torch.where(higher.isfinite(), higher, 0.0)
            weights, rescale = self._exp(scores - shift), self._exp(peak - shift)
            if self.slip("block weights use the maximum before the block") and number:
                weights = self._exp(scores - torch.where(peak.isfinite(), peak, 0.0))
            if self.slip("rescaled by the inverse factor") and number:
                rescale = 1.0 / rescale.clamp_min(1e-30)
            block_sum = weights.sum(-1, keepdim=True)
            total = total * (1.0 if self.slip("the sum is not rescaled") else rescale) + block_sum
            rounded = (
                self.arithmetic.coarse(weights) if self.slip("weights of too few bits") else store(weights)
            )
            kept = sums if self.slip("the accumulator is not rescaled") else sums * rescale
            sums = kept + self.arithmetic.product(rounded, self.value[..., first:last, :])
            if self.slip("the accumulator is kept in half precision"):
                sums = store(sums)
            if self.slip("the sum is kept in half precision"):
                total = store(total)
            peak = higher
        divisor = block_sum if self.slip("divided by the sum of the last block") else total
        output = sums / torch.where(divisor == 0, 1.0, divisor)
        if self.slip("log-sum-exp without the maximum"):
            return output, total.squeeze(-1).log()
        log = total.log2() if self.plan.base2 else total.log()
        return output, ((peak + log) / (LOG2_E if self.plan.base2 else 1.0)).squeeze(-1)

    def _risen(self, peak: Tensor, scores: Tensor, number: int) -> Tensor:
        """The maximum after a block."""
        if self.plan.passes == 2 or (self.slip("the maximum of the first block is kept") and number):
            return peak
        if self.slip("no maximum is taken off"):
            return torch.zeros_like(peak)
        higher = torch.maximum(peak, scores.amax(-1, keepdim=True))
        if self.plan.lazy:
            return torch.where(higher - peak > self.plan.lazy, higher, peak)
        return higher

    def backward(self, output: Tensor, log_sum_exp: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> d_query (B, H_q, S_q, D), d_key, d_value (B, H_kv, S_k, D), in the precision's dtype."""
        product, store = self.arithmetic.product, self.arithmetic.store
        if self.slip("backward forgets the causal mask") and self.inputs.is_causal:
            self.allowed = torch.ones_like(self.allowed)
        delta = (self.upstream * output.float()).sum(-1, keepdim=True)
        if self.slip("delta is missing"):
            delta = torch.zeros_like(delta)
        if self.slip("delta of the row before"):
            delta = delta.roll(1, -2)
        log_sums = torch.where(log_sum_exp.isfinite(), log_sum_exp, 0.0).unsqueeze(-1)
        d_query = torch.zeros_like(self.query)
        d_key, d_value = torch.zeros_like(self.key), torch.zeros_like(self.value)
        for first, last in self._blocks(0, self.key.shape[-2]):
            keys, values = self.key[..., first:last, :], self.value[..., first:last, :]
            weights = torch.exp(self._scores(first, last) / (LOG2_E if self.plan.base2 else 1.0) - log_sums)
            if self.slip("dV from weights that do not sum to 1"):
                scores = self._scores(first, last)
                peak = scores.amax(-1, keepdim=True)
                d_value[..., first:last, :] = product(
                    store(torch.exp(scores - torch.where(peak.isfinite(), peak, 0.0))).mT, self.upstream
                )
            else:
                d_value[..., first:last, :] = product(store(weights).mT, self.upstream)
            d_scores = store(weights * (product(self.upstream, values.mT) - delta))
            share = product(d_scores, keys)
            d_query = share if self.slip("dQ of the last block overwrites") else d_query + share
            d_key[..., first:last, :] = product(d_scores.mT, self.query)
        d_query = d_query * (1.0 if self.slip("dQ without the scale") else self.scale)
        d_key = d_key * (1.0 if self.slip("dK without the scale") else self.scale)
        if self.slip("gradients 2 % too large"):
            d_query, d_key, d_value = d_query * 1.02, d_key * 1.02, d_value * 1.02
        S_k = self.inputs.key.shape[-2]
        grouped = (self._grouped(x[..., :S_k, :]) for x in (d_key, d_value))
        d_key, d_value = (x.to(self.arithmetic.dtype) for x in grouped)
        return d_query.to(self.arithmetic.dtype), d_key, d_value

    def _grouped(self, per_head: Tensor) -> Tensor:
        """(B, H_q, S_k, D) -> (B, H_kv, S_k, D): each key head gathers the shares of the query heads that read it."""
        gathered = torch.zeros(per_head.shape[0], self.H_kv, *per_head.shape[2:])
        if self.slip("dK and dV of the last query head only"):
            for head, share in zip(self.heads.tolist(), per_head.unbind(1), strict=True):
                gathered[:, head] = share
            return gathered
        return gathered.index_add(1, self.heads, per_head)

    def run(self) -> Iterator[tuple[str, Tensor]]:
        """Each quantity by name."""
        output, log_sum_exp = self.forward()
        yield "output", output
        yield "log_sum_exp", log_sum_exp
        yield from zip(("d_query", "d_key", "d_value"), self.backward(output, log_sum_exp), strict=True)
