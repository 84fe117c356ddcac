"""`SharedLayerStack`: right writings and mutants."""

from __future__ import annotations

import copy
import sys

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import Agreeable, register

NAME = "SharedLayerStack"


class Stack(nn.Module):
    def __init__(self, layer, depth):
        super().__init__()
        if depth < 1:
            raise ValueError("depth must be at least 1")
        self.layer, self.depth = layer, depth

    def forward(self, x):
        for _ in range(self.depth):
            x = self.layer(x)
        return x


@right(NAME)
class ByTheBook(Stack):
    pass


@right(NAME)
class TheSameLayerInAList(nn.Module):
    """nn.ModuleList holds one layer under several names."""

    def __init__(self, layer, depth):
        super().__init__()
        if depth <= 0:
            raise ValueError("depth must be at least 1")
        self.layers = nn.ModuleList([layer] * depth)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@right(NAME)
class Sequential(nn.Module):
    def __init__(self, layer, depth):
        super().__init__()
        if depth < 1:
            raise ValueError("depth must be at least 1")
        self.stack = nn.Sequential(*(layer for _ in range(depth)))

    def forward(self, x):
        return self.stack(x)


@right(NAME)
class Recursive(nn.Module):
    def __init__(self, layer, depth):
        super().__init__()
        if not depth >= 1:
            raise ValueError("depth must be at least 1")
        self.shared, self.times = layer, depth

    def forward(self, x):
        return self.down(x, self.times)

    def down(self, x, left):
        return x if left == 0 else self.down(self.shared(x), left - 1)


@right(NAME)
class CountsDown(Stack):
    def forward(self, x):
        left, state = self.depth, x.clone()
        while left > 0:
            state, left = self.layer(state), left - 1
        return state


def variant(name, named, forward, only=None):
    """A mutant with another forward."""
    register(NAME, name, named, type(name, (Stack,), {"forward": forward}), only)


def repeat(module, x, times, step=lambda after, before, first: after):
    """The layer `times` times; step makes the next state of the layer's output, its input and the first input."""
    state = x
    for _ in range(times):
        state = step(module.layer(state), state, x)
    return state


# How often, and on what

variant("Once", "applied once, whatever the depth", lambda self, x: self.layer(x))
variant("OnceTooOften", "applied once too often", lambda self, x: repeat(self, x, self.depth + 1))
variant("OnceTooSeldom", "applied once too seldom", lambda self, x: repeat(self, x, self.depth - 1))
variant("TwiceAsOften", "applied twice as often", lambda self, x: repeat(self, x, 2 * self.depth))
variant(
    "Residual",
    "input of each depth added to its output",
    lambda self, x: repeat(self, x, self.depth, lambda a, b, f: a + b),
)
variant(
    "InputInjected",
    "x added at every depth",
    lambda self, x: repeat(self, x, self.depth, lambda a, b, f: a + f),
)
variant(
    "Relu", "relu between the depths", lambda self, x: repeat(self, x, self.depth, lambda a, b, f: a.relu())
)
variant(
    "LayerNorm",
    "layer norm between the depths",
    lambda self, x: repeat(self, x, self.depth, lambda a, b, f: F.layer_norm(a, a.shape[-1:])),
)
variant(
    "MeanOfTheDepths",
    "mean over the depths",
    lambda self, x: torch.stack([repeat(self, x, n) for n in range(1, self.depth + 1)]).mean(0),
)
variant("AlwaysThree", None, lambda self, x: repeat(self, x, 3))
variant("AtLeastTwo", None, lambda self, x: repeat(self, x, max(self.depth, 2)), only="depth 1")
variant("AtMostSix", None, lambda self, x: repeat(self, x, min(self.depth, 6)), only="depth 12")
variant(
    "LinearLayersOnce",
    None,
    lambda self, x: repeat(
        self, x, self.depth if isinstance(self.layer, nn.Sequential) or self.depth > 9 else 1
    ),
    only="agrees with the formula",
)

# What is shared


@mutant(NAME, "a copy of the layer for each depth")
class ACopyForEachDepth(TheSameLayerInAList):
    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(depth))


@mutant(NAME, "the layer is not held")
class FreshLayers(Stack):
    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        self.layer = copy.deepcopy(layer)
        for module in self.layer.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


@mutant(NAME, "the layer is not held")
class ListOfLayers(Stack):
    """A plain list: the parameters are not registered."""

    def __init__(self, layer, depth):
        nn.Module.__init__(self)
        if depth < 1:
            raise ValueError("depth must be at least 1")
        self.layers = [layer] * depth

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@mutant(NAME, "a copy of the layer for each depth", only="one copy")
class UnsharedAtDepthTwo(TheSameLayerInAList):
    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        if depth == 2:
            self.layers = nn.ModuleList([layer, *(copy.deepcopy(layer) for _ in range(depth - 1))])


@mutant(NAME, "a parameter that the formula does not have")
class AGainForEachDepth(Stack):
    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        self.gains = nn.Parameter(torch.ones(depth))

    def forward(self, x):
        for gain in self.gains.to(x.dtype):
            x = gain * self.layer(x)
        return x


@mutant(NAME, "weights are not trainable")
class Frozen(Stack):
    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        for weight in self.layer.parameters():
            weight.requires_grad_(False)


@mutant(NAME, "gradient is cut off", only="parameters")
class DetachedInFloat32(Stack):
    """Acts through copies of the weights, but for float64."""

    def forward(self, x):
        if x.dtype == torch.float64:
            return super().forward(x)
        state = {name: weight.detach() for name, weight in self.layer.named_parameters()}
        for _ in range(self.depth):
            x = torch.func.functional_call(self.layer, state, (x,))
        return x


def detached_between(self, x):
    for depth in range(self.depth):
        x = self.layer(x if depth == 0 else x.detach())
    return x


variant("DetachedBetween", "gradient is cut off", detached_between, only="gradient")


def last_depth_only(self, x):
    """The gradient of the last use alone: the others run without one."""
    with torch.no_grad():
        for _ in range(self.depth - 1):
            x = self.layer(x)
    return self.layer(x)


variant("LastDepthOnly", "gradient is cut off", last_depth_only, only="gradient")

# Conduct


@mutant(NAME, "depth is not checked", only="depth below 1")
class AnyDepth(Stack):
    def __init__(self, layer, depth):
        super().__init__(layer, max(depth, 1))


@mutant(NAME, "raises another exception than ValueError", only="depth below 1")
class Asserted(Stack):
    def __init__(self, layer, depth):
        assert depth >= 1
        super().__init__(layer, depth)


variant(
    "FirstElementForAll",
    "batch elements influence each other",
    lambda self, x: Stack.forward(self, x) if x.dim() < 4 else Stack.forward(self, x)[:1].expand(x.shape),
    only="leading axes",
)
variant(
    "Flattened",
    "fixed number of leading axes",
    lambda self, x: Stack.forward(self, x[None])[0] if x.dim() < 4 else 1 / 0,
    only="leading axes",
)
variant(
    "LeftInFloat32",
    "does not keep the dtype",
    lambda self, x: Stack.forward(self, x).to(torch.promote_types(x.dtype, torch.float32)),
    only="dtype",
)


def halved_in_place(self, x):
    found = Stack.forward(self, x.clone())
    with torch.no_grad():
        x.mul_(0.5)
    return found


variant("HalvedInPlace", "changes its inputs in place", halved_in_place, only="inputs untouched")
variant(
    "Viewed",
    "depends on the memory layout of its inputs",
    lambda self, x: Stack.forward(self, x.view(-1, x.shape[-1])).view(x.shape),
    only="layout",
)


@mutant(NAME, "x has no effect")
class ResultKept(Stack):
    def forward(self, x):
        if not hasattr(self, "kept"):
            self.kept = super().forward(x).detach()
        return self.kept


variant(
    "OnceInEvalMode",
    "depends on train() or eval()",
    lambda self, x: Stack.forward(self, x) if self.training else self.layer(x),
    only="eval mode",
)

# No attempt at all

variant("Zeros", "x has no effect", lambda self, x: torch.zeros_like(x), only="every input counts")
variant("InputItself", "layer never applied", lambda self, x: x)
variant("Nothing", "does not return what is asked for", lambda self, x: None)
variant(
    "AllStates",
    "does not return what is asked for",
    lambda self, x: [repeat(self, x, n) for n in range(self.depth)],
)
variant(
    "Stacked",
    "output has the wrong shape",
    lambda self, x: torch.stack([repeat(self, x, n) for n in range(self.depth)]),
)
variant(
    "Agreeably",
    "does not return what is asked for",
    lambda self, x: Stack.forward(self, x).as_subclass(Agreeable),
)
variant("RandomNumbers", "another result at every call", lambda self, x: torch.rand_like(x))
variant("LeavesTheProcess", None, lambda self, x: sys.exit(0))


@mutant(NAME, "not an nn.Module")
class NoModule:
    def __init__(self, layer, depth):
        self.layer, self.depth = layer, depth

    def __call__(self, x):
        return repeat(self, x, self.depth)
