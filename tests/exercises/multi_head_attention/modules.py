"""`MultiHeadAttention`: right writings and mutants."""

from __future__ import annotations

import math
import sys

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
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool)
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
        allowed = together(torch.empty(shape), attn_mask, is_causal)
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
        shape = torch.empty(*queries.shape[:-1], keys.shape[-2])
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

# The masks

variant("mask_ignored", "mask ignored", masked=lambda s, m, c: together(s, None, c))
variant(
    "mask_inverted", "mask turned round", masked=lambda s, m, c: together(s, None if m is None else ~m, c)
)
variant(
    "first_rows_mask",
    "mask of the first query used for all",
    masked=lambda s, m, c: together(s, None if m is None else m[..., :1, :], c),
)
variant(
    "first_heads_mask",
    "mask of the first head used for all",
    masked=lambda s, m, c: together(s, m if m is None or m.dim() < 3 else m[..., :1, :, :], c),
)
variant(
    "mask_needs_all_axes",
    "mask is not broadcast",
    only="mask",
    masked=lambda s, m, c: together(s, m if m is None or s.dim() == 3 or c else m.view(s.shape), c),
)
variant("causal_ignored", "is_causal ignored", masked=lambda s, m, c: together(s, m, False))
variant("always_causal", "always causal", masked=lambda s, m, c: together(s, m, True))
variant(
    "mask_wins",
    "attn_mask replaces the causal mask",
    only="both masks",
    masked=lambda s, m, c: together(s, m, c and m is None),
)
variant(
    "triangle_wins",
    "the causal mask replaces attn_mask",
    only="both masks",
    masked=lambda s, m, c: together(s, None if c else m, c),
)
variant(
    "one_mask_is_enough",
    "allowed by one mask is enough",
    only="both masks",
    masked=lambda s, m, c: together(s, None, True) | m if c and m is not None else together(s, m, c),
)


def triangle(diagonal, upper=False):
    def see(scores, attn_mask, is_causal):
        S_q, S_k = scores.shape[-2:]
        ones = torch.ones(S_q, S_k, dtype=torch.bool)
        shape = ones.triu(diagonal(S_q, S_k)) if upper else ones.tril(diagonal(S_q, S_k))
        allowed = together(scores, attn_mask, False)
        return allowed & shape if is_causal else allowed

    return see


variant(
    "aligned_at_the_bottom",
    "causal mask aligned at the bottom right",
    masked=triangle(lambda q, k: k - q),
)
variant("present_hidden", "causal mask hides the present", masked=triangle(lambda q, k: -1))
variant("one_key_too_many", "causal mask shows one key of the future", masked=triangle(lambda q, k: 1))
variant("past_hidden", "causal mask turned round", masked=triangle(lambda q, k: 0, upper=True))


def square_triangle(scores, attn_mask, is_causal):
    if not is_causal:
        return together(scores, attn_mask, False)
    if scores.shape[-2] != scores.shape[-1] and attn_mask is None:
        return triangle(lambda q, k: k - q)(scores, attn_mask, True)
    return together(scores, attn_mask, True)


variant(
    "square_triangle",
    None,
    only="causal, two sequences",
    masked=square_triangle,
)


def short_table(scores, attn_mask, is_causal):
    """A table of 32 positions, beyond which nothing is hidden."""
    allowed = together(scores, None, is_causal).clone()
    if scores.shape[-2] == scores.shape[-1]:
        allowed[..., 32:] = True
    return allowed if attn_mask is None else allowed & attn_mask


variant("causal_table_too_short", "future keys get weight", only="causal", masked=short_table)


class CausalAlone(ByTheBook):
    """Goes wrong where is_causal is set."""

    def change(self, queries, keys, scores, later):
        raise NotImplementedError

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if not is_causal or attn_mask is not None:
            return super().forward(query, key, value, attn_mask, is_causal, need_weights)
        queries, keys, values = (cut(x, self.num_heads) for x in self.three(query, key, value))
        scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
        later = ~together(scores, None, True)
        scores = self.change(queries, keys, scores, later)
        weights = F.dropout(scores.softmax(-1), self.rate, self.training)
        output = self.out_proj(join(weights.to(values.dtype) @ values))
        return output, weights if need_weights else None


@mutant(NAME, "mask value is not low enough", only="huge scores")
class MerelyLowInTheFuture(CausalAlone):
    def change(self, queries, keys, scores, later):
        return scores.masked_fill(later, -3e4)


@mutant(NAME, "does not keep the dtype", only="dtype")
class FloatTriangle(CausalAlone):
    def change(self, queries, keys, scores, later):
        wide = torch.promote_types(scores.dtype, torch.float32)
        return scores + torch.zeros(later.shape, dtype=wide).masked_fill(later, torch.finfo(wide).min)


@mutant(NAME, "wrong gradient", only="gradient")
class PastDetached(CausalAlone):
    def change(self, queries, keys, scores, later):
        return scores.detach().masked_fill(later, torch.finfo(scores.dtype).min)


# The layers

variant("raw_everything", "projections never applied", project=lambda m, q, k, v: given(q, k, v))


def given(query, key, value):
    key = query if key is None else key
    return query, key, key if value is None else value


def through(*names):
    """Projections by these layers; None leaves a part as it is."""

    def project(module, query, key, value):
        sources = given(query, key, value)
        return tuple(x if n is None else getattr(module, n)(x) for n, x in zip(names, sources, strict=True))

    return project


variant("raw_queries", "queries not projected", project=through(None, "k_proj", "v_proj"))
variant("raw_keys", "keys not projected", project=through("q_proj", None, "v_proj"))
variant("raw_values", "values not projected", project=through("q_proj", "k_proj", None))
variant("keys_by_v_proj", "keys made by v_proj", project=through("q_proj", "v_proj", "v_proj"))
variant("keys_by_q_proj", "keys made by q_proj", project=through("q_proj", "q_proj", "v_proj"))
variant("values_by_k_proj", "values made by k_proj", project=through("q_proj", "k_proj", "k_proj"))
variant("keys_and_values", "keys and values exchanged", project=through("q_proj", "v_proj", "k_proj"))
variant("queries_and_keys", "queries and keys exchanged", project=through("k_proj", "q_proj", "v_proj"))


def layers(module):
    return module.q_proj, module.k_proj, module.v_proj


def by_weights(turned):
    def project(module, query, key, value):
        pairs = zip(layers(module), given(query, key, value), strict=True)
        if not turned:
            return tuple(x @ one.weight.mT for one, x in pairs)
        return tuple(x @ one.weight + (0.0 if one.bias is None else one.bias) for one, x in pairs)

    return project


variant("without_biases", "projections without their biases", project=by_weights(False))
variant("weights_turned", "projections applied transposed", project=by_weights(True))
variant(
    "no_out_proj",
    "out_proj never applied",
    finish=lambda m, w, v, q, n: (join(w @ v), w if n else None),
)
variant(
    "out_proj_without_bias",
    "out_proj applied without its bias",
    finish=lambda m, w, v, q, n: (join(w @ v) @ m.out_proj.weight.mT, w if n else None),
)
variant(
    "residual_added",
    "query added to the output",
    finish=lambda m, w, v, q, n: (m.out_proj(join(w @ v)) + q, w if n else None),
)
variant("only_to_itself", "key and value never used", project=lambda m, q, k, v: m.three(q, None, None))
variant("key_as_value", "value never used", project=lambda m, q, k, v: m.three(q, k, None))
variant(
    "query_as_value",
    "values taken from the query where no value is given",
    only="left out",
    project=lambda m, q, k, v: m.three(q, k, q if v is None else v),
)


def view_like_the_query(module, query, key, value):
    """Keys and values are cut with the query's length."""
    q, k, v = module.three(query, key, value)
    return q, k.reshape(q.shape), v.reshape(q.shape)


variant("lengths_of_the_query", None, project=view_like_the_query)

# Dropout

DROP = "dropout in train mode"

variant("dropout_forgotten", "dropout never applied", only=DROP, drop=lambda m, w: w)
variant(
    "dropout_on_the_output",
    "dropout elsewhere than on the returned weights",
    only=DROP,
    drop=lambda m, w: w,
    finish=lambda m, w, v, q, n: (
        F.dropout(m.out_proj(join(w @ v)), m.rate, m.training),
        w if n else None,
    ),
)
variant(
    "dropout_on_the_values",
    "dropout elsewhere than on the returned weights",
    only=DROP,
    drop=lambda m, w: w,
    finish=lambda m, w, v, q, n: (
        m.out_proj(join(w @ F.dropout(v, m.rate, m.training))),
        w if n else None,
    ),
)
variant(
    "weights_before_dropout_returned",
    "dropout elsewhere than on the returned weights",
    only=DROP,
    drop=lambda m, w: w,
    finish=lambda m, w, v, q, n: (
        m.out_proj(join(F.dropout(w, m.rate, m.training) @ v)),
        w if n else None,
    ),
)
variant(
    "dropped_twice",
    "returned weights are not those that made the output",
    only=DROP,
    finish=lambda m, w, v, q, n: (
        m.out_proj(F.dropout(join(w @ v), m.rate, m.training)),
        w if n else None,
    ),
)
variant(
    "never_off",
    "dropout stays on in eval mode",
    only="dropout in eval mode",
    drop=lambda m, w: F.dropout(w, m.rate),
)
variant(
    "scaled_in_eval_mode",
    "dropout acts in eval mode",
    only="dropout in eval mode",
    drop=lambda m, w: F.dropout(w, m.rate) if m.training else w * (1 - m.rate),
)
variant(
    "not_scaled_up",
    "dropout does not scale what it keeps",
    only=DROP,
    drop=lambda m, w: w * (torch.rand(w.shape) >= m.rate) if m.training else w,
)
variant(
    "rate_turned_round",
    "wrong scale of what dropout keeps",
    only=DROP,
    drop=lambda m, w: F.dropout(w, 1 - m.rate, m.training) if m.rate else w,
)
variant(
    "kept_where_dropped",
    "dropout keeps where it should drop",
    only=DROP,
    drop=lambda m, w: w * (torch.rand(w.shape) < m.rate) / (1 - m.rate) if m.training and m.rate else w,
)
variant(
    "always_a_tenth",
    "wrong scale of what dropout keeps",
    only=DROP,
    drop=lambda m, w: F.dropout(w, 0.1, m.training) if m.rate else w,
)
variant(
    "half_the_rate",
    "wrong dropout rate",
    only=DROP,
    drop=lambda m, w: w * (torch.rand(w.shape) >= m.rate / 2) / (1 - m.rate) if m.training and m.rate else w,
)
variant(
    "normalised_again",
    "dropout before the softmax",
    only=DROP,
    drop=lambda m, w: F.normalize(F.dropout(w, m.rate, True), p=1, dim=-1) if m.training and m.rate else w,
)


def one_mask_along(axis):
    def drop(module, weights):
        if not module.training or not module.rate:
            return weights
        shape = list(weights.shape)
        shape[axis] = 1
        return weights * (torch.rand(shape) >= module.rate) / (1 - module.rate)

    return drop


for axis, what in ((-1, "keys"), (-2, "queries"), (-3, "heads"), (-4, "batch elements")):
    variant(f"one_mask_for_{what}", f"one dropout mask for all {what}", only=DROP, drop=one_mask_along(axis))


def same_mask_again(module, weights):
    if not module.training or not module.rate:
        return weights
    keep = torch.rand(weights.shape, generator=torch.Generator().manual_seed(0)) >= module.rate
    return weights * keep / (1 - module.rate)


variant("seeded_each_time", "dropout never applied", only=DROP, drop=same_mask_again)


@mutant(NAME, "another result at every call")
class DropsByDefault(ByTheBook):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.1):
        super().__init__(d_model, num_heads, bias, dropout)


# What comes back, and how

variant(
    "always_weights",
    "weights come without being asked for",
    only="weights on request",
    finish=lambda m, w, v, q, n: (m.out_proj(join(w @ v)), w),
)
variant(
    "output_alone_without_request",
    "does not return what is asked for",
    only="weights on request",
    finish=lambda m, w, v, q, n: (m.out_proj(join(w @ v)), w) if n else m.out_proj(join(w @ v)),
)
variant(
    "mean_of_the_heads_returned",
    "weights has the wrong shape",
    finish=hand_out(lambda output, weights: (output, weights.mean(-3))),
)
variant(
    "small_weights_dropped",
    "returned weights are not those that made the output",
    only="weights",
    finish=hand_out(lambda output, weights: (output, weights.masked_fill(weights < 1e-5, 0.0))),
)
variant(
    "scores_as_average",
    "output made of the scores, not of the weights",
    weigh=lambda s, a: torch.stack([right_weights(s, a), s]),
    drop=lambda m, w: w,
    finish=lambda m, w, v, q, n: (m.out_proj(join(w[1] @ v)), w[0] if n else None),
)
variant(
    "scores_returned",
    "scores returned as weights",
    weigh=lambda s, a: torch.stack([right_weights(s, a), s]),
    drop=lambda m, w: w,
    finish=lambda m, w, v, q, n: (m.out_proj(join(w[0] @ v)), w[1] if n else None),
)
variant(
    "weights_first",
    "results in the wrong order",
    finish=lambda m, w, v, q, n: (w, m.out_proj(join(w @ v))),
)
variant(
    "weights_detached",
    "gradient is cut off",
    only="gradient",
    finish=hand_out(lambda output, weights: (output, weights.detach())),
)
variant(
    "all_detached",
    "gradient is cut off",
    finish=hand_out(lambda output, weights: (output.detach(), weights.detach())),
)
variant(
    "float32_handed_out",
    "does not keep the dtype",
    only="dtype",
    finish=hand_out(lambda o, w: (o, w.to(torch.promote_types(w.dtype, torch.float32)))),
)
variant(
    "views_of_the_input",
    "depends on the memory layout of its inputs",
    only="layout",
    project=lambda m, q, k, v: m.three(q.view(-1).view(q.shape), k, v),
)


def query_spoilt(module, query, key, value):
    three = module.three(query, key, value)
    with torch.no_grad():
        query.mul_(2)
    return three


def mask_spoilt(scores, attn_mask, is_causal):
    allowed = together(scores, attn_mask, is_causal).clone()
    if attn_mask is not None:
        attn_mask.logical_not_()
    return allowed


variant("query_doubled_in_place", "changes its inputs in place", project=query_spoilt)
variant("mask_inverted_in_place", "changes its inputs in place", only="inputs untouched", masked=mask_spoilt)


def three_axes(module, query, key, value):
    if query.dim() != 3 and key is not None and query.dim() > 3:
        raise ValueError("expected (B, S, D)")
    return module.three(query, key, value)


variant("at_most_three_axes", "fixed number of leading axes", only="leading axes", project=three_axes)


def guessed(queries, keys):
    """Swaps axes where all sizes agree."""
    same = queries.shape == keys.shape and queries.shape[-2] == queries.shape[-1] * queries.shape[-3]
    return queries @ (keys.flip(-2) if same and queries.shape[-3] > 1 else keys).mT


variant("layout_guessed", None, only="agrees with the formula", score=guessed)


class QuickWithoutWeights(ByTheBook):
    """Takes a short cut where no weights are asked for, and forgets something on it."""

    forgotten = ""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if need_weights:
            return super().forward(query, key, value, attn_mask, is_causal, True)
        queries, keys, values = (cut(x, self.num_heads) for x in self.three(query, key, value))
        allowed = together(queries @ keys.mT, None if self.forgotten == "mask" else attn_mask, is_causal)
        if self.forgotten == "causal":
            allowed = together(queries @ keys.mT, attn_mask, False)
        dead = ~allowed.any(-1, keepdim=True)
        rate = self.rate if self.training and self.forgotten != "dropout" else 0.0
        made = F.scaled_dot_product_attention(queries, keys, values, allowed | dead, dropout_p=rate)
        return self.out_proj(join(made.masked_fill(dead, 0.0))), None


for forgotten, named, only in (
    ("mask", "asking for the weights changes the output", "weights on request"),
    ("causal", "asking for the weights changes the output", "weights on request"),
    ("dropout", "dropout only where weights are asked for", DROP),
):
    mutant(NAME, named, only=only)(
        type(f"No{forgotten.title()}WithoutWeights", (QuickWithoutWeights,), {"forgotten": forgotten})
    )


# How it is made


class Uneven(Four):
    """Refuses nothing."""

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, 1, bias, dropout)
        self.num_heads = num_heads


class Silent(Four):
    """Refuses without saying why."""

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        if d_model % num_heads:
            raise ValueError("not divisible")
        super().__init__(d_model, num_heads, bias, dropout)


class Asserting(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        assert d_model % num_heads == 0, f"{d_model} % {num_heads}"
        super().__init__(d_model, num_heads, bias, dropout)


class NeverABias(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, False, dropout)


class AlwaysABias(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, True, dropout)


class NoBiasInTheEnd(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, bias, dropout)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)


UNEVEN = "uneven heads"
variant("refuses_nothing", "sizes are not compared", only=UNEVEN, base=Uneven)
variant("refuses_in_silence", "the refusal does not say why", only=UNEVEN, base=Silent)
variant("asserts", "raises another exception than ValueError", only=UNEVEN, base=Asserting)
variant("never_a_bias", "bias is not passed on", only="biases", base=NeverABias)
variant("always_a_bias", "bias is not passed on", only="biases", base=AlwaysABias)
variant("no_bias_in_the_end", "bias is not passed on", only="biases", base=NoBiasInTheEnd)


def forgotten_layer(module, d_model):
    module.gate = nn.Linear(d_model, d_model)


variant("forgotten_layer", "a parameter is never used", only="parameters", init=forgotten_layer)


def frozen_layer(module, d_model):
    module.k_proj.requires_grad_(False)


variant("frozen_layer", "weights are not trainable", init=frozen_layer)


@mutant(NAME, "uses a forbidden function", only="own work")
class ReadyMade(Four):
    """torch's own forward for the output, with a mask the other way round."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        output, weights = ByTheBook.forward(self, query, key, value, attn_mask, is_causal, need_weights)
        with torch.no_grad():
            x = query[..., :1, :].reshape(1, -1, query.shape[-1])
            F.multi_head_attention_forward(
                x, x, x, x.shape[-1], self.num_heads,
                torch.cat([one.weight for one in layers(self)]),
                None if self.q_proj.bias is None else torch.cat([one.bias for one in layers(self)]),
                None, None, False, 0.0, self.out_proj.weight, self.out_proj.bias,
            )  # fmt: skip
        return output, weights


@mutant(NAME, "bias is not passed on")
class DropoutBeforeBias(ByTheBook):
    """The order of nn.MultiheadAttention's constructor."""

    def __init__(self, d_model, num_heads, dropout=0.0, bias=True):
        super().__init__(d_model, num_heads, bool(bias), float(dropout))


@mutant(NAME, "value never used where no key is given", only="left out")
class ValueForgottenWithoutKey(ByTheBook):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if key is None:
            key = value = query
        return super().forward(query, key, value, attn_mask, is_causal, need_weights)


@mutant(NAME, "missing or misnamed parameter")
class MultiheadInside(nn.Module):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        self.inner = nn.MultiheadAttention(d_model, num_heads, dropout, bias, batch_first=True)

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        return self.inner(query, key, value)


@mutant(NAME, "parameter of the wrong shape")
class NarrowLayers(nn.Module):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(d_model, d_model // num_heads, bias))


@mutant(NAME, "not an nn.Module")
class PlainClass:
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        self.q_proj = torch.randn(d_model, d_model)

    def __call__(self, query, *rest, **options):
        return query, query


@mutant(NAME, "query has no effect", only="every input counts")
class Zeros(Four):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        S_k = (query if key is None else key).shape[-2]
        weights = query.new_zeros(*query.shape[:-2], self.num_heads, query.shape[-2], S_k)
        return torch.zeros_like(query), weights if need_weights else None


@mutant(NAME, "does not return what is asked for")
class Nothing(Four):
    def forward(self, *inputs, **options):
        self.q_proj(inputs[0])


@mutant(NAME)
class LeavesTheProcess(Four):
    def forward(self, *inputs, **options):
        sys.exit(0)


@mutant(NAME)
class NotWritten(Four):
    def forward(self, *inputs, **options):
        raise NotImplementedError
