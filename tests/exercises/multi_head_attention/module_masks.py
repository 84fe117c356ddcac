"""`MultiHeadAttention`: mutants that go wrong in the masks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant
from tests.exercises.multi_head_attention.function import cut, join
from tests.exercises.multi_head_attention.modules import (
    NAME,
    ByTheBook,
    together,
    variant,
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


@mutant(NAME, "wrong gradient")
class PastDetached(CausalAlone):
    def change(self, queries, keys, scores, later):
        return scores.detach().masked_fill(later, torch.finfo(scores.dtype).min)
