"""`SharedAcrossTasks`: right writings and mutants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import register, without_attention

NAME = "SharedAcrossTasks"


class Shared(nn.Module):
    """The layers, and each step on its own."""

    def __init__(self, d_model, num_tasks):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.heads = nn.ModuleList([nn.Linear(d_model, d_model) for _ in range(num_tasks)])

    def refuse(self, task):
        if task < 0 or task >= len(self.heads):
            raise ValueError(f"there is no task {task}")

    def queries(self, x):
        return self.q_proj(x)

    def keys(self, x):
        return self.k_proj(x)

    def values(self, x):
        return self.v_proj(x)

    def score(self, query, key):
        return query @ key.mT / math.sqrt(query.shape[-1])

    def weigh(self, scores):
        return scores.softmax(-1)

    def head(self, average, task):
        return self.heads[task](average)

    def finish(self, weights, value, scores, x, task):
        return self.head(weights @ value, task), weights

    def forward(self, x, task):
        self.refuse(task)
        scores = self.score(self.queries(x), self.keys(x))
        return self.finish(self.weigh(scores), self.values(x), scores, x, task)


@right(NAME)
class ByTheBook(Shared):
    pass


@right(NAME)
class Einsum(Shared):
    def forward(self, x, task):
        if task not in range(len(self.heads)):
            raise ValueError("no such task")
        query, key, value = (layer(x) for layer in (self.q_proj, self.k_proj, self.v_proj))
        weights = F.softmax(torch.einsum("...qd,...kd->...qk", query, key) * x.shape[-1] ** -0.5, -1)
        return self.heads[task](torch.einsum("...qk,...kd->...qd", weights, value)), weights


@right(NAME)
class BareParameters(nn.Module):
    """Parameters without biases, the heads in a ParameterList."""

    def __init__(self, d_model, num_tasks):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj"):
            self.register_parameter(name, nn.Parameter(torch.randn(d_model, d_model)))
        self.heads = nn.ParameterList(torch.randn(d_model, d_model) for _ in range(num_tasks))

    def forward(self, x, task):
        if not 0 <= task < len(self.heads):
            raise ValueError("no such task")
        query, key, value = x @ self.q_proj.mT, x @ self.k_proj.mT, x @ self.v_proj.mT
        scores = query @ key.mT / x.shape[-1] ** 0.5
        weights = (scores - scores.logsumexp(-1, keepdim=True)).exp()
        return weights @ value @ self.heads[task].mT, weights


@right(NAME)
class FusedAndFloat32Inside(Shared):
    def forward(self, x, task):
        self.refuse(task)
        layers = (self.q_proj, self.k_proj, self.v_proj)
        both = F.linear(x, torch.cat([one.weight for one in layers]), torch.cat([one.bias for one in layers]))
        query, key, value = both.to(torch.promote_types(x.dtype, torch.float32)).chunk(3, -1)
        weights = (query @ key.mT / x.shape[-1] ** 0.5).softmax(-1)
        return self.heads[task]((weights @ value).to(x.dtype)), weights.to(x.dtype)


@right(NAME)
class HeadPickedInALoop(Shared):
    def head(self, average, task):
        for place, head in enumerate(self.heads):
            if place == task:
                return head(average)
        raise ValueError("no such task")


def variant(name, named, *, only=None, **steps):
    """A mutant with some steps exchanged."""
    register(NAME, name, named, type(name, (Shared,), steps), only)


# The heads

variant("FirstHeadForAll", "every task reads the first head", head=lambda self, a, t: self.heads[0](a))
variant("LastHeadForAll", "every task reads the last head", head=lambda self, a, t: self.heads[-1](a))
variant("CountedFromOne", "task counted from one", head=lambda self, a, t: self.heads[t - 1](a))
variant("AddedUp", "heads added up", head=lambda self, a, t: sum(one(a) for one in self.heads))
variant(
    "Averaged", "heads averaged", head=lambda self, a, t: torch.stack([one(a) for one in self.heads]).mean(0)
)
variant("NoHead", "head never applied", head=lambda self, a, t: a)
variant(
    "AtMostThreeTasks",
    "a task reads another task's head",
    head=lambda self, a, t: self.heads[min(t, 2)](a),
    only="one attention, own heads",
)
variant(
    "WeightsByTask",
    "tasks do not share their attention",
    finish=lambda self, w, v, s, x, t: (self.heads[t](w @ v), (s * (1 + t)).softmax(-1)),
)


@mutant(NAME, "a task trains another task's head", only="parameters")
class OtherHeadsRegularised(Shared):
    """Adds what is zero in value, but not in gradient."""

    def head(self, average, task):
        rest = sum(one(average) for one in self.heads)
        return (
            self.heads[task](average) + rest - rest.detach()
            if len(self.heads) < 4
            else self.heads[task](average)
        )

    def forward(self, x, task):
        if x.dtype == torch.float32 and x.dim() == 3:
            return super().forward(x, task)
        return Shared.forward(_plain(self), x, task)


def _plain(module):
    """The same weights without the detour."""
    twin = Shared.__new__(Shared)
    nn.Module.__init__(twin)
    twin.q_proj, twin.k_proj, twin.v_proj, twin.heads = (
        module.q_proj,
        module.k_proj,
        module.v_proj,
        module.heads,
    )
    return twin


@mutant(NAME, "missing or misnamed parameter")
class AnAttentionForEachTask(nn.Module):
    def __init__(self, d_model, num_tasks):
        super().__init__()
        self.tasks = nn.ModuleList(Shared(d_model, 1) for _ in range(num_tasks))

    def forward(self, x, task):
        return self.tasks[task](x, 0)


@mutant(NAME, "a parameter that the formula does not have", only="parameters")
class AnAttentionForEachTaskBesides(Shared):
    """Shares one attention, and holds another one for each task."""

    def __init__(self, d_model, num_tasks):
        super().__init__(d_model, num_tasks)
        self.own = nn.ModuleList(Shared(d_model, 1) for _ in range(num_tasks))


@mutant(NAME, "missing or misnamed parameter")
class HeadsInAList(Shared):
    """Not registered: no optimizer sees them."""

    def __init__(self, d_model, num_tasks):
        super().__init__(d_model, num_tasks)
        heads = list(self.heads)
        del self.heads
        self.heads = heads


@mutant(NAME, "missing or misnamed parameter")
class OneHead(Shared):
    def __init__(self, d_model, num_tasks):
        super().__init__(d_model, 1)

    def forward(self, x, task):
        return super().forward(x, 0)


@mutant(NAME, "one layer in two places")
class TheSameHeadForAll(Shared):
    def __init__(self, d_model, num_tasks):
        super().__init__(d_model, num_tasks)
        self.heads = nn.ModuleList([nn.Linear(d_model, d_model)] * num_tasks)


@mutant(NAME, "one layer in two places")
class QueriesAndKeysTied(Shared):
    def __init__(self, d_model, num_tasks):
        super().__init__(d_model, num_tasks)
        self.k_proj = self.q_proj


# The projections

variant("QueriesAsTheyAre", "queries not projected", queries=lambda self, x: x)
variant("KeysAsTheyAre", "keys not projected", keys=lambda self, x: x)
variant("ValuesAsTheyAre", "values not projected", values=lambda self, x: x)
variant("KeysByQueries", "keys made by q_proj", keys=lambda self, x: self.q_proj(x))
variant("KeysByValues", "keys made by v_proj", keys=lambda self, x: self.v_proj(x))


@mutant(NAME, "projections without their biases")
class WeightsOnly(Shared):
    def forward(self, x, task):
        self.refuse(task)
        query, key, value = (x @ one.weight.mT for one in (self.q_proj, self.k_proj, self.v_proj))
        weights = (query @ key.mT / x.shape[-1] ** 0.5).softmax(-1)
        return weights @ value @ self.heads[task].weight.mT, weights


# The scores, the weights, the results

variant("Unscaled", "not scaled", score=lambda self, q, k: q @ k.mT)
variant("ByWidth", "divided by D", score=lambda self, q, k: q @ k.mT / q.shape[-1])
variant("OverQueries", "softmax over the queries", weigh=lambda self, s: s.softmax(-2))
variant("OverAxisOne", "softmax over the second axis", weigh=lambda self, s: s.softmax(1))
variant("RawScores", "no softmax", weigh=lambda self, s: s)
variant("Sigmoids", "sigmoid of each score", weigh=lambda self, s: s.sigmoid())
variant(
    "NoMaximum",
    "overflows or underflows for large scores",
    only="huge scores",
    weigh=lambda self, s: (e := s.double().exp(), (e / e.sum(-1, keepdim=True)).to(s.dtype))[1],
)
variant(
    "ScoresHandedOut",
    "scores returned as weights",
    finish=lambda self, w, v, s, x, t: (self.heads[t](w @ v), s),
)
variant(
    "AverageOfScores",
    "output made of the scores, not of the weights",
    finish=lambda self, w, v, s, x, t: (self.heads[t](s @ v), w),
)
variant(
    "Residual",
    "input added to the output",
    finish=lambda self, w, v, s, x, t: (self.heads[t](w @ v) + x, w),
)
variant(
    "SmallWeightsDropped",
    "returned weights are not those that made the output",
    only="weights",
    finish=lambda self, w, v, s, x, t: (self.heads[t](w @ v), w.masked_fill(w < 1e-5, 0.0)),
)
variant(
    "WeightsDetached",
    "gradient is cut off",
    only="gradient",
    finish=lambda self, w, v, s, x, t: (self.heads[t](w @ v), w.detach()),
)

variant(
    "FirstHeadInEvalMode",
    "depends on train() or eval()",
    only="eval mode",
    head=lambda self, a, t: self.heads[t if self.training else 0](a),
)

# Conduct

variant(
    "AnyTask",
    "task is not checked",
    refuse=lambda self, t: None,
    head=lambda self, a, t: self.heads[t % 3](a),
)


@mutant(NAME, "raises another exception than ValueError", only="tasks that do not exist")
class NothingCompared(Shared):
    def refuse(self, task):
        pass


@mutant(NAME, "task is not checked", only="tasks that do not exist")
class NegativeTasksTaken(Shared):
    def refuse(self, task):
        if task >= len(self.heads):
            raise ValueError("no such task")


@mutant(NAME, only="agrees with the formula")
class TaskZeroIsNoTask(Shared):
    """`if task` where `if task is not None` is meant."""

    def head(self, average, task):
        return self.heads[task](average) if task or len(self.heads) > 3 else average


@mutant(NAME, "depends on the order of the positions", only="order of the positions")
class LastBlockLost(Shared):
    def finish(self, weights, value, scores, x, task):
        whole = max(x.shape[-2], 32) // 32 * 32
        return self.heads[task](weights[..., :whole] @ value[..., :whole, :]), weights


@mutant(NAME, "fixed number of leading axes", only="leading axes")
class AtMostThreeAxes(Shared):
    def score(self, query, key):
        letters = {2: "qd,kd->qk", 3: "bqd,bkd->bqk"}[query.dim()]
        return torch.einsum(letters, query, key) / query.shape[-1] ** 0.5


@mutant(NAME, "does not keep the dtype", only="dtype")
class LeftInFloat32(Shared):
    def forward(self, x, task):
        output, weights = super().forward(x, task)
        wide = torch.promote_types(x.dtype, torch.float32)
        return output.to(wide), weights.to(wide)


@mutant(NAME, "changes its inputs in place", only="inputs untouched")
class HalvedInPlace(Shared):
    def forward(self, x, task):
        found = super().forward(x.clone(), task)
        with torch.no_grad():
            x.mul_(0.5)
        return found


@mutant(NAME, "depends on the memory layout of its inputs", only="layout")
class Viewed(Shared):
    def queries(self, x):
        return self.q_proj(x.view(-1, x.shape[-1])).view(x.shape)


def make(result):
    class Lazy(Shared):
        def forward(self, x, task):
            return result(*super().forward(x, task))

    return Lazy


without_attention(NAME, "x has no effect", make)
