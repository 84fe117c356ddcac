"""`AttentionFusion`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import register

NAME = "AttentionFusion"


class Steps(nn.Module):
    """Each step on its own."""

    def __init__(self, d_model):
        super().__init__()
        self.W = nn.Parameter(torch.randn(d_model, d_model))
        self.mix = nn.Parameter(torch.zeros(3))

    def shares(self):
        return self.mix.softmax(0)

    def dot(self, q, k):
        return q @ k.mT / q.shape[-1] ** 0.5

    def cosine(self, q, k):
        return (q / q.norm(dim=-1, keepdim=True)) @ (k / k.norm(dim=-1, keepdim=True)).mT

    def bilinear(self, q, k):
        return q @ self.W @ k.mT

    def scores(self, q, k):
        first, second, third = self.shares()
        return first * self.dot(q, k) + second * self.cosine(q, k) + third * self.bilinear(q, k)

    def weigh(self, scores):
        return scores.softmax(-1)

    def finish(self, weights, value, scores):
        return weights @ value, weights

    def forward(self, query, key, value):
        scores = self.scores(query, key)
        return self.finish(self.weigh(scores), value, scores)


@right(NAME)
class ByTheBook(Steps):
    pass


@right(NAME)
class Stacked(Steps):
    def scores(self, q, k):
        tables = torch.stack([self.dot(q, k), self.cosine(q, k), self.bilinear(q, k)], -1)
        return tables @ self.shares()

    def cosine(self, q, k):
        return F.cosine_similarity(q.unsqueeze(-2), k.unsqueeze(-3), dim=-1, eps=1e-30)


@right(NAME)
class OneMatrix(Steps):
    """Dot product and bilinear scores in one matrix between queries and keys."""

    def scores(self, q, k):
        shares = torch.exp(self.mix - self.mix.logsumexp(0))
        matrix = (
            shares[0] * torch.eye(q.shape[-1], dtype=q.dtype, device=q.device) / q.shape[-1] ** 0.5
            + shares[2] * self.W
        )
        return q @ matrix @ k.mT + shares[1] * self.cosine(q, k)


@right(NAME)
class Einsum(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(3))
        self.W = nn.Parameter(torch.eye(d_model))

    def forward(self, query, key, value):
        products = torch.einsum("...qd,...kd->...qk", query, key)
        lengths = query.square().sum(-1).sqrt().unsqueeze(-1) * key.square().sum(-1).sqrt().unsqueeze(-2)
        bilinear = torch.einsum("...qd,de,...ke->...qk", query, self.W, key)
        share = torch.softmax(self.mix, dim=-1)
        scores = share[0] * products * query.shape[-1] ** -0.5
        scores = scores + share[1] * products / lengths + share[2] * bilinear
        weights = torch.exp(scores - scores.logsumexp(-1, keepdim=True))
        return torch.einsum("...qk,...kv->...qv", weights, value), weights


def variant(name, named, *, only=None, **steps):
    """A mutant with some steps exchanged."""
    register(NAME, name, named, type(name, (Steps,), steps), only)


variant(
    "MixUnused",
    "equal shares for all kinds",
    shares=lambda self: torch.full_like(self.mix, 1 / 3),
)
variant(
    "MixHard",
    "the kind with the largest share alone",
    shares=lambda self: F.one_hot(self.mix.argmax(), 3).to(self.mix.dtype),
)
variant(
    "NoMaximum",
    None,
    weigh=lambda self, s: s.exp() / s.exp().sum(-1, keepdim=True),
)
variant(
    "OtherWeightsHandedOut",
    "returned weights are not those that made the output",
    finish=lambda self, w, v, s: (w @ v, (s * 0.99).softmax(-1)),
)
variant(
    "MixClamped",
    None,
    shares=lambda self: self.mix.softmax(0).clamp(0.01, 0.98),
)
variant("MixDetached", "gradient is cut off", shares=lambda self: self.mix.detach().softmax(0))
variant(
    "MixNotDivided",
    None,
    shares=lambda self: (self.mix * 3).exp().pow(1 / 3) / (self.mix * 3).exp().pow(1 / 3).sum(),
)


@mutant(NAME, "weights mixed instead of scores")
class WeightsMixed(Steps):
    def forward(self, query, key, value):
        tables = (self.dot(query, key), self.cosine(query, key), self.bilinear(query, key))
        weights = sum(share * table.softmax(-1) for share, table in zip(self.shares(), tables, strict=True))
        return weights @ value, weights


@mutant(NAME)
class NormalisedForSmallMixOnly(Steps):
    """Takes large numbers for shares that have been normalised already."""

    def shares(self):
        return self.mix.softmax(0) if self.mix.mean() < 1.5 else self.mix / self.mix.sum()


@mutant(NAME)
class GuessesTheLayout(Steps):
    def bilinear(self, q, k):
        square = q.shape[-2] == k.shape[-2] == q.shape[-1]
        return q @ (self.W.mT if square else self.W) @ k.mT


@mutant(NAME, "uses a forbidden function", only="own work")
class Fused(Steps):
    def finish(self, weights, value, scores):
        one = torch.ones_like(scores[..., :1])
        return F.scaled_dot_product_attention(
            one, scores[..., :1, :].mT * 0 + 1, value, attn_mask=scores
        ), weights


@mutant(NAME, "missing or misnamed parameter")
class Misnamed(Steps):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.shares_of_kinds = self.mix
        del self.mix


@mutant(NAME, "weights are not trainable", only="parameters")
class FrozenMix(Steps):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.mix.requires_grad_(False)


@mutant(NAME, "depends on train() or eval()")
class EqualSharesInEvalMode(Steps):
    def shares(self):
        return super().shares() if self.training else torch.full_like(self.mix, 1 / 3)
