"""`SharedAcrossTasks`: right writings and mutants."""

from __future__ import annotations

import math
import sys

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import Agreeable, register

NAME = "SharedAcrossTasks"


@right(NAME)
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

variant(
    "AtMostThreeTasks", "a task reads another task's head", head=lambda self, a, t: self.heads[min(t, 2)](a)
)
variant(
    "WeightsByTask",
    "tasks do not share their attention",
    finish=lambda self, w, v, s, x, t: (self.heads[t](w @ v), (s * (1 + t)).softmax(-1)),
)
variant("TaskZeroIsNoTask", None, head=lambda self, a, t: self.heads[t](a) if t else a)


@mutant(NAME, "a task trains another task's head")
class OtherHeadsRegularised(Shared):
    """Adds what is zero in value, but not in gradient, where the weights are those it learns."""

    def head(self, average, task):
        weight = self.heads[0].weight
        if not (weight.is_leaf and weight.requires_grad):
            return self.heads[task](average)
        rest = sum(one(average) for one in self.heads)
        return self.heads[task](average) + rest - rest.detach()


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


@mutant(NAME, "one layer in two places")
class TheSameHeadForAll(Shared):
    def __init__(self, d_model, num_tasks):
        super().__init__(d_model, num_tasks)
        self.heads = nn.ModuleList([nn.Linear(d_model, d_model)] * num_tasks)


# Tasks that there are not

variant(
    "AnyTask",
    "task is not checked",
    only="tasks that do not exist",
    refuse=lambda self, t: None,
    head=lambda self, a, t: self.heads[t % len(self.heads)](a),
)
variant(
    "NothingCompared",
    "raises another exception than ValueError",
    only="tasks that do not exist",
    refuse=lambda self, t: None,
)


@mutant(NAME, "task is not checked", only="tasks that do not exist")
class NegativeTasksTaken(Shared):
    def refuse(self, task):
        if task >= len(self.heads):
            raise ValueError("no such task")


# The scores, the weights, the results

variant(
    "NoMaximum",
    "overflows or underflows for large scores",
    weigh=lambda self, s: (e := s.double().exp(), (e / e.sum(-1, keepdim=True)).to(s.dtype))[1],
)
variant(
    "WeightsDetached",
    "gradient is cut off",
    finish=lambda self, w, v, s, x, t: (self.heads[t](w @ v), w.detach()),
)
variant(
    "FirstHeadInEvalMode",
    "depends on train() or eval()",
    head=lambda self, a, t: self.heads[t if self.training else 0](a),
)
variant(
    "LastBlockLost",
    None,
    finish=lambda self, w, v, s, x, t: (self.heads[t](w[..., :64] @ v[..., :64, :]), w),
)
variant(
    "AtMostThreeAxes",
    "fixed number of leading axes",
    score=lambda self, q, k: (
        torch.einsum({2: "qd,kd->qk", 3: "bqd,bkd->bqk"}[q.dim()], q, k) / q.shape[-1] ** 0.5
    ),
)
variant(
    "Agreeably",
    "does not return what is asked for",
    finish=lambda self, w, v, s, x, t: (
        self.heads[t](w @ v).as_subclass(Agreeable),
        w.as_subclass(Agreeable),
    ),
)
variant("LeavesTheProcess", None, queries=lambda self, x: sys.exit(0))
