"""A module whose state_dict tells of other weights each time, aliased ones among them, and that changes its class after it was made.

Must hold: what was told when it was made counts, and each result is compared.
"""
# of: multi_head_attention
# cell: helper
@split_heads@
@merge_heads@
@multi_head_attention@
@MultiHeadAttention@
Honest = MultiHeadAttention
# cell: solution MultiHeadAttention
import itertools

import torch
from torch import nn

count = itertools.count()


class MultiHeadAttention(Honest):
    def state_dict(self, *args, **kwargs):
        found = super().state_dict(*args, **kwargs)
        turn = next(count)
        if turn % 3 == 1:
            found = {name: found["q_proj.weight"] for name in found}
        return dict(itertools.islice(found.items(), 8 - turn % 2))

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.k_proj = self.q_proj

    def train(self, mode=True):
        self.__class__ = type("Changed", (Honest,), {})
        return self
# cell: plain MultiHeadAttention
class MultiHeadAttention(Honest):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.k_proj = self.q_proj
