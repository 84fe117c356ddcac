"""`multi_head_attention`: mutants that go wrong in sizes and conduct, and what is no attempt."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.exercises.basic_attention.attention import right_weights
from tests.exercises.catalogue import mutant
from tests.exercises.multi_head_attention.function import (
    NAME,
    cut,
    even,
    fit,
    join,
    right_heads,
    see,
    variant,
)

# The sizes


def no_even(query, key, value, num_heads):
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError("query, key and value do not fit")


def whole_part(x, num_heads):
    width = x.shape[-1] // num_heads
    return x[..., : width * num_heads].unflatten(-1, (num_heads, width)).transpose(-3, -2)


variant("remainder_dropped", "sizes are not compared", only="uneven heads", fits=no_even, apart=whole_part)
variant("error_of_torch", "raises another exception than ValueError", only="uneven heads", fits=no_even,
        apart=lambda x, h: x.view(*x.shape[:-1], h, x.shape[-1] // h).transpose(-3, -2))  # fmt: skip


def silent(query, key, value, num_heads):
    try:
        fit(query, key, value, num_heads)
    except ValueError:
        raise ValueError("bad sizes") from None


variant("silent_error", "the refusal does not say why", only="uneven heads", fits=silent)
variant(
    "lengths_not_compared",
    "sizes are not compared",
    only="sizes that do not fit",
    fits=lambda q, k, v, h: even(q, v, h),
)


def at_most_three_axes(query, key, value, num_heads):
    fit(query, key, value, num_heads)
    if query.dim() > 3:
        raise ValueError("expected (B, S, D)")


variant("at_most_three_axes", "fixed number of leading axes", fits=at_most_three_axes)


# The conduct


@mutant(NAME)
def layout_guessed(query, key, value, num_heads, attn_mask=None):
    if query.shape == key.shape == value.shape and query.shape[-1] == query.shape[-2] and attn_mask is None:
        key = key.mT
    return right_heads(query, key, value, num_heads, attn_mask)


@mutant(NAME, None)
def mask_spoilt(query, key, value, num_heads, attn_mask=None):
    result = right_heads(query, key, value, num_heads, attn_mask)
    if attn_mask is not None:
        attn_mask.logical_not_()
    return result


@mutant(NAME, None)
def views_of_the_input(query, key, value, num_heads, attn_mask=None):
    return right_heads(query.view(-1).view(query.shape), key, value, num_heads, attn_mask)


@mutant(NAME, "uses a forbidden function", only="own work")
def fused(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    queries, keys, values = (cut(x, num_heads) for x in (query, key, value))
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    allowed = see(scores, attn_mask)
    dead, weights = ~allowed.any(-1, keepdim=True), right_weights(scores, allowed)
    made = F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed | dead)
    return join(made.masked_fill(dead, 0.0)), weights


@mutant(NAME, "does too much work", only="cost")
def all_pairs_of_heads(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    queries, keys, values = (cut(x, num_heads) for x in (query, key, value))
    pairs = queries.unsqueeze(-3) @ keys.unsqueeze(-4).mT / math.sqrt(queries.shape[-1])
    scores = pairs.diagonal(dim1=-4, dim2=-3).movedim(-1, -3)
    weights = right_weights(scores, see(scores, attn_mask))
    return join(weights @ values), weights


# What is no attempt


@mutant(NAME, None)
def zeros(query, key, value, num_heads, attn_mask=None):
    lead, S_q, S_k = query.shape[:-2], query.shape[-2], key.shape[-2]
    return query.new_zeros(*lead, S_q, value.shape[-1]), query.new_zeros(*lead, num_heads, S_q, S_k)


@mutant(NAME, "equal weights for all keys")
def mean_of_values(query, key, value, num_heads, attn_mask=None):
    weights = query.new_ones(*query.shape[:-2], num_heads, query.shape[-2], key.shape[-2]) / key.shape[-2]
    return value.mean(-2, keepdim=True).expand(*query.shape[:-1], -1), weights


@mutant(NAME, "another result at every call")
def random_numbers(query, key, value, num_heads, attn_mask=None):
    lead, S_q, S_k = query.shape[:-2], query.shape[-2], key.shape[-2]
    shapes = ((S_q, value.shape[-1]), (num_heads, S_q, S_k))
    return tuple(torch.rand(*lead, *one, dtype=query.dtype, device=query.device) for one in shapes)


@mutant(NAME, "weights has the wrong shape")
def num_heads_ignored(query, key, value, num_heads, attn_mask=None):
    return right_heads(query, key, value, 1, attn_mask)


@mutant(NAME)
def values_cut_like_queries(query, key, value, num_heads, attn_mask=None):
    fit(query, key, value, num_heads)
    values = value.unflatten(-1, (num_heads, query.shape[-1] // num_heads))
    return right_heads(query, key, values.flatten(-2), num_heads, attn_mask)


@mutant(NAME, "weights do not sum to one")
def window_of_sixteen(query, key, value, num_heads, attn_mask=None):
    S_q, S_k = query.shape[-2], key.shape[-2]
    rows, columns = (torch.arange(length, device=query.device) for length in (S_q, S_k))
    near = (rows.unsqueeze(-1) - columns).abs() < 16
    return right_heads(query, key, value, num_heads, near if attn_mask is None else near & attn_mask)


@mutant(NAME, "output has the wrong shape")
def query_as_output(query, key, value, num_heads, attn_mask=None):
    return query, right_heads(query, key, value, num_heads, attn_mask)[1]


@mutant(NAME, "query has no effect")
def an_eye_of_weights(query, key, value, num_heads, attn_mask=None):
    weights = torch.eye(query.shape[-2], key.shape[-2], dtype=query.dtype, device=query.device).expand(
        *query.shape[:-2], num_heads, -1, -1
    )
    return join(weights @ cut(value, num_heads)), weights
