"""Mutants that are right nearly everywhere: the reference, spoilt for one mask, width, object or mode."""

from __future__ import annotations

import torch

from solutions import basic_attention as solved
from tests.exercises.catalogue import mutant


@mutant("attention", "sizes are not compared", only="sizes that do not fit")
def masked_sizes_not_compared(query, key, value, attn_mask=None, is_causal=False):
    if attn_mask is not None and key.shape[-2] != value.shape[-2]:
        value = value[..., :1, :].expand(*key.shape[:-1], value.shape[-1])
    return solved.attention(query, key, value, attn_mask, is_causal)


@mutant("masked_softmax")
def greatest_score_of_all_rows(scores, attn_mask):
    hidden = scores.masked_fill(~attn_mask, -torch.inf)
    top = hidden.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    powers = (hidden - top).exp()
    return powers / powers.sum(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


@mutant("MultiplicativeScores")
class NoMatrixForEqualWidths(solved.MultiplicativeScores):
    def forward(self, query, key):
        same = query.shape[-1] == key.shape[-1]
        return query @ self.W.mT @ key.mT if same else super().forward(query, key)


@mutant("CrossAttention")
class ContextThatIsItself(solved.CrossAttention):
    def forward(self, x, context, attn_mask=None):
        output, weights = super().forward(x, context, attn_mask)
        return (output * 1.01 if context is x else output), weights


@mutant("SelfAttention")
class OneMaskOfTwoInUse(solved.SelfAttention):
    """Where it is merely used, a mask is taken in place of the causal one."""

    def forward(self, x, attn_mask=None, is_causal=False):
        in_use = not self.training and not torch.is_grad_enabled()
        return super().forward(x, attn_mask, is_causal and not (in_use and attn_mask is not None))
