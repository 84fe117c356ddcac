"""`chunked_attention`: mutants."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant
from tests.exercises.efficient_attention.chunked import NAME, blocks_of_queries, refuse, wide
from tests.exercises.efficient_attention.lazy import register


def triangle(rows, columns, start, shape):
    return columns <= rows


def shifted(shift):
    return lambda rows, columns, start, shape: columns <= rows + shift


def variant(
    name,
    named,
    *,
    only=None,
    shrink_sum=True,
    shrink_output=True,
    read=lambda n, count: True,
    new_maximum=torch.maximum,
    divide=True,
    lse=lambda m, total: m + total.log(),
    scale=lambda D: D**-0.5,
    allow=triangle,
    always=False,
    pad=False,
    whole=False,
    check=refuse,
    arrive=lambda x: x.to(wide(x)),
    leave=lambda output, lse, query: (output.to(query.dtype), lse.to(query.dtype)),
    table=lambda S_q, S_k: None,
    hide=-torch.inf,
    start=-1e30,
):
    """A mutant with one step exchanged."""

    def wrong(query, key, value, block_size, is_causal=False):
        check(block_size)
        S_q, S_k = query.shape[-2], key.shape[-2]
        table(S_q, S_k)
        q, k, v = arrive(query), arrive(key), arrive(value)
        if pad:
            k, v = (F.pad(x, (0, 0, 0, -S_k % block_size)) for x in (k, v))
        if whole:
            k, v = (x[..., : S_k // block_size * block_size, :] for x in (k, v))
        m = q.new_full((*q.shape[:-1], 1), start)
        total, output = torch.zeros_like(m), q.new_zeros(*q.shape[:-1], v.shape[-1])
        starts = range(0, k.shape[-2], block_size)
        for n, first in enumerate(starts):
            if not read(n, len(starts)):
                continue
            keys, values = k[..., first : first + block_size, :], v[..., first : first + block_size, :]
            scores = q @ keys.mT * scale(q.shape[-1])
            if is_causal or always:
                columns = first + torch.arange(keys.shape[-2], device=q.device)
                allowed = allow(
                    torch.arange(S_q, device=q.device)[:, None], columns, first, (S_q, S_k, block_size)
                )
                scores = scores.masked_fill(~allowed, hide)
            new = new_maximum(m, scores.amax(-1, keepdim=True))
            p, shrink = torch.exp(scores - new), torch.exp(m - new)
            total = total * (shrink if shrink_sum else 1.0) + p.sum(-1, keepdim=True)
            output = output * (shrink if shrink_output else 1.0) + p @ values
            m = new
        return leave(output / total if divide else output, lse(m, total).squeeze(-1), query)

    register(NAME, name, named, wrong, only)


def right_lse(query, key, value, block_size, is_causal=False):
    return blocks_of_queries(query, key, value, block_size, is_causal)[1]


variant("no_rescale", "nothing rescaled", shrink_sum=False, shrink_output=False)
variant("last_block_forgotten", None, read=lambda n, count: n < count - 1)
variant("tail_of_zeros", "tail of the last block not masked", pad=True)
variant(
    "columns_of_the_block",
    "causal mask counted from the start of the block",
    allow=lambda rows, columns, start, shape: columns - start <= rows,
)
variant(
    "diagonal_skipped",
    None,
    allow=lambda rows, columns, start, shape: columns // shape[2] < rows // shape[2],
)
variant(
    "stale_maximum",
    "overflows or underflows for large scores",
    new_maximum=lambda old, new: torch.where(old == -1e30, new, old),
)
variant("any_size_will_do", "block_size is not checked", check=lambda block_size: None, only="no block size")
variant(
    "a_mask_of_all_pairs",
    "makes the whole S_q x S_k table",
    table=lambda S_q, S_k: torch.ones(S_q, S_k, dtype=torch.bool).tril(),
    only="linear memory",
)
variant("mask_of_minus_ten_thousand", "mask value is not low enough", hide=-1e4)


@mutant(NAME, "makes the whole S_q x S_k table", only="linear memory")
def dense(query, key, value, block_size, is_causal=False):
    """No blocks at all."""
    refuse(block_size)
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


@mutant(NAME, "makes the whole S_q x S_k table")
def blocks_joined_in_the_end(query, key, value, block_size, is_causal=False):
    """Scores made block by block, and then joined."""
    refuse(block_size)
    blocks = [query @ keys.mT / query.shape[-1] ** 0.5 for keys in key.split(block_size, -2)]
    scores = torch.cat(blocks, -1)
    if is_causal:
        rows = torch.arange(scores.shape[-2], device=scores.device)[:, None]
        scores = scores.masked_fill(torch.arange(scores.shape[-1], device=scores.device) > rows, -torch.inf)
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


@mutant(NAME, "does too much work")
def scores_computed_twice(query, key, value, block_size, is_causal=False):
    """One pass for the maximum, another one for the rest: the scores are computed twice."""
    refuse(block_size)
    q = query * query.shape[-1] ** -0.5
    rows = torch.arange(q.shape[-2], device=q.device)[:, None]

    def scores_of(start):
        scores = q @ key[..., start : start + block_size, :].mT
        if is_causal:
            scores = scores.masked_fill(
                start + torch.arange(scores.shape[-1], device=q.device) > rows, -torch.inf
            )
        return scores

    starts = range(0, key.shape[-2], block_size)
    m = functools.reduce(torch.maximum, (scores_of(start).amax(-1, keepdim=True) for start in starts))
    parts = [(scores_of(start) - m).exp() @ value[..., start : start + block_size, :] for start in starts]
    total = sum((scores_of(start) - m).exp().sum(-1, keepdim=True) for start in starts)
    return sum(parts) / total, (m + total.log()).squeeze(-1)


@mutant(NAME, None)
def each_block_alone(query, key, value, block_size, is_causal=False):
    refuse(block_size)
    output = 0.0
    for start in range(0, key.shape[-2], block_size):
        keys, values = key[..., start : start + block_size, :], value[..., start : start + block_size, :]
        scores = query @ keys.mT / query.shape[-1] ** 0.5
        output = output + scores.softmax(-1) @ values
    return output, right_lse(query, key, value, block_size, is_causal)


@mutant(NAME)
def exponentials_without_maximum(query, key, value, block_size, is_causal=False):
    refuse(block_size)
    q, k, v = (x.to(wide(query)) for x in (query, key, value))
    output = total = 0.0
    rows = torch.arange(q.shape[-2], device=q.device)[:, None]
    for start in range(0, k.shape[-2], block_size):
        p = (q @ k[..., start : start + block_size, :].mT / q.shape[-1] ** 0.5).exp()
        if is_causal:
            p = p * (start + torch.arange(p.shape[-1], device=q.device) <= rows)
        output = output + p @ v[..., start : start + block_size, :]
        total = total + p.sum(-1, keepdim=True)
    return (output / total).to(query.dtype), total.log().squeeze(-1).to(query.dtype)


@mutant(NAME, "uses a forbidden function", only="own work")
def built_in(query, key, value, block_size, is_causal=False):
    """The built-in kernel where the whole table is small anyway."""
    refuse(block_size)
    if query.shape[-2] > 60:
        return blocks_of_queries(query, key, value, block_size, is_causal)
    output = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal)
    return output, right_lse(query, key, value, block_size, is_causal)


@mutant(NAME)
def mean_of_the_values(query, key, value, block_size, is_causal=False):
    refuse(block_size)
    mean = value.mean(-2, keepdim=True)
    return mean.expand(*query.shape[:-1], value.shape[-1]), query[..., 0] * 0


@mutant(NAME, "keeps every block", only="linear memory")
def tiles_kept_in_a_list(query, key, value, block_size, is_causal=False):
    """No tensor is large, and all of them together are the table."""
    refuse(block_size)
    rows = torch.arange(query.shape[-2], device=query.device)[:, None]
    tiles = []
    for start in range(0, key.shape[-2], block_size):
        scores = query @ key[..., start : start + block_size, :].mT / query.shape[-1] ** 0.5
        if is_causal:
            scores = scores.masked_fill(
                start + torch.arange(scores.shape[-1], device=query.device) > rows, -torch.inf
            )
        tiles.append(scores.to(torch.promote_types(scores.dtype, torch.float32)))
    sums = functools.reduce(torch.logaddexp, [tile.logsumexp(-1) for tile in tiles])
    blocks = zip(tiles, value.to(sums.dtype).split(block_size, -2), strict=True)
    output = sum((tile - sums[..., None]).exp() @ values for tile, values in blocks)
    return output.to(query.dtype), sums.to(query.dtype)
