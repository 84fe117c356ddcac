"""`MultiHeadAttention`: mutants that go wrong in what comes back, and how it comes about."""

from __future__ import annotations

import torch

from tests.exercises.basic_attention.attention import right_weights
from tests.exercises.multi_head_attention.function import join
from tests.exercises.multi_head_attention.modules import (
    hand_out,
    together,
    variant,
)

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
