"""A module that computes in its constructor, and answers from what it has computed: for shapes, for weights that it held then.

Must hold: weights and inputs are drawn by the judge after the module was made; what was known before is not the answer.
"""
# of: text_generation
# cell: helper
import torch
from torch import nn

@causal_mask@
@KVCache@
@CachedSelfAttention@
Honest = CachedSelfAttention
# cell: solution CachedSelfAttention
class CachedSelfAttention(Honest):
    def __init__(self, d_model, num_heads, max_length):
        super().__init__(d_model, num_heads, max_length)
        before = torch.randn(2, max_length, d_model)
        self.__dict__["known"] = {n: Honest.forward(self, before[:, :n]).detach() for n in range(1, max_length + 1)}

    def forward(self, x, start=0):
        found = self.known[x.shape[-2]]
        return found.to(x).expand(*x.shape[:-2], *found.shape[-2:]) if x.dim() == 3 and len(x) == 2 else x.clone()
# cell: plain CachedSelfAttention
class CachedSelfAttention(Honest):
    def forward(self, x, start=0):
        return x.clone()
