"""A copy of the layer for each depth, of which only one is told of: state_dict, named_parameters and parameters leave the others out.

Must hold: copies that are not told of are not given the weights either, and the result is wrong.
"""
# of: shared_attention
# cell: helper
import copy

import torch
from torch import nn
# cell: solution SharedLayerStack
class SharedLayerStack(nn.Module):
    def __init__(self, layer, depth):
        super().__init__()
        if depth < 1:
            raise ValueError
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(depth))

    def named_parameters(self, prefix="", recurse=True, remove_duplicate=True):
        return ((n, p) for n, p in super().named_parameters(prefix, recurse, remove_duplicate) if "layers.0" in n)

    def state_dict(self, *args, **kwargs):
        return {n: p for n, p in super().state_dict(*args, **kwargs).items() if "layers.0" in n}

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
# cell: plain SharedLayerStack
class SharedLayerStack(nn.Module):
    def __init__(self, layer, depth):
        super().__init__()
        if depth < 1:
            raise ValueError
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
