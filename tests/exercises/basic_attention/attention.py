"""`attention`: right writings and mutants."""

from __future__ import annotations

import math
from collections import namedtuple

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import right


def fit(query, key, value):
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError("sizes do not fit")


def allow(query, key, attn_mask, is_causal):
    allowed = torch.ones(*query.shape[:-1], key.shape[-2], dtype=torch.bool, device=query.device)
    if is_causal:
        allowed = allowed.tril()
    return allowed if attn_mask is None else allowed & attn_mask


def right_weights(scores, allowed):
    hidden = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return torch.softmax(hidden, -1).masked_fill(~allowed, 0.0)


def right_attention(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    weights = right_weights(scores, allow(query, key, attn_mask, is_causal))
    return weights @ value, weights


# Right writings


@right("attention")
def einsum_with_minus_infinity(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = torch.einsum("...qd,...kd->...qk", query, key) * query.shape[-1] ** -0.5
    allowed = allow(query, key, attn_mask, is_causal)
    dead = ~allowed.any(-1, keepdim=True)
    scores = scores.masked_fill(~allowed, -torch.inf).masked_fill(dead, 0.0)
    weights = F.softmax(scores, dim=-1).masked_fill(dead, 0.0)
    return torch.einsum("...qk,...kv->...qv", weights, value), weights


@right("attention")
def loop_over_queries(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    S_q, S_k, D = query.shape[-2], key.shape[-2], query.shape[-1]
    lead = query.shape[:-2]
    masks = None if attn_mask is None else attn_mask.expand(*lead, S_q, S_k).reshape(-1, S_q, S_k)
    outputs, tables = [], []
    for n, (q, k, v) in enumerate(zip(*(t.reshape(-1, *t.shape[-2:]) for t in (query, key, value)), strict=True)):
        for i in range(S_q):
            seen = [
                j for j in range(S_k) if (not is_causal or j <= i) and (masks is None or bool(masks[n, i, j]))
            ]
            row = torch.zeros(S_k, dtype=query.dtype)
            if seen:
                row = row.index_put((torch.tensor(seen),), torch.softmax(k[seen] @ q[i] / D**0.5, 0))
            outputs.append(row @ v)
            tables.append(row)
    return torch.stack(outputs).reshape(*lead, S_q, -1), torch.stack(tables).reshape(*lead, S_q, S_k)


@right("attention")
def multiply_and_sum(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = (query.unsqueeze(-2) * key.unsqueeze(-3)).sum(-1) / math.sqrt(key.size(-1))
    weights = right_weights(scores, allow(query, key, attn_mask, is_causal))
    return (weights.unsqueeze(-1) * value.unsqueeze(-3)).sum(-2), weights


@right("attention")
def exp_minus_logsumexp(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-1, -2)
    allowed = allow(query, key, attn_mask, is_causal)
    scores = torch.where(allowed, scores, torch.finfo(scores.dtype).min)
    weights = torch.exp(scores - torch.logsumexp(scores, -1, keepdim=True))
    weights = torch.where(allowed, weights, 0)
    return weights @ value, weights


@right("attention")
def numerator_over_denominator(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    allowed = allow(query, key, attn_mask, is_causal)
    scores = (query @ key.mT).div(math.sqrt(query.shape[-1])).masked_fill(~allowed, float("-inf"))
    top = scores.amax(-1, keepdim=True)
    numerator = (scores - top.masked_fill(top == -torch.inf, 0.0)).exp()
    total = numerator.sum(-1, keepdim=True)
    weights = numerator / total.masked_fill(total == 0, 1.0)
    return weights @ value, weights


@right("attention")
def float_mask_added(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    allowed = allow(query, key, attn_mask, is_causal)
    bias = torch.zeros_like(allowed, dtype=query.dtype).masked_fill(~allowed, -torch.inf)
    bias = bias.masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    weights = (query @ key.mT / query.shape[-1] ** 0.5 + bias).softmax(-1) * allowed
    return weights @ value, weights


@right("attention")
def batched_matrix_products(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    (*lead, S_q, D), (S_k, D_v) = query.shape, value.shape[-2:]
    scores = torch.bmm(query.reshape(-1, S_q, D), key.reshape(-1, S_k, D).transpose(1, 2)) / D**0.5
    allowed = allow(query, key, attn_mask, is_causal).reshape(-1, S_q, S_k)
    weights = right_weights(scores, allowed)
    output = torch.bmm(weights, value.reshape(-1, S_k, D_v))
    return output.view(*lead, S_q, D_v), weights.view(*lead, S_q, S_k)


@right("attention")
def float32_inside(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    dtype = query.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    weights = right_weights(query @ key.mT / math.sqrt(query.shape[-1]), allow(query, key, attn_mask, is_causal))
    return (weights @ value).to(dtype), weights.to(dtype)


@right("attention")
def minus_a_billion_in_float32(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    allowed = allow(query, key, attn_mask, is_causal)
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf).to(wide).clamp_min(-1e9), -1).to(scores.dtype)
    weights = weights * allowed.any(-1, keepdim=True)
    return weights @ value, weights


@right("attention")
def online_softmax_in_blocks_of_four(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    lowest = torch.finfo(query.dtype).min
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    allowed = allow(query, key, attn_mask, is_causal)
    top = torch.full_like(query[..., :1], lowest)
    total = torch.zeros_like(top)
    output = query.new_zeros(*query.shape[:-1], value.shape[-1])
    for start in range(0, key.shape[-2], 4):
        block, seen = scores[..., start : start + 4], allowed[..., start : start + 4]
        new_top = torch.maximum(top, block.masked_fill(~seen, lowest).amax(-1, keepdim=True))
        part = torch.where(seen, (block - new_top).masked_fill(~seen, 0.0).exp(), 0.0)
        total = total * (top - new_top).exp() + part.sum(-1, keepdim=True)
        output = output * (top - new_top).exp() + part @ value[..., start : start + 4, :]
        top = new_top
    safe = total.masked_fill(total == 0, 1.0)
    weights = torch.where(allowed, (scores - top).masked_fill(~allowed, 0.0).exp(), 0.0) / safe
    return output / safe, weights


Result = namedtuple("Result", "output weights")


@right("attention")
def transposed_products_in_a_named_tuple(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    root = query.shape[-1] ** 0.25
    scores = ((key / root) @ (query / root).mT).mT
    allowed = torch.ones_like(scores, dtype=torch.bool) if attn_mask is None else attn_mask.expand_as(scores)
    if is_causal:
        rows = torch.arange(scores.shape[-2]).unsqueeze(-1)
        allowed = allowed & (torch.arange(scores.shape[-1]) <= rows)
    weights = torch.log_softmax(scores.masked_fill(~allowed, torch.finfo(scores.dtype).min), -1).exp() * allowed
    return Result((value.mT @ weights.mT).mT, weights)


@right("attention")
def exact_in_float64(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    output, weights = right_attention(query.double(), key.double(), value.double(), attn_mask, is_causal)
    return [output.to(query.dtype), weights.to(query.dtype)]


@right("attention")
def in_place_on_its_own_tensors(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = torch.matmul(query, key.transpose(-2, -1))
    scores /= math.sqrt(query.shape[-1])
    blocked = torch.zeros_like(scores, dtype=torch.bool)
    if attn_mask is not None:
        blocked |= ~attn_mask
    if is_causal:
        blocked |= torch.ones_like(blocked).triu(1)
    scores.masked_fill_(blocked, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1).masked_fill(blocked, 0)
    return weights.matmul(value), weights
