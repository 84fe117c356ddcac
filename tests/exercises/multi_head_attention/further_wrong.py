"""`multi_head_attention`: mutants of a second kind."""

from __future__ import annotations

import math

import torch

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
