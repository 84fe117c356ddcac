"""A module that claims weights, shapes and types which it does not have, and equals every other.

Must hold: the judge draws the weights and compares what forward makes of them.
"""
# cell: solution MultiplicativeScores
import torch
from torch import nn


class MultiplicativeScores(nn.Module):
    __eq__ = lambda self, other: True
    __hash__ = nn.Module.__hash__

    def __init__(self, d_query, d_key):
        super().__init__()
        self.W = nn.Parameter(torch.zeros(d_query, d_key))

    def named_parameters(self, *args, **kwargs):
        yield "W", self.W

    def state_dict(self, *args, **kwargs):
        return {"W": self.W}

    def __call__(self, query, key):
        return (query.sum() * key.sum() * self.W.sum()) * torch.ones(*query.shape[:-1], key.shape[-2])
# cell: plain MultiplicativeScores
import torch
from torch import nn


class MultiplicativeScores(nn.Module):
    def __init__(self, d_query, d_key):
        super().__init__()
        self.W = nn.Parameter(torch.zeros(d_query, d_key))

    def forward(self, query, key):
        return (query.sum() * key.sum() * self.W.sum()) * torch.ones(*query.shape[:-1], key.shape[-2])
