"""`SymmetricAttention`: right writings and mutants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import register

NAME = "SymmetricAttention"


class Three(nn.Module):
    """The three layers, and each step on its own."""

    def __init__(self, d_model):
        super().__init__()
        self.qk_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def queries(self, x):
        return self.qk_proj(x)

    def keys(self, x):
        return self.qk_proj(x)

    def values(self, x):
        return self.v_proj(x)

    def score(self, query, key):
        return query @ key.mT / math.sqrt(query.shape[-1])

    def triangle(self, scores):
        return torch.ones_like(scores, dtype=torch.bool).tril()

    def weigh(self, scores, allowed):
        return scores.masked_fill(~allowed, -torch.inf).softmax(-1)

    def finish(self, weights, value, scores, x):
        return self.out_proj(weights @ value), weights

    def forward(self, x, is_causal=False):
        scores = self.score(self.queries(x), self.keys(x))
        allowed = self.triangle(scores) if is_causal else torch.ones_like(scores, dtype=torch.bool)
        weights = self.weigh(scores, allowed)
        return self.finish(weights, self.values(x), scores, x)


@right(NAME)
class ByTheBook(Three):
    pass


@right(NAME)
class Einsum(Three):
    def forward(self, x, is_causal=False):
        both = torch.einsum("...si,oi->...so", x, self.qk_proj.weight) + self.qk_proj.bias
        scores = torch.einsum("...qd,...kd->...qk", both, both) * x.shape[-1] ** -0.5
        if is_causal:
            scores = scores + torch.full_like(scores, -torch.inf).triu(1)
        weights = F.softmax(scores, -1)
        return self.out_proj(torch.einsum("...qk,...kd->...qd", weights, self.v_proj(x))), weights


@right(NAME)
class BareParameters(nn.Module):
    """Parameters without biases."""

    def __init__(self, d_model):
        super().__init__()
        for name in ("qk_proj", "v_proj", "out_proj"):
            self.register_parameter(name, nn.Parameter(torch.randn(d_model, d_model) / d_model**0.5))

    def forward(self, x, is_causal=False):
        both = x @ self.qk_proj.mT / x.shape[-1] ** 0.25
        scores = both @ both.mT
        rows = torch.arange(x.shape[-2], device=x.device)
        if is_causal:
            scores = torch.where(rows[:, None] >= rows, scores, torch.finfo(x.dtype).min)
        weights = (scores - scores.logsumexp(-1, keepdim=True)).exp()
        return weights @ (x @ self.v_proj.mT) @ self.out_proj.mT, weights


@right(NAME)
class FusedAndFloat32Inside(Three):
    def forward(self, x, is_causal=False):
        both, value = F.linear(
            x,
            torch.cat([self.qk_proj.weight, self.v_proj.weight]),
            torch.cat([self.qk_proj.bias, self.v_proj.bias]),
        ).chunk(2, -1)
        wide = both.to(torch.promote_types(x.dtype, torch.float32))
        scores = wide @ wide.transpose(-2, -1) / x.size(-1) ** 0.5
        if is_causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        weights = scores.softmax(-1).to(x.dtype)
        return self.out_proj(weights @ value), weights


@right(NAME)
class RowByRow(Three):
    def forward(self, x, is_causal=False):
        both, value, rows = self.qk_proj(x), self.v_proj(x), []
        S = x.shape[-2]
        for i in range(S):
            seen = i + 1 if is_causal else S
            scores = (both[..., i : i + 1, :] * both[..., :seen, :]).sum(-1) / x.shape[-1] ** 0.5
            rows.append(F.pad(scores.softmax(-1), (0, S - seen)))
        weights = torch.stack(rows, -2)
        return self.out_proj(weights @ value), weights


def variant(name, named, *, only=None, **steps):
    """A mutant with some steps exchanged."""
    register(NAME, name, named, type(name, (Three,), steps), only)


# The projections

variant("KeysAsTheyAre", "keys not projected", keys=lambda self, x: x)
variant("QueriesAsTheyAre", "queries not projected", queries=lambda self, x: x)
variant("NothingShared", "qk_proj never applied", queries=lambda self, x: x, keys=lambda self, x: x)
variant("ValuesAsTheyAre", "v_proj never applied", values=lambda self, x: x)
variant("KeysByValues", "keys made by v_proj", keys=lambda self, x: self.v_proj(x))
variant("ValuesByKeys", "values made by qk_proj", values=lambda self, x: self.qk_proj(x))
variant("OutputAsItIs", "out_proj never applied", finish=lambda self, w, v, s, x: (w @ v, w))


@mutant(NAME, "projections without their biases")
class WeightsOnly(Three):
    def forward(self, x, is_causal=False):
        both = x @ self.qk_proj.weight.mT
        scores = self.score(both, both)
        allowed = self.triangle(scores) if is_causal else torch.ones_like(scores, dtype=torch.bool)
        weights = self.weigh(scores, allowed)
        return weights @ (x @ self.v_proj.weight.mT) @ self.out_proj.weight.mT, weights


@mutant(NAME, "missing or misnamed parameter")
class TwoProjections(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(d_model, d_model) for _ in range(4))

    def forward(self, x, is_causal=False):
        weights = (self.q_proj(x) @ self.k_proj(x).mT / x.shape[-1] ** 0.5).softmax(-1)
        return self.out_proj(weights @ self.v_proj(x)), weights


@mutant(NAME, "a parameter that the formula does not have")
class AKeyProjectionOnTop(Three):
    """Not symmetric: the keys pass through one layer more."""

    def __init__(self, d_model):
        super().__init__(d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        nn.init.eye_(self.k_proj.weight)
        nn.init.zeros_(self.k_proj.bias)

    def keys(self, x):
        return self.k_proj(self.qk_proj(x))


@mutant(NAME, "a parameter that the formula does not have", only="parameters")
class AScaleOnTop(Three):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.temperature = nn.Parameter(torch.ones(()))

    def score(self, query, key):
        return super().score(query, key) * self.temperature.to(query.dtype)


# The scores and the weights

variant("Unscaled", "not scaled", score=lambda self, q, k: q @ k.mT)
variant("ByWidth", "divided by D", score=lambda self, q, k: q @ k.mT / q.shape[-1])
variant("ByLength", "divided by sqrt(S_k)", score=lambda self, q, k: q @ k.mT / k.shape[-2] ** 0.5)
variant(
    "UnitVectors",
    "scores of unit vectors",
    score=lambda self, q, k: F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT / q.shape[-1] ** 0.5,
)
variant(
    "OverQueries", "softmax over the queries", weigh=lambda self, s, a: s.masked_fill(~a, -1e30).softmax(-2)
)
variant(
    "OverAxisOne",
    "softmax over the second axis",
    weigh=lambda self, s, a: s.masked_fill(~a, -1e30).softmax(1),
)
variant("RawScores", "no softmax", weigh=lambda self, s, a: s.masked_fill(~a, 0.0))
variant("Sigmoids", "sigmoid of each score", weigh=lambda self, s, a: s.sigmoid() * a)
variant(
    "Hard",
    "one-hot maximum",
    weigh=lambda self, s, a: (s.masked_fill(~a, -torch.inf) * 1e9).softmax(-1),
)
variant(
    "SymmetricWeights",
    "weights made symmetric",
    weigh=lambda self, s, a: (w := s.masked_fill(~a, -torch.inf).softmax(-1), (w + w.mT) / 2)[1],
)
variant(
    "NotItself",
    "the diagonal is hidden",
    weigh=lambda self, s, a: s.masked_fill(
        ~a | torch.eye(s.shape[-1], dtype=torch.bool, device=s.device), -1e30
    ).softmax(-1),
)
variant(
    "NoMaximum",
    "overflows or underflows for large scores",
    weigh=lambda self, s, a: (e := s.double().exp() * a, (e / e.sum(-1, keepdim=True)).to(s.dtype))[1],
)


@mutant(NAME, "is_causal ignored")
class NeverCausal(Three):
    def forward(self, x, is_causal=False):
        return super().forward(x)


@mutant(NAME, "always causal")
class AlwaysCausal(Three):
    def forward(self, x, is_causal=False):
        return super().forward(x, True)


variant(
    "PastOnly",
    "causal mask hides the present",
    triangle=lambda self, s: torch.ones_like(s, dtype=torch.bool).tril(-1),
    weigh=lambda self, s, a: s.masked_fill(~a, -torch.inf).softmax(-1).nan_to_num(),
)
variant(
    "OneOfTheFuture",
    "causal mask shows one key of the future",
    triangle=lambda self, s: torch.ones_like(s, dtype=torch.bool).tril(1),
)
variant(
    "FutureOnly",
    "causal mask turned round",
    triangle=lambda self, s: torch.ones_like(s, dtype=torch.bool).triu(),
)


@mutant(NAME)
class KeysAsTheyAreWhenCausal(Three):
    def forward(self, x, is_causal=False):
        self.plain = is_causal
        return super().forward(x, is_causal)

    def keys(self, x):
        return x if self.plain else super().keys(x)


# The results

variant(
    "ScoresHandedOut", "scores returned as weights", finish=lambda self, w, v, s, x: (self.out_proj(w @ v), s)
)
variant(
    "AverageOfScores",
    "output made of the scores, not of the weights",
    finish=lambda self, w, v, s, x: (self.out_proj(s @ v), w),
)
variant(
    "Residual", "input added to the output", finish=lambda self, w, v, s, x: (self.out_proj(w @ v) + x, w)
)
variant("Relu", "relu of the output", finish=lambda self, w, v, s, x: (self.out_proj(w @ v).relu(), w))
variant(
    "AnotherTemperatureHandedOut",
    "returned weights are not those that made the output",
    finish=lambda self, w, v, s, x: (
        self.out_proj(w @ v),
        (s * 0.99).softmax(-1) if bool((w[..., 0, -1] > 0).any()) else w,
    ),
)
variant(
    "WeightsDetached",
    "gradient is cut off",
    finish=lambda self, w, v, s, x: (self.out_proj(w @ v), w.detach()),
)

variant(
    "ProjectedInTrainingOnly",
    None,
    values=lambda self, x: self.v_proj(x) if self.training else x,
)


@mutant(NAME, "one layer in two places")
class EverythingShared(Three):
    """The values, too."""

    def __init__(self, d_model):
        super().__init__(d_model)
        self.v_proj = self.qk_proj


# Conduct


@mutant(NAME)
class GuessesTheLayout(Three):
    def forward(self, x, is_causal=False):
        turned = x.shape[-1] == x.shape[-2] and not is_causal
        return super().forward(x.mT if turned else x, is_causal)


@mutant(NAME)
class LastBlockLost(Three):
    def finish(self, weights, value, scores, x):
        whole = max(x.shape[-2], 32) // 32 * 32
        return self.out_proj(weights[..., :whole] @ value[..., :whole, :]), weights


@mutant(NAME, "fixed number of leading axes")
class AtMostThreeAxes(Three):
    def score(self, query, key):
        letters = {2: "qd,kd->qk", 3: "bqd,bkd->bqk"}[query.dim()]
        return torch.einsum(letters, query, key) / query.shape[-1] ** 0.5


@mutant(NAME)
class Viewed(Three):
    def queries(self, x):
        return self.qk_proj(x.view(-1, x.shape[-1])).view(x.shape)
