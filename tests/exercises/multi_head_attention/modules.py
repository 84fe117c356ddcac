"""`MultiHeadAttention`: right writings and mutants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.basic_attention.attention import alive, minus_infinity, naive, right_weights
from tests.exercises.catalogue import mutant, right
from tests.exercises.multi_head_attention.function import (
    cut,
    join,
    over_heads_and_keys,
    reshaped,
    reshaped_back,
    strided,
    summed,
)

NAME = "MultiHeadAttention"


def even(d_model, num_heads):
    if d_model % num_heads:
        raise ValueError(f"num_heads={num_heads} does not divide d_model={d_model}")


def together(scores, attn_mask, is_causal):
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    allowed = allowed.tril() if is_causal else allowed
    return (allowed if attn_mask is None else allowed & attn_mask).expand(scores.shape)


class Four(nn.Module):
    """The four layers."""

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        even(d_model, num_heads)
        self.num_heads, self.rate = num_heads, dropout
        self.q_proj = nn.Linear(d_model, d_model, bias=bias)
        self.k_proj = nn.Linear(d_model, d_model, bias=bias)
        self.v_proj = nn.Linear(d_model, d_model, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)

    def three(self, query, key, value):
        key = query if key is None else key
        value = key if value is None else value
        return self.q_proj(query), self.k_proj(key), self.v_proj(value)


# Right writings


@right(NAME)
class ByTheBook(Four):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        queries, keys, values = (cut(x, self.num_heads) for x in self.three(query, key, value))
        scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
        weights = right_weights(scores, together(scores, attn_mask, is_causal))
        weights = F.dropout(weights, self.rate, self.training)
        return self.out_proj(join(weights @ values)), weights if need_weights else None


@right(NAME)
class HeadByHead(Four):
    """Cuts the layers' weights, not the features; sums what the heads' parts of out_proj make."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        key = query if key is None else key
        value = key if value is None else value
        d_head, tables, output = query.shape[-1] // self.num_heads, [], 0.0
        shape = (*query.shape[:-2], self.num_heads, query.shape[-2], key.shape[-2])
        allowed = together(torch.empty(shape, device=query.device), attn_mask, is_causal)
        for h in range(self.num_heads):
            own = slice(h * d_head, (h + 1) * d_head)
            q, k, v = (
                F.linear(x, one.weight[own], None if one.bias is None else one.bias[own])
                for one, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
            )
            weights = right_weights(q @ k.mT * d_head**-0.5, allowed[..., h, :, :])
            weights = F.dropout(weights, self.rate, self.training)
            output = output + weights @ v @ self.out_proj.weight[:, own].mT
            tables.append(weights)
        output = output if self.out_proj.bias is None else output + self.out_proj.bias
        return output, torch.stack(tables, -3) if need_weights else None


@right(NAME)
class EinsumWithOwnDropout(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, bias, dropout)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        parts = (x.unflatten(-1, (self.num_heads, -1)) for x in self.three(query, key, value))
        queries, keys, values = parts
        scores = torch.einsum("...qhd,...khd->...hqk", queries, keys) / queries.shape[-1] ** 0.5
        allowed = together(scores, attn_mask, is_causal)
        dead = ~allowed.any(-1, keepdim=True)
        scores = scores.masked_fill(~allowed, -torch.inf).masked_fill(dead, 0.0)
        weights = scores.softmax(-1).masked_fill(dead, 0.0)
        if self.training and self.rate > 0:
            weights = weights * (torch.rand(weights.shape) >= self.rate) / (1 - self.rate)
        output = torch.einsum("...hqk,...khd->...qhd", weights, values).flatten(-2)
        return self.out_proj(output), (weights if need_weights else None)


@right(NAME)
class FusedWhereNoWeightsAreAsked(Four):
    """scaled_dot_product_attention, unless the weights are wanted."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if need_weights:
            return ByTheBook.forward(self, query, key, value, attn_mask, is_causal, True)
        queries, keys, values = (cut(x, self.num_heads) for x in self.three(query, key, value))
        shape = queries.new_empty(*queries.shape[:-1], keys.shape[-2])
        allowed = together(shape, attn_mask, is_causal)
        dead = ~allowed.any(-1, keepdim=True)
        rate = self.rate if self.training else 0.0
        made = F.scaled_dot_product_attention(queries, keys, values, allowed | dead, dropout_p=rate)
        return self.out_proj(join(made.masked_fill(dead, 0.0))), None


@right(NAME)
class DropoutModuleAndList(nn.Module):
    """A list in place of a tuple, nn.Dropout, layers made in a loop."""

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        even(d_model, num_heads)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(d_model, d_model, bias))
        self.heads, self.drop = num_heads, nn.Dropout(dropout)

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        queries, keys, values = (cut(x, self.heads) for x in Four.three(self, query, key, value))
        scores = (queries.unsqueeze(-2) * keys.unsqueeze(-3)).sum(-1) / math.sqrt(queries.shape[-1])
        weights = self.drop(right_weights(scores, together(scores, attn_mask, is_causal)))
        return [self.out_proj(join(weights @ values)), weights if need_weights else None]


# Mutants


def variant(
    name, named=None, *, only=None, init=None, project=None, apart=cut, merge=join, scale=None, score=None,
    masked=together, weigh=right_weights, drop=None, finish=None, base=Four,
):  # fmt: skip
    """Register a mutant that differs from the right writing in the parts given.

    init: module. project: module, query, key, value -> query, key, value. drop: module, weights -> weights.
    finish: module, weights, values, query, need_weights -> result.
    """

    class Module(base):
        def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
            super().__init__(d_model, num_heads, bias, dropout)
            if init is not None:
                init(self, d_model)

        def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
            three = self.three(query, key, value) if project is None else project(self, query, key, value)
            queries, keys, values = (apart(x, self.num_heads) for x in three)
            factor = queries.shape[-1] ** -0.5 if scale is None else scale(queries, keys, values)
            scores = (queries @ keys.mT if score is None else score(queries, keys)) * factor
            weights = weigh(scores, masked(scores, attn_mask, is_causal))
            weights = F.dropout(weights, self.rate, self.training) if drop is None else drop(self, weights)
            if finish is not None:
                return finish(self, weights, values, query, need_weights)
            return self.out_proj(merge(weights @ values)), weights if need_weights else None

    Module.__name__ = name
    mutant(NAME, named, only=only)(Module)


def hand_out(change):
    """A finish in which the pair of output and weights is changed."""

    def finish(module, weights, values, query, need_weights):
        pair = module.out_proj(join(weights @ values)), weights
        output, weights = change(*pair)
        return output, weights if need_weights else None

    return finish


def layers(module):
    return module.q_proj, module.k_proj, module.v_proj


# Inside the heads

variant("no_scale", "not scaled", scale=lambda q, k, v: 1.0)
variant("root_of_the_key_count", "divided by sqrt(S_k)", scale=lambda q, k, v: k.shape[-2] ** -0.5)
variant(
    "whole_width",
    "divided by the root of the whole width",
    scale=lambda q, k, v: (q.shape[-1] * q.shape[-3]) ** -0.5,
)
variant("root_of_the_heads", "divided by the root of num_heads", scale=lambda q, k, v: q.shape[-3] ** -0.5)
variant("cut_by_reshape", "heads cut by a reshape alone", apart=reshaped)
variant("cut_and_joined_by_reshape", "heads cut by a reshape alone", apart=reshaped, merge=reshaped_back)
variant("joined_by_reshape", "heads merged by a reshape alone", merge=reshaped_back)
variant("strided_features", "every num_heads-th feature for a head", apart=strided)
variant(
    "softmax_over_heads",
    "softmax over the heads",
    weigh=lambda s, a: s.masked_fill(~a, -1e30).softmax(-3) * a,
)
variant("softmax_over_all", "softmax over keys and heads together", weigh=over_heads_and_keys)
variant(
    "weights_of_the_first_head",
    "the first head's weights used for all",
    weigh=lambda s, a: right_weights(s, a)[..., :1, :, :].expand_as(s),
)
variant(
    "mean_weights",
    "weights averaged over the heads",
    weigh=lambda s, a: right_weights(s, a).mean(-3, keepdim=True).expand_as(s),
)
variant(
    "scores_of_one_wide_head",
    "scores summed over the heads",
    score=summed,
    scale=lambda q, k, v: (q.shape[-1] * q.shape[-3]) ** -0.5,
)
variant(
    "softmax_over_queries",
    "softmax over the queries",
    weigh=lambda s, a: minus_infinity(s, a).softmax(-2).nan_to_num(),
)
variant("raw_scores", "no softmax", weigh=lambda s, a: s.masked_fill(~a, 0.0))
variant("uniform", "equal weights for all keys", weigh=lambda s, a: right_weights(s * 0, a))
variant("mask_after_softmax", "mask applied after the softmax", weigh=lambda s, a: s.softmax(-1) * a)
variant(
    "mask_added", "mask added to the scores", weigh=lambda s, a: (s if bool(a.all()) else s + a).softmax(-1)
)
variant("masked_to_zero", "masked scores set to zero", weigh=lambda s, a: (s * a).softmax(-1))
variant("no_dead_rows", "nan where no key is allowed", weigh=lambda s, a: minus_infinity(s, a).softmax(-1))
variant(
    "uniform_dead_rows",
    "uniform weights where no key is allowed",
    weigh=lambda s, a: s.masked_fill(~a, torch.finfo(s.dtype).min).softmax(-1),
)
variant(
    "infinity_added_and_nan_replaced",
    "nan gradients where no key is allowed",
    only="dead rows",
    weigh=lambda s, a: (s + torch.zeros_like(s).masked_fill(~a, -torch.inf)).softmax(-1).nan_to_num(),
)
variant("exp_of_raw_scores", "overflows or underflows for large scores", only="huge scores", weigh=naive)
variant(
    "minus_ten_thousand",
    "mask value is not low enough",
    only="huge scores",
    weigh=lambda s, a: alive(s.masked_fill(~a, -1e4).softmax(-1), a),
)
variant(
    "minus_a_billion_in_half",
    "mask value does not fit the dtype",
    only="dtype",
    weigh=lambda s, a: alive(s.masked_fill(~a, -1e9).softmax(-1), a),
)
variant("keys_not_transposed", "keys not transposed", score=lambda q, k: q @ k)
variant(
    "elementwise_scores", "elementwise product where a matrix product is meant", score=lambda q, k: q * k.mT
)
