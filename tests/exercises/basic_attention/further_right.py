"""Right writings of other kinds: gradients by hand, differences of pairs, one element at a time."""

from __future__ import annotations

import torch
from torch import nn

from tests.exercises.basic_attention.attention import fit, right_attention
from tests.exercises.basic_attention.modules import RightSelf
from tests.exercises.catalogue import right


class Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, dim):
        weights = (scores - scores.amax(dim, keepdim=True)).exp()
        weights = weights / weights.sum(dim, keepdim=True)
        ctx.save_for_backward(weights)
        ctx.dim = dim
        return weights

    @staticmethod
    def backward(ctx, gradient):
        (weights,) = ctx.saved_tensors
        return weights * (gradient - (gradient * weights).sum(ctx.dim, keepdim=True)), None


@right("softmax")
def gradient_by_hand(scores, dim=-1):
    return Softmax.apply(scores, dim)


@right("softmax")
def differences_of_all_pairs(scores, dim=-1):
    rows = scores.movedim(dim, -1).to(torch.promote_types(scores.dtype, torch.float32))
    gaps = rows.unsqueeze(-2) - rows.unsqueeze(-1)  # [..., i, j]: how far score j lies above score i
    gaps = gaps.masked_fill((rows == -torch.inf).unsqueeze(-1), torch.inf)
    return (1 / gaps.exp().sum(-1)).movedim(-1, dim).to(scores.dtype)


@right("softmax")
def row_by_row_through_vmap(scores, dim=-1):
    def one(row):
        numerator = (row - row.max()).exp()
        return numerator / numerator.sum()

    rows = scores.movedim(dim, -1)
    return torch.vmap(one)(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape).movedim(-1, dim)


@right("masked_softmax")
def allowed_scores_alone(scores, attn_mask):
    width = scores.shape[-1]
    rows, masks = scores.reshape(-1, width), attn_mask.expand_as(scores).reshape(-1, width)
    weights = []
    for row, mask in zip(rows, masks, strict=True):
        (places,) = mask.nonzero(as_tuple=True)
        share = torch.softmax(row[places], 0) if len(places) else row[:0]
        weights.append(torch.zeros_like(row).index_put((places,), share))
    return torch.stack(weights).reshape(scores.shape)


@right("cosine_scores")
def norms_that_cannot_overflow(query, key, eps=1e-8):
    def unit(vectors):
        largest = vectors.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
        norm = largest * (vectors / largest).square().sum(-1, keepdim=True).sqrt()
        return vectors / norm.clamp_min(eps)

    return unit(query) @ unit(key).mT


@right("scaled_dot_scores")
def root_in_float64(query, key):
    return query @ key.mT / torch.sqrt(torch.tensor(query.shape[-1], dtype=torch.float64))


@right("attention")
def one_element_at_a_time(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    if query.dim() == 2:
        return right_attention(query, key, value, attn_mask, is_causal)
    masks = [None] * len(query)
    if attn_mask is not None:
        masks = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    parts = [one_element_at_a_time(*given, is_causal) for given in zip(query, key, value, masks, strict=True)]
    return torch.stack([output for output, _ in parts]), torch.stack([weights for _, weights in parts])


@right("MultiplicativeScores")
class StartsAtZeroAndLearns(nn.Module):
    def __init__(self, d_query, d_key):
        super().__init__()
        self.W = nn.Parameter(torch.zeros(d_query, d_key))

    def forward(self, query, key):
        return query @ (self.W @ key.mT)


@right("SelfAttention")
class LastLayerStartsAtZero(RightSelf):
    def __init__(self, d_model):
        super().__init__(d_model)
        nn.init.zeros_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)


@right("SelfAttention")
class TriangleThatGrows(RightSelf):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.triangle = torch.ones(16, 16, dtype=torch.bool).tril()

    def forward(self, x, attn_mask=None, is_causal=False):
        S = x.shape[-2]
        if len(self.triangle) < S:
            self.triangle = torch.ones(S, S, dtype=torch.bool).tril()
        if is_causal:
            triangle = self.triangle[:S, :S].to(x.device)
            attn_mask = triangle if attn_mask is None else triangle & attn_mask
        return super().forward(x, attn_mask)
