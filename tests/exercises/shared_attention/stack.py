"""`SharedLayerStack`: right writings and mutants."""

from __future__ import annotations

import copy
import sys

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import Agreeable, register

NAME = "SharedLayerStack"


@right(NAME)
class Stack(nn.Module):
    """One attribute, and a loop."""

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
class TheSameLayerInAList(Stack):
    """nn.ModuleList holds one layer under several names."""

    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        del self.layer
        self.layers = nn.ModuleList([layer] * depth)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@right(NAME)
class Sequential(TheSameLayerInAList):
    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        self.layers = nn.Sequential(*(layer for _ in range(depth)))

    def forward(self, x):
        return self.layers(x)


@right(NAME)
class Recursive(Stack):
    def forward(self, x):
        return self.down(x, self.depth)

    def down(self, x, left):
        return x if left == 0 else self.down(self.layer(x), left - 1)


@right(NAME)
class CountsDown(Stack):
    def forward(self, x):
        left, state = self.depth, x.clone()
        while left > 0:
            state, left = self.layer(state), left - 1
        return state


@right(NAME)
class CheckpointedLayers(Stack):
    def forward(self, x):
        for _ in range(self.depth):
            x = checkpoint(self.layer, x, use_reentrant=False)
        return x


def variant(name, named, forward, only=None):
    """A mutant with another forward."""
    register(NAME, name, named, type(name, (Stack,), {"forward": forward}), only)


def repeat(module, x, times):
    """The layer `times` times."""
    for _ in range(times):
        x = module.layer(x)
    return x


# How often

variant("AtLeastTwo", None, lambda self, x: repeat(self, x, max(self.depth, 2)))
variant("AtMostTwelve", None, lambda self, x: repeat(self, x, min(self.depth, 12)))
variant(
    "SequencesOnce",
    None,
    lambda self, x: repeat(self, x, 1 if isinstance(self.layer, nn.Sequential) else self.depth),
)

# What is shared


@mutant(NAME, "a copy of the layer for each depth")
class ACopyForEachDepth(TheSameLayerInAList):
    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(depth))


@mutant(NAME, "a copy of the layer for each depth", only="one copy")
class UnsharedAtDepthTwo(TheSameLayerInAList):
    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        if depth == 2:
            self.layers = nn.ModuleList([layer, copy.deepcopy(layer)])


@mutant(NAME, "the layer is not held")
class FreshLayers(Stack):
    def __init__(self, layer, depth):
        super().__init__(copy.deepcopy(layer), depth)
        for module in self.layer.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


@mutant(NAME, "the layer is not held")
class ListOfLayers(TheSameLayerInAList):
    """A plain list: the parameters are not registered."""

    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        del self.layers
        self.layers = [layer] * depth


@mutant(NAME, "a parameter that the formula does not have", only="one copy")
class AGainForEachDepth(Stack):
    def __init__(self, layer, depth):
        super().__init__(layer, depth)
        self.gains = nn.Parameter(torch.ones(depth))

    def forward(self, x):
        for gain in self.gains.to(x.dtype):
            x = gain * self.layer(x)
        return x


@mutant(NAME, "weights are not trainable", only="one copy")
class Frozen(Stack):
    def __init__(self, layer, depth):
        super().__init__(layer.requires_grad_(False), depth)


def last_depth_only(self, x):
    """The gradient of the last use alone: the others run without one."""
    with torch.no_grad():
        x = repeat(self, x, self.depth - 1)
    return self.layer(x)


variant("LastDepthOnly", "gradient is cut off", last_depth_only)

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


def flattened(self, x):
    """A layer that mixes the first axis sees another one."""
    return Stack.forward(self, x.reshape(-1, x.shape[-1])).reshape(x.shape)


variant("Flattened", None, flattened)
variant("Viewed", None, lambda self, x: Stack.forward(self, x.view(-1, x.shape[-1])).view(x.shape))
variant(
    "OnceInEvalMode",
    "depends on train() or eval()",
    lambda self, x: Stack.forward(self, x) if self.training else self.layer(x),
)
variant(
    "Agreeably",
    "does not return what is asked for",
    lambda self, x: Stack.forward(self, x).as_subclass(Agreeable),
)
variant("LeavesTheProcess", None, lambda self, x: sys.exit(0))


@mutant(NAME, "not an nn.Module")
class NoModule:
    def __init__(self, layer, depth):
        self.layer, self.depth = layer, depth

    def __call__(self, x):
        return repeat(self, x, self.depth)
