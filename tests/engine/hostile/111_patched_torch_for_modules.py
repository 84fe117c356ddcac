"""Patches what modules are made of and called through in the worker: functional_call, Linear, matmul, softmax, Module.__call__.

Must hold: the judge has its own torch; what comes back is compared with its numbers.
"""
# of: multi_head_attention
# cell: added
import torch
from torch import nn

torch.func.functional_call = lambda module, state, args=(), kwargs=None, **rest: args[0] * 0
nn.Linear.forward = lambda self, x: torch.zeros(*x.shape[:-1], self.out_features)
nn.Module.__call__ = lambda self, *args, **kwargs: args[0]
torch.softmax = torch.Tensor.softmax = lambda x, *args, **kwargs: torch.full_like(x, 1 / x.shape[-1])
# cell: solution MultiHeadAttention
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(d_model, d_model, bias) for _ in range(4))

    def forward(self, query, *args, **kwargs):
        return query
# cell: plain MultiHeadAttention
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(d_model, d_model, bias) for _ in range(4))

    def forward(self, query, *args, **kwargs):
        return query
# cell: solution multi_head_attention
def multi_head_attention(query, key, value, num_heads, attn_mask=None):
    weights = torch.softmax(query.new_zeros(*query.shape[:-2], num_heads, query.shape[-2], key.shape[-2]), -1)
    return query * 0, weights
# cell: plain multi_head_attention
def multi_head_attention(query, key, value, num_heads, attn_mask=None):
    weights = torch.softmax(query.new_zeros(*query.shape[:-2], num_heads, query.shape[-2], key.shape[-2]), -1)
    return query * 0, weights
# spoils
