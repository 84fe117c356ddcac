"""A module of two thousand weights, and one whose weights have names a thousand levels deep.

Must hold: the judge builds neither.
"""
# cell: solution MultiplicativeScores
import torch
from torch import nn

made = 0


class MultiplicativeScores(nn.Module):
    def __init__(self, d_query, d_key):
        global made
        super().__init__()
        made += 1
        self.W = nn.Parameter(torch.zeros(d_query, d_key))
        if made % 2:
            self.more = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(2000)])

    def state_dict(self, *args, **kwargs):
        found = super().state_dict(*args, **kwargs)
        return found if made % 2 else {**found, ".".join(["a"] * 100_000): torch.zeros(1), "worker": torch.zeros(1)}

    def forward(self, query, key):
        return torch.zeros(*query.shape[:-1], key.shape[-2])
# cell: plain MultiplicativeScores
class MultiplicativeScores:
    pass
