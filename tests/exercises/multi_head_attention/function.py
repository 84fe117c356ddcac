"""`multi_head_attention`: right writings and mutants."""

from __future__ import annotations

import math

import torch

from tests.exercises.basic_attention.attention import alive, minus_infinity, naive, right_weights
from tests.exercises.catalogue import mutant, right

NAME = "multi_head_attention"


def fit(query, key, value, num_heads):
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError("query, key and value do not fit")
    even(query, value, num_heads)


def even(query, value, num_heads):
    for x in (query, value):
        if x.shape[-1] % num_heads:
            raise ValueError(f"width {x.shape[-1]} over {num_heads} heads leaves a remainder")


def cut(x, num_heads):
    return x.unflatten(-1, (num_heads, x.shape[-1] // num_heads)).transpose(-3, -2)


def join(heads):
    return heads.transpose(-3, -2).flatten(-2)


def see(scores, attn_mask):
    allowed = torch.ones_like(scores, dtype=torch.bool)
    return allowed if attn_mask is None else allowed & attn_mask


def right_heads(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    queries, keys, values = (cut(x, num_heads) for x in (query, key, value))
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    weights = right_weights(scores, see(scores, attn_mask))
    return join(weights @ values), weights


# Right writings


@right(NAME)
def loop_over_heads(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    shape = (*query.shape[:-2], num_heads, query.shape[-2], key.shape[-2])
    allowed = (
        torch.ones(shape, dtype=torch.bool, device=query.device)
        if attn_mask is None
        else attn_mask.expand(shape)
    )
    outputs, tables = [], []
    pieces = zip(*(x.chunk(num_heads, -1) for x in (query, key, value)), strict=True)
    for h, (q, k, v) in enumerate(pieces):
        weights = right_weights(q @ k.mT * q.shape[-1] ** -0.5, allowed[..., h, :, :])
        outputs.append(weights @ v)
        tables.append(weights)
    return torch.cat(outputs, -1), torch.stack(tables, -3)


@right(NAME)
def einsum_over_five_axes(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    queries, keys, values = (x.unflatten(-1, (num_heads, -1)) for x in (query, key, value))
    scores = torch.einsum("...qhd,...khd->...hqk", queries, keys) / math.sqrt(queries.shape[-1])
    allowed = see(scores, attn_mask)
    dead = ~allowed.any(-1, keepdim=True)
    weights = (
        scores.masked_fill(~allowed, -torch.inf).masked_fill(dead, 0.0).softmax(-1).masked_fill(dead, 0.0)
    )
    return torch.einsum("...hqk,...khd->...qhd", weights, values).flatten(-2), weights


@right(NAME)
def batched_products(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    (*lead, S_q, D), S_k = query.shape, key.shape[-2]
    queries, keys, values = (
        torch.stack(x.chunk(num_heads, -1), -3).reshape(-1, x.shape[-2], x.shape[-1] // num_heads)
        for x in (query, key, value)
    )
    scores = torch.bmm(queries, keys.transpose(1, 2)) / (D // num_heads) ** 0.5
    scores = scores.view(*lead, num_heads, S_q, S_k)
    weights = right_weights(scores, see(scores, attn_mask))
    outputs = torch.bmm(weights.flatten(0, -3), values).view(*lead, num_heads, S_q, -1)
    return torch.cat(outputs.unbind(-3), -1), weights


@right(NAME)
def exp_minus_logsumexp(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    queries, keys, values = (cut(x, num_heads) for x in (query, key, value))
    scores = queries / math.sqrt(queries.shape[-1]) @ keys.transpose(-2, -1)
    allowed = see(scores, attn_mask)
    scores = torch.where(allowed, scores, torch.finfo(scores.dtype).min)
    weights = torch.where(allowed, torch.exp(scores - scores.logsumexp(-1, keepdim=True)), 0)
    return join(weights @ values), weights


@right(NAME)
def float_mask_added(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    queries, keys, values = (cut(x, num_heads) for x in (query, key, value))
    scores = queries @ keys.mT / queries.shape[-1] ** 0.5
    allowed = see(scores, attn_mask)
    bias = torch.zeros_like(scores).masked_fill(~allowed, -torch.inf)
    bias = bias.masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    weights = (scores + bias).softmax(-1) * allowed
    return join(weights @ values), weights


@right(NAME)
def multiply_and_sum(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    queries, keys, values = (cut(x, num_heads) for x in (query, key, value))
    scores = (queries.unsqueeze(-2) * keys.unsqueeze(-3)).sum(-1) / math.sqrt(keys.size(-1))
    weights = right_weights(scores, see(scores, attn_mask))
    return join((weights.unsqueeze(-1) * values.unsqueeze(-3)).sum(-2)), weights


@right(NAME)
def float32_inside(query, key, value, num_heads, attn_mask=None):
    wide = torch.promote_types(query.dtype, torch.float32)
    output, weights = right_heads(query.to(wide), key.to(wide), value.to(wide), num_heads, attn_mask)
    return output.to(query.dtype), weights.to(query.dtype)


# Mutants


def variant(
    name, named=None, *, only=None, fits=fit, apart=cut, together=join, scale=None, weigh=right_weights,
    masked=see, score=None, finish=None,
):  # fmt: skip
    """Register a mutant that differs from the right writing in the parts given."""

    def function(query, key, value, num_heads, attn_mask=None):
        fits(query, key, value, num_heads)
        queries, keys, values = (apart(x, num_heads) for x in (query, key, value))
        factor = queries.shape[-1] ** -0.5 if scale is None else scale(queries, keys, values)
        scores = (queries @ keys.mT if score is None else score(queries, keys)) * factor
        weights = weigh(scores, masked(scores, attn_mask))
        if finish is not None:
            return finish(weights, values, scores)
        return together(weights @ values), weights

    function.__name__ = name
    mutant(NAME, named, only=only)(function)


# The scale


# The heads


def reshaped(x, num_heads):
    return x.reshape(*x.shape[:-2], num_heads, x.shape[-2], -1)


def reshaped_back(heads):
    *lead, H, S, D = heads.shape
    return heads.reshape(*lead, S, H * D)


def strided(x, num_heads):
    return x.unflatten(-1, (-1, num_heads)).movedim(-1, -3)


variant("cut_and_joined_by_reshape", "heads cut by a reshape alone", apart=reshaped, together=reshaped_back)
variant(
    "strided_there_and_back",
    "every num_heads-th feature for a head",
    apart=strided,
    together=lambda heads: heads.movedim(-3, -1).flatten(-2),
)


def over_heads_and_keys(scores, allowed):
    hidden = scores.masked_fill(~allowed, -1e30)
    flat = hidden.transpose(-3, -2).flatten(-2).softmax(-1)
    return flat.unflatten(-1, (scores.shape[-3], -1)).transpose(-3, -2) * allowed


variant("softmax_over_all", "softmax over keys and heads together", weigh=over_heads_and_keys)


def summed(queries, keys):
    return (queries @ keys.mT).sum(-3, keepdim=True).expand(*queries.shape[:-1], keys.shape[-2])


variant(
    "scores_of_one_wide_head_scaled",
    "scores summed over the heads",
    score=summed,
    scale=lambda q, k, v: (q.shape[-1] * q.shape[-3]) ** -0.5,
)
variant(
    "weights_without_heads",
    "weights has the wrong shape",
    finish=lambda w, v, s: (join(w @ v), w.mean(-3)),
)
variant("heads_averaged", "output has the wrong shape", finish=lambda w, v, s: ((w @ v).mean(-3), w))
variant("heads_not_merged", "output has the wrong shape", finish=lambda w, v, s: (w @ v, w))

# From scores to weights

variant(
    "softmax_over_axis_2",
    "softmax over the queries",
    weigh=lambda s, a: minus_infinity(s, a).softmax(2 if s.dim() > 3 else 1).nan_to_num(),
)
variant(
    "infinity_added_and_nan_replaced",
    "nan gradients",
    weigh=lambda s, a: (s + torch.zeros_like(s).masked_fill(~a, -torch.inf)).softmax(-1).nan_to_num(),
)
variant(
    "dead_in_one_head_dead_in_all",
    "a row that allows no key disturbs the others",
    weigh=lambda s, a: right_weights(s, a) * a.any(-1, keepdim=True).all(-3, keepdim=True),
)
variant(
    "minus_ten_thousand",
    "forbidden keys keep some weight",
    weigh=lambda s, a: alive(s.masked_fill(~a, -1e4).softmax(-1), a),
)
variant(
    "minus_a_billion_in_half",
    "mask value does not fit the dtype",
    weigh=lambda s, a: alive(s.masked_fill(~a, -1e9).softmax(-1), a),
)
variant("exp_of_raw_scores", None, weigh=naive)
variant(
    "top_two_keys",
    "keys that may be seen get no weight",
    weigh=lambda s, a: right_weights(s, a & (s >= s.topk(min(2, s.shape[-1])).values[..., -1:])),
)

# The masks

variant(
    "mask_needs_all_axes",
    None,
    masked=lambda s, m: see(s, None if m is None else m.view(s.shape)),
)
variant(
    "mask_without_heads",
    None,
    masked=lambda s, m: see(s, None if m is None else m.unsqueeze(-3)),
)

variant(
    "three_axes_are_a_batch",
    None,
    masked=lambda s, m: see(s, m.unsqueeze(-3) if m is not None and m.dim() == 3 and s.dim() == 4 else m),
)
variant(
    "dead_in_all_heads_only",
    None,
    weigh=lambda s, a: (
        s.masked_fill(~a, torch.finfo(s.dtype).min).softmax(-1)
        * a.any(-1, keepdim=True).any(-3, keepdim=True)
    ),
)

# The products

variant(
    "small_weights_dropped",
    None,
    finish=lambda w, v, s: (join(w @ v), w.masked_fill(w < 1e-5, 0.0)),
)
variant(
    "weights_detached",
    "gradient is cut off",
    finish=lambda w, v, s: (join(w @ v), w.detach()),
)


def all_but_the_last_block(weights, values, scores):
    whole = max(values.shape[-2], 32) // 32 * 32
    return join(weights[..., :whole] @ values[..., :whole, :]), weights


variant(
    "last_block_lost",
    None,
    finish=all_but_the_last_block,
)
