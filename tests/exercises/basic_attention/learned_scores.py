"""`AdditiveScores` and `MultiplicativeScores`: right writings and mutants."""

from __future__ import annotations

import math
import sys

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.basic_attention.scores import every
from tests.exercises.catalogue import mutant, right

HALF = (torch.float16, torch.bfloat16)


# AdditiveScores


class Additive(nn.Module):
    """Bahdanau's score, its steps as methods, so that a right writing or a mutant changes one of them."""

    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.W_q = nn.Linear(d_query, d_hidden, bias=False)
        self.W_k = nn.Linear(d_key, d_hidden, bias=False)
        self.v = nn.Linear(d_hidden, 1, bias=False)

    def pair(self, query, key):
        return self.W_q(query).unsqueeze(-2) + self.W_k(key).unsqueeze(-3)

    def read(self, hidden):
        return self.v(hidden).squeeze(-1)

    def forward(self, query, key):
        return self.read(torch.tanh(self.pair(query, key)))


@right("AdditiveScores")
class AdditiveWithNone(Additive):
    def forward(self, query, key):
        hidden = torch.tanh(self.W_q(query)[..., :, None, :] + self.W_k(key)[..., None, :, :])
        return self.v(hidden)[..., 0]


@right("AdditiveScores")
class AdditiveLoop(Additive):
    def forward(self, query, key):
        keys = self.W_k(key)
        rows = [self.v(torch.tanh(self.W_q(query[..., i : i + 1, :]) + keys)) for i in range(query.shape[-2])]
        return torch.cat(rows, -1).mT


@right("AdditiveScores")
class AdditiveExpanded(Additive):
    def pair(self, query, key):
        S_q, S_k = query.shape[-2], key.shape[-2]
        queries = self.W_q(query).repeat_interleave(S_k, -2).unflatten(-2, (S_q, S_k))
        keys = self.W_k(key).unsqueeze(-3).expand(*query.shape[:-2], S_q, S_k, -1)
        return queries + keys


@right("AdditiveScores")
class AdditiveOfConcatenation(Additive):
    """tanh([W_q W_k] [q; k]), which is how the formula is often printed."""

    def pair(self, query, key):
        S_q, S_k = query.shape[-2], key.shape[-2]
        queries = query.unsqueeze(-2).expand(*query.shape[:-1], S_k, query.shape[-1])
        keys = key.unsqueeze(-3).expand(*key.shape[:-2], S_q, *key.shape[-2:])
        return F.linear(torch.cat([queries, keys], -1), torch.cat([self.W_q.weight, self.W_k.weight], -1))


@right("AdditiveScores")
class AdditiveEinsum(Additive):
    def forward(self, query, key):
        queries = torch.einsum("...qi,hi->...qh", query, self.W_q.weight)
        keys = torch.einsum("...ki,hi->...kh", key, self.W_k.weight)
        hidden = torch.tanh(queries.unsqueeze(-2) + keys.unsqueeze(-3))
        return torch.einsum("...qkh,h->...qk", hidden, self.v.weight.squeeze(0))


@right("AdditiveScores")
class AdditiveParameters(nn.Module):
    """Bare parameters, written for row vectors: x @ W."""

    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.W_q = nn.Parameter(torch.randn(d_query, d_hidden) / math.sqrt(d_query))
        self.W_k = nn.Parameter(torch.randn(d_key, d_hidden) / math.sqrt(d_key))
        self.v = nn.Parameter(torch.randn(d_hidden))

    def forward(self, query, key):
        return torch.tanh((query @ self.W_q).unsqueeze(-2) + (key @ self.W_k).unsqueeze(-3)) @ self.v


@right("AdditiveScores")
class AdditiveFloat32(Additive):
    def forward(self, query, key):
        hidden = self.pair(query, key)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        scores = (torch.tanh(hidden.to(wide)) * self.v.weight[0].to(wide)).sum(-1)
        return scores.to(query.dtype)


@right("AdditiveScores")
class AdditiveBySigmoid(Additive):
    def forward(self, query, key):
        return self.read(2 * torch.sigmoid(2 * self.pair(query, key)) - 1)


@mutant("AdditiveScores", "scores has the wrong shape")
class AdditiveUnsqueezed(Additive):
    def read(self, hidden):
        return self.v(hidden)


@mutant("AdditiveScores", "scores has the wrong shape")
class AdditiveSqueezed(Additive):
    def read(self, hidden):
        return self.v(hidden).squeeze()


@mutant("AdditiveScores", "fixed number of leading axes")
class AdditiveFixedAxes(Additive):
    def pair(self, query, key):
        return self.W_q(query).unsqueeze(3) + self.W_k(key).unsqueeze(2)


@mutant("AdditiveScores", "wrong gradient")
class AdditiveHalfDetached(Additive):
    def read(self, hidden):
        scores = super().read(hidden)
        return (scores + scores.detach()) / 2


@mutant("AdditiveScores", "changes its inputs in place")
class AdditiveCentred(Additive):
    def forward(self, query, key):
        scores = super().forward(query, key.clone())
        key -= key.mean(-1, keepdim=True).detach()
        return scores


@mutant("AdditiveScores", "depends on the memory layout of its inputs")
class AdditiveViews(Additive):
    def pair(self, query, key):
        return super().pair(query.view(-1, query.shape[-1]).view(query.shape), key)


@mutant("AdditiveScores")
class AdditiveRemembers(Additive):
    """Projects the keys once for each shape, as a decoder might that sees the same keys at every step."""

    def forward(self, query, key):
        if torch.is_grad_enabled() and (query.requires_grad or self.v.weight.requires_grad):
            return super().forward(query, key)
        if not hasattr(self, "seen") or self.seen.shape[:-1] != key.shape[:-1]:
            self.seen = self.W_k(key)
        return self.read(torch.tanh(self.W_q(query).unsqueeze(-2) + self.seen.unsqueeze(-3)))


@mutant("AdditiveScores", "a parameter is never used", only="parameters")
class AdditiveSpareLayer(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.out = nn.Linear(d_hidden, d_hidden)


@mutant("AdditiveScores", "a parameter that the formula does not have", only="parameters")
class AdditiveBiasFromZero(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.b = nn.Parameter(torch.zeros(d_hidden))

    def pair(self, query, key):
        return super().pair(query, key) + self.b.to(query.dtype)


@mutant("AdditiveScores", "weights are not trainable", only="parameters")
class AdditiveBuffer(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        del self.v
        self.register_buffer("v", torch.randn(d_hidden))

    def read(self, hidden):
        return hidden @ self.v.to(hidden.dtype)


@mutant("AdditiveScores", "a bias where the formula has none")
class AdditiveBias(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.W_q = nn.Linear(d_query, d_hidden)


@mutant("AdditiveScores", "missing or misnamed parameter")
class AdditiveOtherNames(nn.Module):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.Wq, self.Wk = nn.Linear(d_query, d_hidden, bias=False), nn.Linear(d_key, d_hidden, bias=False)
        self.v = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, query, key):
        return self.v(torch.tanh(self.Wq(query).unsqueeze(-2) + self.Wk(key).unsqueeze(-3))).squeeze(-1)


@mutant("AdditiveScores", "missing or misnamed parameter")
class AdditiveLayersInForward(nn.Module):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.widths = d_query, d_key, d_hidden

    def forward(self, query, key):
        return Additive(*self.widths)(query, key)


@mutant("AdditiveScores", "another result at every call")
class AdditiveDropout(Additive):
    def read(self, hidden):
        return super().read(F.dropout(hidden, 0.1))


# MultiplicativeScores


class Multiplicative(nn.Module):
    """Luong's general score."""

    def __init__(self, d_query, d_key):
        super().__init__()
        self.W = nn.Parameter(torch.randn(d_query, d_key) / math.sqrt(d_query))

    def forward(self, query, key):
        return query @ self.W @ key.transpose(-2, -1)


@right("MultiplicativeScores")
class KeysFirst(Multiplicative):
    def forward(self, query, key):
        return query @ (self.W @ key.mT)


@right("MultiplicativeScores")
class BilinearEinsum(Multiplicative):
    def forward(self, query, key):
        return torch.einsum("...qi,ij,...kj->...qk", query, self.W, key)


@right("MultiplicativeScores")
class ProjectedKeys(Multiplicative):
    def forward(self, query, key):
        return torch.matmul(query, F.linear(key, self.W).transpose(-1, -2))


@right("MultiplicativeScores")
class BilinearBroadcast(Multiplicative):
    def forward(self, query, key):
        projected = (query.unsqueeze(-1) * self.W).sum(-2)
        return (projected.unsqueeze(-2) * key.unsqueeze(-3)).sum(-1)


@right("MultiplicativeScores")
class BilinearLoop(Multiplicative):
    def forward(self, query, key):
        columns = [query @ self.W @ key[..., j, :].unsqueeze(-1) for j in range(key.shape[-2])]
        return torch.cat(columns, -1)


@right("MultiplicativeScores")
class BilinearBmm(Multiplicative):
    def forward(self, query, key):
        *lead, S_q, d_query = query.shape
        projected = (query.reshape(-1, d_query) @ self.W).reshape(-1, S_q, self.W.shape[1])
        flat_key = key.reshape(-1, *key.shape[-2:])
        return torch.bmm(projected, flat_key.transpose(1, 2)).reshape(*lead, S_q, key.shape[-2])


@right("MultiplicativeScores")
class LayerOnTheKeys(nn.Module):
    """nn.Linear(d_key, d_query) holds its weight as (d_query, d_key): the shape that is asked for."""

    def __init__(self, d_query, d_key):
        super().__init__()
        self.W = nn.Linear(d_key, d_query, bias=False)

    def forward(self, query, key):
        return query @ self.W(key).mT


@right("MultiplicativeScores")
class BilinearFunction(Multiplicative):
    def forward(self, query, key):
        S_q, S_k = query.shape[-2], key.shape[-2]
        queries = query.unsqueeze(-2).expand(*query.shape[:-1], S_k, query.shape[-1])
        keys = key.unsqueeze(-3).expand(*key.shape[:-2], S_q, *key.shape[-2:])
        return F.bilinear(queries.contiguous(), keys.contiguous(), self.W.unsqueeze(0)).squeeze(-1)


@mutant("MultiplicativeScores", "scores has the wrong shape")
class Squeezed(Multiplicative):
    def forward(self, query, key):
        return super().forward(query, key).squeeze()


@mutant("MultiplicativeScores", "fixed number of leading axes")
class FourLetters(Multiplicative):
    def forward(self, query, key):
        return torch.einsum("bhqi,ij,bhkj->bhqk", query, self.W, key)


@mutant("MultiplicativeScores", "gradient is cut off")
class WeightData(Multiplicative):
    def forward(self, query, key):
        return query @ self.W.data @ key.mT


@mutant("MultiplicativeScores", "changes its inputs in place")
class InPlace(Multiplicative):
    def forward(self, query, key):
        scores = super().forward(query.clone(), key)
        query.mul_(2)
        return scores


@mutant("MultiplicativeScores", "depends on the memory layout of its inputs")
class Views(Multiplicative):
    def forward(self, query, key):
        return (query.view(-1, query.shape[-1]) @ self.W).view(*query.shape[:-1], -1) @ key.mT


@mutant("MultiplicativeScores", "a parameter is never used", only="parameters")
class SpareParameter(Multiplicative):
    def __init__(self, d_query, d_key):
        super().__init__(d_query, d_key)
        self.scale = nn.Parameter(torch.ones(1))


@mutant("MultiplicativeScores", "a parameter that the formula does not have", only="parameters")
class LearnedScale(Multiplicative):
    def __init__(self, d_query, d_key):
        super().__init__(d_query, d_key)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, query, key):
        return super().forward(query, key) * self.scale.to(query.dtype)


@mutant("MultiplicativeScores", "weights are not trainable", only="parameters")
class Buffer(Multiplicative):
    def __init__(self, d_query, d_key):
        super().__init__(d_query, d_key)
        del self.W
        self.register_buffer("W", torch.randn(d_query, d_key))


@mutant("MultiplicativeScores", "missing or misnamed parameter")
class PlainTensor(Multiplicative):
    def __init__(self, d_query, d_key):
        nn.Module.__init__(self)
        self.W = torch.randn(d_query, d_key)


@mutant("MultiplicativeScores", "a bias where the formula has none")
class LayerWithBias(nn.Module):
    def __init__(self, d_query, d_key):
        super().__init__()
        self.W = nn.Linear(d_key, d_query)

    def forward(self, query, key):
        return query @ self.W(key).mT


# Lazy answers to both


@every(("AdditiveScores", "MultiplicativeScores"))
class NoConstructor(nn.Module):
    def forward(self, query, key):
        return query @ key.mT


@every(("AdditiveScores", "MultiplicativeScores"), "missing or misnamed parameter")
class NoParameters(nn.Module):
    def __init__(self, *widths):
        super().__init__()

    def forward(self, query, key):
        return torch.zeros(*query.shape[:-1], key.shape[-2], dtype=query.dtype)


@every(("AdditiveScores", "MultiplicativeScores"), "not an nn.Module")
class NotAModule:
    def __init__(self, *widths):
        self.widths = widths

    def __call__(self, query, key):
        return query


@every(("AdditiveScores", "MultiplicativeScores"))
class LeavesTheProgram(nn.Module):
    def __init__(self, *widths):
        sys.exit(0)


@every(("AdditiveScores", "MultiplicativeScores"))
def function_of_query_and_key(query, key):
    return query @ key.mT
