"""Mutants of a second kind: limits on sizes, masks of fewer axes, low scores, start values, slips in one line."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.basic_attention.attention import allow, fit, right_attention, right_weights
from tests.exercises.basic_attention.learned_scores import Additive, Multiplicative
from tests.exercises.basic_attention.modules import RightCross, RightSelf
from tests.exercises.catalogue import mutant

# softmax


class LastAxisBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, dim):
        weights = (scores - scores.amax(dim, keepdim=True)).exp()
        weights = weights / weights.sum(dim, keepdim=True)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx, gradient):
        (weights,) = ctx.saved_tensors
        return weights * (gradient - (gradient * weights).sum(-1, keepdim=True)), None


@mutant("softmax", "wrong gradient")
def backward_along_the_last_axis(scores, dim=-1):
    return LastAxisBackwards.apply(scores, dim)


@mutant("softmax", "rows cut out with reshape")
def rows_by_reshape(scores, dim=-1):
    rows = scores.reshape(-1, scores.shape[dim])
    numerator = (rows - rows.amax(-1, keepdim=True)).exp()
    return (numerator / numerator.sum(-1, keepdim=True)).reshape(scores.shape)


@mutant("softmax", "overflows or underflows for large scores")
def shifted_by_the_largest_size(scores, dim=-1):
    numerator = (scores - scores.abs().amax(dim, keepdim=True)).exp()
    return numerator / numerator.sum(dim, keepdim=True)


@mutant("softmax")
def float16_in_place_of_bfloat16(scores, dim=-1):
    given = scores.half() if scores.dtype == torch.bfloat16 else scores
    numerator = (given - given.amax(dim, keepdim=True)).exp()
    return (numerator / numerator.sum(dim, keepdim=True)).to(scores.dtype)


@mutant("softmax", "an argument that it does not take")
def axis_for_dim(scores, axis=-1):
    numerator = (scores - scores.amax(axis, keepdim=True)).exp()
    return numerator / numerator.sum(axis, keepdim=True)


# masked_softmax


@mutant("masked_softmax", "mask is not broadcast")
def heads_put_into_three_axes(scores, attn_mask):
    if attn_mask.dim() == 3 and scores.dim() == 4:
        attn_mask = attn_mask.unsqueeze(1)
    return right_weights(scores, attn_mask.expand_as(scores))


@mutant("masked_softmax")
def lowest_number_added(scores, attn_mask):
    bias = (~attn_mask).to(scores.dtype) * torch.finfo(scores.dtype).min
    return torch.softmax(scores + bias, -1) * attn_mask


# scores


@mutant("dot_scores")
def kept_within_what_float16_holds(query, key):
    return (query @ key.mT).clamp(-65_504, 65_504)


@mutant("scaled_dot_scores")
def clipped_scores(query, key):
    return (query @ key.mT / math.sqrt(query.shape[-1])).clamp(-50, 50)


@mutant("scaled_dot_scores", "half of D where the root is meant")
def power_before_division(query, key):
    return query @ key.mT / query.shape[-1] ** 1 / 2


@mutant("scaled_dot_scores", "less precise than its dtype")
def root_of_a_float32_tensor(query, key):
    return query @ key.mT / torch.sqrt(torch.tensor(query.shape[-1]))


@mutant("cosine_scores", "eps raised first")
def no_eps_below_a_ten_thousandth(query, key, eps=1e-8):
    return F.normalize(query, dim=-1, eps=max(eps, 1e-4)) @ F.normalize(key, dim=-1, eps=max(eps, 1e-4)).mT


# Modules for scores


@mutant("AdditiveScores")
class OneProjectionWhereWidthsAgree(Additive):
    def forward(self, query, key):
        W_q = self.W_k if query.shape[-1] == key.shape[-1] else self.W_q
        hidden = torch.tanh(W_q(query).unsqueeze(-2) + self.W_k(key).unsqueeze(-3))
        return self.v(hidden).squeeze(-1)


@mutant("AdditiveScores")
class TanhByHand(Additive):
    def forward(self, query, key):
        inside = self.W_q(query).unsqueeze(-2) + self.W_k(key).unsqueeze(-3)
        return self.v((inside.exp() - (-inside).exp()) / (inside.exp() + (-inside).exp())).squeeze(-1)


@mutant("AdditiveScores", "unusable start values", only="parameters")
class StartsAtZero(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        for one in self.parameters():
            nn.init.zeros_(one)


@mutant("MultiplicativeScores", "unusable start values", only="parameters")
class StartsWithoutNumbers(Multiplicative):
    def __init__(self, d_query, d_key):
        super().__init__(d_query, d_key)
        nn.init.constant_(self.W, torch.nan)


@mutant("MultiplicativeScores", "depends on train() or eval()")
class SmallerInUse(Multiplicative):
    def forward(self, query, key):
        return super().forward(query, key) * (1.0 if self.training else 0.9)


# attention


def triangle_of(size):
    return torch.ones(size, size, dtype=torch.bool).tril()


TRIANGLE = triangle_of(1024)


@mutant("attention")
def triangle_made_once(query, key, value, attn_mask=None, is_causal=False):
    allowed = allow(query, key, attn_mask, False)
    if is_causal:
        allowed = allowed & TRIANGLE[: query.shape[-2], : key.shape[-2]]
    return right_attention(query, key, value, allowed, False)


@mutant("attention")
def masks_joined_in_place(query, key, value, attn_mask=None, is_causal=False):
    if is_causal and attn_mask is not None:
        attn_mask &= torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        is_causal = False
    return right_attention(query, key, value, attn_mask, is_causal)


@mutant("attention", "output has the wrong shape")
def three_axes_without_heads(query, key, value, attn_mask=None, is_causal=False):
    if attn_mask is not None and attn_mask.dim() == 3 and query.dim() == 4:
        attn_mask = attn_mask.unsqueeze(1)
    return right_attention(query, key, value, attn_mask, is_causal)


@mutant("attention", "sizes are not compared", only="sizes that do not fit")
def whatever_einsum_refuses(query, key, value, attn_mask=None, is_causal=False):
    if query.shape[-1] != key.shape[-1]:
        raise ValueError("query and key differ in width")
    scores = torch.einsum("...qd,...kd->...qk", query, key) / math.sqrt(query.shape[-1])
    try:
        weights = right_weights(scores, allow(query, key, attn_mask, is_causal))
        return torch.einsum("...qk,...kv->...qv", weights, value), weights
    except RuntimeError as error:
        raise ValueError(str(error)) from error


@mutant("attention", "sizes are not compared", only="sizes that do not fit")
def what_is_too_much_cut_off(query, key, value, attn_mask=None, is_causal=False):
    if query.shape[-1] > key.shape[-1] or key.shape[-2] > value.shape[-2]:
        raise ValueError("sizes do not fit")
    key, value = key[..., : query.shape[-1]], value[..., : key.shape[-2], :]
    return right_attention(query, key, value, attn_mask, is_causal)


@mutant("attention")
def low_and_then_zero(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    allowed = allow(query, key, attn_mask, is_causal)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    weights = torch.softmax(scores.masked_fill(~allowed, -1e4), -1) * allowed
    return weights @ value, weights


def causal_fill(fill):
    """The future filled with a number, what attn_mask forbids with the lowest."""

    def attention(query, key, value, attn_mask=None, is_causal=False):
        fit(query, key, value)
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        if is_causal:
            scores = scores.masked_fill(~allow(query, key, None, True), fill)
        allowed = allow(query, key, attn_mask, is_causal)
        hidden = scores if attn_mask is None else scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        weights = torch.softmax(hidden, -1) * allowed
        return weights @ value, weights

    return attention


future_at_minus_100 = causal_fill(-100.0)
future_at_minus_a_billion = causal_fill(-1e9)
future_at_minus_100.__name__ = "future_at_minus_100"
future_at_minus_a_billion.__name__ = "future_at_minus_a_billion"
mutant("attention")(future_at_minus_100)
mutant("attention", "mask value does not fit the dtype")(future_at_minus_a_billion)


@mutant("attention")
def triangle_in_float32(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if is_causal:
        scores = scores + torch.full(scores.shape[-2:], -1e9).triu(1)
    weights = right_weights(scores, allow(query, key, attn_mask, is_causal))
    return weights.to(value.dtype) @ value, weights


@mutant("attention")
def float32_root(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = query @ key.mT / torch.sqrt(torch.tensor(query.shape[-1], dtype=torch.float32))
    weights = right_weights(scores, allow(query, key, attn_mask, is_causal))
    return weights @ value, weights


@mutant("attention", "an argument that it does not take")
def mask_by_another_name(query, key, value, mask=None, is_causal=False):
    return right_attention(query, key, value, mask, is_causal)


# SelfAttention and CrossAttention


@mutant("SelfAttention")
class TriangleTooSmall(RightSelf):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.register_buffer("triangle", triangle_of(1024), persistent=False)

    def forward(self, x, attn_mask=None, is_causal=False):
        if is_causal:
            triangle = self.triangle[: x.shape[-2], : x.shape[-2]]
            attn_mask = triangle if attn_mask is None else attn_mask & triangle
        return super().forward(x, attn_mask)


@mutant("SelfAttention")
class SeesTheFutureInEval(RightSelf):
    def forward(self, x, attn_mask=None, is_causal=False):
        return super().forward(x, attn_mask, is_causal and self.training)


@mutant("SelfAttention")
class JoinsMasksInPlace(RightSelf):
    def forward(self, x, attn_mask=None, is_causal=False):
        if is_causal and attn_mask is not None:
            attn_mask &= triangle_of(x.shape[-2])
        return super().forward(x, attn_mask, is_causal)


@mutant("SelfAttention", "does not work as it is made", only="parameters")
class MadeInFloat64(RightSelf):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.double()


@mutant("SelfAttention", "a row that allows no key misses the output layer's bias")
class DeadRowsWithoutBias(RightSelf):
    def forward(self, x, attn_mask=None, is_causal=False):
        output, weights = super().forward(x, attn_mask, is_causal)
        return output * (weights.sum(-1, keepdim=True) > 0), weights


class FutureFilled(RightSelf):
    fill = 0.0

    def forward(self, x, attn_mask=None, is_causal=False):
        query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        output, weights = causal_fill(self.fill)(query, key, value, attn_mask, is_causal)
        return self.out_proj(output), weights


@mutant("SelfAttention")
class FutureAtMinus100(FutureFilled):
    fill = -100.0


@mutant("SelfAttention", "mask value does not fit the dtype")
class FutureAtMinusABillion(FutureFilled):
    fill = -1e9


@mutant("SelfAttention")
class ThreeAxesWithoutHeads(RightSelf):
    def forward(self, x, attn_mask=None, is_causal=False):
        if attn_mask is not None and attn_mask.dim() == 3 and x.dim() == 4:
            attn_mask = attn_mask.unsqueeze(1)
        return super().forward(x, attn_mask, is_causal)


@mutant("CrossAttention")
class ContextMaskWithoutHeads(RightCross):
    def forward(self, x, context, attn_mask=None):
        if attn_mask is not None and attn_mask.dim() == 3 and x.dim() == 4:
            attn_mask = attn_mask.unsqueeze(1)
        return super().forward(x, context, attn_mask)


@mutant("CrossAttention")
class LowAndThenZero(RightCross):
    def forward(self, x, context, attn_mask=None):
        query, key, value = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        output, weights = low_and_then_zero(query, key, value, attn_mask)
        return self.out_proj(output), weights


@mutant("SelfAttention")
class KeptByItsInput(RightSelf):
    """What it gave for the same numbers it gives again, whatever its weights are by then."""

    def forward(self, x, attn_mask=None, is_causal=False):
        if torch.is_grad_enabled():
            return super().forward(x, attn_mask, is_causal)
        mask = None if attn_mask is None else (attn_mask.shape, *attn_mask.flatten().tolist())
        key = x.dtype, x.shape, *x.flatten().tolist(), mask, is_causal
        kept = self.__dict__.setdefault("kept", {})
        if key not in kept:
            kept[key] = super().forward(x, attn_mask, is_causal)
        return tuple(one.clone() for one in kept[key])
