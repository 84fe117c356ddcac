"""`chunked_attention`: right writings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import right

NAME = "chunked_attention"


def wide(query):
    return torch.promote_types(query.dtype, torch.float32)


def refuse(block_size):
    if block_size < 1:
        raise ValueError("block_size must be at least 1")


@right(NAME)
def blocks_of_keys(query, key, value, block_size, is_causal=False):
    """Lists, and a maximum in place of -inf at the start."""
    refuse(block_size)
    q, k, v = (x.to(wide(query)) for x in (query, key, value))
    m = total = output = None
    rows = torch.arange(q.shape[-2], device=q.device)[:, None]
    for start in range(0, k.shape[-2], block_size):
        stop = min(start + block_size, k.shape[-2])
        scores = torch.einsum("...qd,...kd->...qk", q, k[..., start:stop, :]) / math.sqrt(q.shape[-1])
        if is_causal:
            scores = torch.where(torch.arange(start, stop, device=q.device) <= rows, scores, -torch.inf)
        top = scores.max(-1, keepdim=True).values
        if m is None:
            p = (scores - top).exp()
            m, total, output = top, p.sum(-1, keepdim=True), p @ v[..., start:stop, :]
            continue
        new = torch.maximum(m, top)
        p, shrink = (scores - new).exp(), (m - new).exp()
        m, total = new, total * shrink + p.sum(-1, keepdim=True)
        output = output * shrink + torch.einsum("...qk,...kd->...qd", p, v[..., start:stop, :])
    return (output / total).to(query.dtype), (m + total.log())[..., 0].to(query.dtype)


@right(NAME)
def tiles_of_both(query, key, value, block_size, is_causal=False):
    """Blocks of queries, too; blocks wholly in the future are skipped; whole blocks merged by their log-sum-exp."""
    refuse(block_size)
    q, k, v = (x.to(wide(query)) for x in (query, key, value))
    outputs, sums = [], []
    for first in range(0, q.shape[-2], block_size):
        block = q[..., first : first + block_size, :] * q.shape[-1] ** -0.5
        output = lse = None
        for start in range(0, k.shape[-2], block_size):
            if is_causal and start >= first + block.shape[-2]:
                break
            keys, values = k[..., start : start + block_size, :], v[..., start : start + block_size, :]
            scores = block @ keys.transpose(-2, -1)
            if is_causal:
                hidden = torch.ones_like(scores, dtype=torch.bool).triu(first - start + 1)
                scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
            part, part_lse = scores.softmax(-1) @ values, scores.logsumexp(-1, keepdim=True)
            if output is None:
                output, lse = part, part_lse
            else:
                both = torch.logaddexp(lse, part_lse)
                output = output * (lse - both).exp() + part * (part_lse - both).exp()
                lse = both
        outputs.append(output)
        sums.append(lse)
    return torch.cat(outputs, -2).to(query.dtype), torch.cat(sums, -2).squeeze(-1).to(query.dtype)


@right(NAME)
def blocks_of_queries(query, key, value, block_size, is_causal=False):
    """A block of queries against all keys, written out: rows are whole, so no running numbers are needed."""
    refuse(block_size)
    outputs, sums = [], []
    S_q, S_k = query.shape[-2], key.shape[-2]
    for start in range(0, S_q, block_size):
        scores = query[..., start : start + block_size, :] @ key.mT * query.shape[-1] ** -0.5
        if is_causal:
            rows = torch.arange(start, min(start + block_size, S_q), device=query.device).unsqueeze(-1)
            scores = scores.masked_fill(torch.arange(S_k, device=query.device) > rows, -torch.inf)
        outputs.append(F.softmax(scores, -1) @ value)
        sums.append(scores.logsumexp(-1))
    return torch.cat(outputs, -2), torch.cat(sums, -1)


@right(NAME)
def padded_to_whole_blocks(query, key, value, block_size, is_causal=False):
    """Keys filled up to whole blocks, what was filled in hidden."""
    refuse(block_size)
    S_q, S_k = query.shape[-2], key.shape[-2]
    size = min(block_size, S_k)
    k, v = (F.pad(x, (0, 0, 0, -S_k % size)).to(wide(query)) for x in (key, value))
    q = query.to(wide(query)) / query.shape[-1] ** 0.5
    m = q.new_full((*q.shape[:-1], 1), torch.finfo(q.dtype).min)
    total, output = torch.zeros_like(m), q.new_zeros(*q.shape[:-1], v.shape[-1])
    for n, (keys, values) in enumerate(zip(k.split(size, -2), v.split(size, -2), strict=True)):
        columns = n * size + torch.arange(size, device=q.device)
        allowed = (columns < S_k).expand(S_q, size)
        if is_causal:
            allowed = allowed & (columns <= torch.arange(S_q, device=q.device)[:, None])
        scores = (q @ keys.mT).masked_fill(~allowed, -torch.inf)
        new = torch.maximum(m, scores.amax(-1, keepdim=True))
        p = torch.exp(scores - new)
        total = total * torch.exp(m - new) + p.sum(-1, keepdim=True)
        output = output * torch.exp(m - new) + p @ values
        m = new
    return (output / total).to(query.dtype), (m + total.log()).squeeze(-1).to(query.dtype)


@right(NAME)
def in_its_own_precision(query, key, value, block_size, is_causal=False):
    """Running numbers in the dtype of the inputs, -inf and all."""
    refuse(block_size)
    m = query.new_full((*query.shape[:-1], 1), -torch.inf)
    total, output = torch.zeros_like(m), query.new_zeros(*query.shape[:-1], value.shape[-1])
    for start in range(0, key.shape[-2], block_size):
        keys, values = key[..., start : start + block_size, :], value[..., start : start + block_size, :]
        scores = query @ keys.mT / query.shape[-1] ** 0.5
        if is_causal:
            future = torch.ones_like(scores, dtype=torch.bool).triu(1 - start)
            scores = scores.masked_fill(future, -torch.inf)
        new = torch.maximum(m, scores.amax(-1, keepdim=True))
        shrink, p = (m - new).exp(), (scores - new).exp()
        total, output, m = total * shrink + p.sum(-1, keepdim=True), output * shrink + p @ values, new
    return output / total, (m + total.log()).squeeze(-1)
