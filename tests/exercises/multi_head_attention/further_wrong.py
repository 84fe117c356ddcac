"""Mutants of a second kind: limits on sizes, masks joined in place, eval(), start values."""

from __future__ import annotations

import math

import torch
from torch import nn

from tests.exercises.basic_attention.attention import right_weights
from tests.exercises.catalogue import mutant
from tests.exercises.multi_head_attention.block import TwoBranches
from tests.exercises.multi_head_attention.function import cut, even, fit, join, see
from tests.exercises.multi_head_attention.modules import ByTheBook


@mutant("multi_head_attention", "sizes are not compared", only="sizes that do not fit")
def whatever_einsum_refuses(query, key, value, num_heads, attn_mask=None):
    even(query, value, num_heads)
    if query.shape[-1] != key.shape[-1]:
        raise ValueError("query and key differ in width")
    queries, keys, values = (cut(x, num_heads) for x in (query, key, value))
    scores = torch.einsum("...qd,...kd->...qk", queries, keys) / math.sqrt(queries.shape[-1])
    weights = right_weights(scores, see(scores, attn_mask))
    try:
        return join(torch.einsum("...qk,...kv->...qv", weights, values)), weights
    except RuntimeError as error:
        raise ValueError(str(error)) from error


@mutant("multi_head_attention", "less precise than its dtype")
def root_of_a_float32_tensor(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    queries, keys, values = (cut(x, num_heads) for x in (query, key, value))
    scores = queries @ keys.mT / torch.sqrt(torch.tensor(queries.shape[-1], dtype=torch.float32))
    weights = right_weights(scores, see(scores, attn_mask))
    return join(weights @ values), weights


class WithATriangle(ByTheBook):
    size = 1024

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, bias, dropout)
        self.register_buffer("triangle", torch.ones(self.size, self.size, dtype=torch.bool).tril(), False)


@mutant("MultiHeadAttention", "causal mask of a fixed size", only="causal")
class TriangleTooSmall(WithATriangle):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if is_causal:
            S_k = query.shape[-2] if key is None else key.shape[-2]
            triangle = self.triangle[: query.shape[-2], :S_k]
            attn_mask = triangle if attn_mask is None else attn_mask & triangle
        return super().forward(query, key, value, attn_mask, False, need_weights)


@mutant("MultiHeadAttention", "changes its inputs in place", only="inputs untouched")
class JoinsMasksInPlace(ByTheBook):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if is_causal and attn_mask is not None:
            attn_mask &= torch.ones(attn_mask.shape[-2:], dtype=torch.bool).tril()
        return super().forward(query, key, value, attn_mask, is_causal, need_weights)


@mutant("MultiHeadAttention", "depends on train() or eval()", only="layout")
class NoMaskInEval(ByTheBook):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        mask = attn_mask if self.training else None
        return super().forward(query, key, value, mask, is_causal, need_weights)


@mutant("MultiHeadAttention", "unusable start values", only="parameters")
class StartsAtZero(ByTheBook):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, bias, dropout)
        for one in self.parameters():
            nn.init.zeros_(one)


@mutant("TransformerBlock", "does not work as it is made", only="parameters")
class MadeInFloat64(TwoBranches):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__(d_model, num_heads, d_ff, norm_first)
        self.double()


@mutant("TransformerBlock", "depends on train() or eval()", only="layout")
class SeesTheFutureInEval(TwoBranches):
    def forward(self, x, attn_mask=None, is_causal=False):
        return super().forward(x, attn_mask, is_causal and self.training)
