# mypy: ignore-errors
"""Goran creates projections and does not use them all, and adds where he should multiply."""

from torch import nn


class AdditiveScores(nn.Module):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.W_q = nn.Linear(d_query, d_hidden, bias=False)
        self.W_k = nn.Linear(d_key, d_hidden, bias=False)
        self.v = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, query, key):
        hidden = self.W_q(query).unsqueeze(-2) + self.W_k(key).unsqueeze(-3)
        return self.v(hidden).squeeze(-1)


class SelfAttention(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x, attn_mask=None, is_causal=False):
        output, weights = attention(x, x, x, attn_mask, is_causal)
        return self.out_proj(output), weights


class CrossAttention(nn.Module):
    def __init__(self, d_model, d_context):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_context, d_model)
        self.v_proj = nn.Linear(d_context, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x, context, attn_mask=None):
        query, key, value = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        return attention(query, key, value, attn_mask)


additive_kind = "b"


class SymmetricAttention(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.qk_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x, is_causal=False):
        both = self.qk_proj(x)
        scores = both @ both.transpose(-2, -1) / x.shape[-1] ** 0.5
        if is_causal:
            allowed = scores.new_ones(scores.shape[-2:]).tril().bool()
            scores = scores.masked_fill(~allowed, float("-inf"))
        weights = scores.softmax(-1)
        return weights @ self.v_proj(x), weights


class SharedLayerStack(nn.Module):
    def __init__(self, layer, depth):
        import copy

        super().__init__()
        if depth < 1:
            raise ValueError("depth must be at least 1")
        self.layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(depth)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class KVCache:
    def __init__(self, max_length):
        self.max_length = max_length
        self.reset()

    def __len__(self):
        return 0 if self.keys is None else self.keys.shape[-2]

    def reset(self):
        self.keys = self.values = None

    def append(self, key, value):
        if len(self) + key.shape[-2] > self.max_length:
            raise ValueError("the cache is full")
        self.keys, self.values = key, value
        return self.keys, self.values
