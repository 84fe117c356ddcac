"""`multi_head_attention`: mutants of a second kind."""

from __future__ import annotations

import math

import torch

from solutions.multi_head_attention import MultiHeadAttention
from tests.exercises.basic_attention.attention import right_weights
from tests.exercises.catalogue import mutant
from tests.exercises.multi_head_attention.function import cut, even, fit, join, see


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


def dropping(name, named, drop):
    """A mutant that drops otherwise: module, weights (..., H, S_q, S_k), whether there is a mask -> weights."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        key = query if key is None else key
        value = key if value is None else value
        parts = (layer(x) for layer, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value)))
        queries, keys, values = (cut(x, self.num_heads) for x in parts)
        scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
        allowed = see(scores, attn_mask)
        if is_causal:
            allowed = allowed & torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        weights = right_weights(scores, allowed)
        if self.training and self.rate:
            weights = drop(self.rate, weights, attn_mask is not None or is_causal)
        return self.out_proj(join(weights @ values)), weights if need_weights else None

    def init(self, d_model, num_heads, bias=True, dropout=0.0):
        MultiHeadAttention.__init__(self, d_model, num_heads, bias, dropout)
        self.rate = dropout

    made = type(name, (MultiHeadAttention,), {"__init__": init, "forward": forward})
    mutant("MultiHeadAttention", named, only="dropout in train mode")(made)


def plain(rate, weights):
    return torch.nn.functional.dropout(weights, rate)


dropping("DroppedWithoutAMask", None, lambda p, w, masked: w if masked else plain(p, w))
dropping("DroppedWithAGradient", "dropout only where gradients are asked for",
         lambda p, w, masked: plain(p, w) if torch.is_grad_enabled() else w)  # fmt: skip
dropping("DetachedBeforeItDrops", "gradient is cut off", lambda p, w, masked: plain(p, w.detach()))
