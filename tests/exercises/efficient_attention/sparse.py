"""`block_sparse_attention`: right writings and mutants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.lazy import register

NAME = "block_sparse_attention"


def refuse(query, key, block_mask, block_size):
    wanted = (math.ceil(query.shape[-2] / block_size), math.ceil(key.shape[-2] / block_size))
    if tuple(block_mask.shape) != wanted:
        raise ValueError("block_mask does not fit")


@right(NAME)
def allowed_blocks_joined(query, key, value, block_mask, block_size):
    refuse(query, key, block_mask, block_size)
    keys, values = key.split(block_size, -2), value.split(block_size, -2)
    outputs = []
    for i, block in enumerate(query.split(block_size, -2)):
        columns = block_mask[i].nonzero().flatten().tolist()
        if not columns:
            outputs.append(block.new_zeros(*block.shape[:-1], value.shape[-1]))
            continue
        k, v = (torch.cat([many[j] for j in columns], -2) for many in (keys, values))
        outputs.append(F.softmax(block @ k.mT / query.shape[-1] ** 0.5, -1) @ v)
    return torch.cat(outputs, -2)


@right(NAME)
def tile_by_tile(query, key, value, block_mask, block_size):
    """Running numbers over the allowed tiles of a row, in float32 at least."""
    refuse(query, key, block_mask, block_size)
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k, v = (x.to(wide) for x in (query, key, value))
    rows = []
    for i in range(block_mask.shape[0]):
        block = q[..., i * block_size : (i + 1) * block_size, :]
        m = block.new_full((*block.shape[:-1], 1), torch.finfo(wide).min)
        total, output = torch.zeros_like(m), block.new_zeros(*block.shape[:-1], v.shape[-1])
        for j in range(block_mask.shape[1]):
            if not block_mask[i, j]:
                continue
            part = slice(j * block_size, (j + 1) * block_size)
            scores = torch.einsum("...qd,...kd->...qk", block, k[..., part, :]) * q.shape[-1] ** -0.5
            new = torch.maximum(m, scores.amax(-1, keepdim=True))
            p = (scores - new).exp()
            total = total * (m - new).exp() + p.sum(-1, keepdim=True)
            output = output * (m - new).exp() + p @ v[..., part, :]
            m = new
        rows.append(output / total.masked_fill(total == 0, 1.0))
    return torch.cat(rows, -2).to(query.dtype)


@right(NAME)
def all_tiles_at_once(query, key, value, block_mask, block_size):
    """The allowed tiles as one batch, merged by their maxima and sums."""
    refuse(query, key, block_mask, block_size)
    wide = torch.promote_types(query.dtype, torch.float32)
    (S_q, D), S_k = query.shape[-2:], key.shape[-2]
    q = F.pad(query, (0, 0, 0, -S_q % block_size)).unflatten(-2, (-1, block_size)).to(wide)
    k, v = (
        F.pad(x, (0, 0, 0, -S_k % block_size)).unflatten(-2, (-1, block_size)).to(wide) for x in (key, value)
    )
    i, j = block_mask.nonzero(as_tuple=True)
    scores = q[..., i, :, :] @ k[..., j, :, :].mT / D**0.5  # (..., tiles, b, b)
    columns = j[:, None, None] * block_size + torch.arange(block_size, device=j.device)
    scores = scores.masked_fill(columns >= S_k, -torch.inf)
    row_of = i.view(-1, 1).expand(-1, block_size)
    top = scores.amax(-1)  # (..., tiles, b)
    start = top.new_full((*top.shape[:-2], block_mask.shape[0], block_size), -1e30)
    best = start.scatter_reduce(-2, row_of.expand_as(top), top.detach(), "amax")
    p = (scores - best.gather(-2, row_of.expand_as(top)).unsqueeze(-1)).exp()
    total = torch.zeros_like(start).index_add(-2, i, p.sum(-1))
    output = start.new_zeros(*start.shape, v.shape[-1]).index_add(-3, i, p @ v[..., j, :, :])
    output = output / total.masked_fill(total == 0, 1.0).unsqueeze(-1)
    return output.flatten(-3, -2)[..., :S_q, :].to(query.dtype)


@right(NAME)
def as_selected(query, key, value, block_mask, block_size):
    refuse(query, key, block_mask, block_size)
    return gathered(query, key, value, block_mask, block_size)


def gathered(query, key, value, block_mask, block_size):
    block_of_key = torch.arange(key.shape[-2], device=key.device) // block_size
    outputs = []
    for block, allowed in zip(query.split(block_size, -2), block_mask, strict=True):
        seen = allowed[block_of_key]
        scores = block @ key[..., seen, :].mT * query.shape[-1] ** -0.5
        outputs.append(scores.softmax(-1) @ value[..., seen, :])
    return torch.cat(outputs, -2)


def stretch(mask, size, S_q, S_k):
    return mask.repeat_interleave(size, 0).repeat_interleave(size, 1)[:S_q, :S_k]


def soft(scores, allowed):
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num()


def dense(
    name,
    named,
    *,
    only=None,
    spread=stretch,
    weigh=soft,
    scale=lambda D: D**-0.5,
    finish=lambda output, value, alive: output,
    pad=False,
):
    """A mutant that computes all pairs, with one step exchanged."""

    def wrong(query, key, value, block_mask, block_size):
        refuse(query, key, block_mask, block_size)
        if pad:
            key, value = (F.pad(x, (0, 0, 0, -x.shape[-2] % block_size)) for x in (key, value))
        allowed = spread(block_mask, block_size, query.shape[-2], key.shape[-2])
        output = weigh(query @ key.mT * scale(query.shape[-1]), allowed) @ value
        return finish(output, value, allowed.any(-1, keepdim=True))

    register(NAME, name, named, wrong, only)


def local(
    name,
    named,
    *,
    only=None,
    rows=lambda mask: mask,
    leave=lambda output: output,
    check=refuse,
    empty=True,
    whole=False,
):
    """A mutant that computes the allowed blocks only, with one step exchanged."""

    def wrong(query, key, value, block_mask, block_size):
        check(query, key, block_mask, block_size)
        block_of_key = torch.arange(key.shape[-2], device=key.device) // block_size
        outputs = []
        for block, allowed in zip(query.split(block_size, -2), rows(block_mask), strict=False):
            seen = allowed[block_of_key]
            if whole:
                seen = seen & (block_of_key < key.shape[-2] // block_size)
            scores = block @ key[..., seen, :].mT * query.shape[-1] ** -0.5
            if not empty and not bool(seen.any()):
                outputs.append(value.mean(-2, keepdim=True).expand(*block.shape[:-1], value.shape[-1]))
                continue
            outputs.append(scores.softmax(-1) @ value[..., seen, :])
        return leave(torch.cat(outputs, -2))

    register(NAME, name, named, wrong, only)


dense("dense_and_masked", "makes the whole S_q x S_k table", only="sparse cost")
dense("mask_tiled", "mask repeated instead of stretched", spread=lambda m, b, q, k: m.repeat(b, b)[:q, :k])
dense("tail_of_zeros", "tail of the last block not masked", pad=True,
      spread=lambda m, b, q, k: m.repeat_interleave(b, 0).repeat_interleave(b, 1)[:q])  # fmt: skip
dense(
    "dead_rows_mean",
    "mean of the values where no key is allowed",
    weigh=lambda s, a: s.masked_fill(~a, -1e30).softmax(-1),
)
dense(
    "nan_replaced_too_late",
    "nan gradients",
    weigh=lambda s, a: s.masked_fill(~a, -torch.inf).softmax(-1),
    finish=lambda output, value, alive: torch.where(alive, output, torch.zeros_like(output)),
)
local("last_block_left_out", "last, shorter block left out", whole=True)
local("first_row_for_all", "mask of the first row used for all", rows=lambda m: m[:1].expand_as(m))
local("mean_where_nothing", "mean of the values where no key is allowed", empty=False)
local("any_mask_will_do", "raises another exception than ValueError", check=lambda *_: None, only="masks that do not fit",
      rows=lambda m: m)  # fmt: skip


@mutant(NAME)
def columns_for_rows(query, key, value, block_mask, block_size):
    refuse(query, key, block_mask, block_size)
    size = max(block_mask.shape)
    square = block_mask.new_zeros(size, size)
    square[: block_mask.shape[1], : block_mask.shape[0]] = block_mask.mT
    mask = square[: block_mask.shape[0], : block_mask.shape[1]]
    return gathered(query, key, value, mask, block_size)


@mutant(NAME, None)
def turned_as_it_is(query, key, value, block_mask, block_size):
    """Works for as many blocks of queries as of keys only."""
    refuse(query, key, block_mask, block_size)
    keys, values = key.split(block_size, -2), value.split(block_size, -2)
    outputs = []
    for i, block in enumerate(query.split(block_size, -2)):
        columns = [j for j in range(len(keys)) if block_mask[j, i]]
        k, v = (torch.cat([block.new_zeros(*block.shape[:-2], 0, many[0].shape[-1]), *(many[j] for j in columns)], -2)
                for many in (keys, values))  # fmt: skip
        outputs.append((block @ k.mT / query.shape[-1] ** 0.5).softmax(-1) @ v)
    return torch.cat(outputs, -2)


@mutant(NAME, "the shape of block_mask is not checked", only="masks that do not fit")
def reads_the_corner_of_the_mask(query, key, value, block_mask, block_size):
    rows, columns = math.ceil(query.shape[-2] / block_size), math.ceil(key.shape[-2] / block_size)
    mask = block_mask.new_zeros(rows, columns)
    corner = block_mask[:rows, :columns]
    mask[: corner.shape[0], : corner.shape[1]] = corner
    return gathered(query, key, value, mask, block_size)


@mutant(NAME, "a softmax for each block")
def each_block_alone(query, key, value, block_mask, block_size):
    refuse(query, key, block_mask, block_size)
    keys, values = key.split(block_size, -2), value.split(block_size, -2)
    rows = []
    for i, block in enumerate(query.split(block_size, -2)):
        output = block.new_zeros(*block.shape[:-1], value.shape[-1])
        for j in block_mask[i].nonzero().flatten().tolist():
            output = output + (block @ keys[j].mT / query.shape[-1] ** 0.5).softmax(-1) @ values[j]
        rows.append(output)
    return torch.cat(rows, -2)


@mutant(NAME)
def tail_hidden_by_a_low_number(query, key, value, block_mask, block_size):
    """Allowed blocks only, the last one filled up and hidden by -1e4."""
    refuse(query, key, block_mask, block_size)
    S_k, missing = key.shape[-2], -key.shape[-2] % block_size
    key, value = (F.pad(x, (0, 0, 0, missing)) for x in (key, value))
    columns = torch.arange(S_k + missing, device=key.device)
    rows = []
    for block, allowed in zip(query.split(block_size, -2), block_mask, strict=True):
        seen = allowed[columns // block_size]
        scores = block @ key[..., seen, :].mT * query.shape[-1] ** -0.5
        scores = scores.masked_fill(columns[seen] >= S_k, -1e4)
        rows.append(scores.softmax(-1) @ value[..., seen, :])
    return torch.cat(rows, -2)


@mutant(NAME, "does too much work")
def masked_rows(query, key, value, block_mask, block_size):
    """A block of queries at a time, but against all keys."""
    refuse(query, key, block_mask, block_size)
    block_of_key = torch.arange(key.shape[-2], device=key.device) // block_size
    rows = []
    for block, allowed in zip(query.split(block_size, -2), block_mask, strict=True):
        if not bool(allowed.any()):
            rows.append(block.new_zeros(*block.shape[:-1], value.shape[-1]))
            continue
        scores = block @ key.mT / query.shape[-1] ** 0.5
        rows.append(scores.masked_fill(~allowed[block_of_key], -torch.inf).softmax(-1) @ value)
    return torch.cat(rows, -2)


@mutant(NAME, "makes the whole S_q x S_k table")
def a_mask_of_all_pairs(query, key, value, block_mask, block_size):
    refuse(query, key, block_mask, block_size)
    mask = stretch(block_mask, block_size, query.shape[-2], key.shape[-2])
    rows = []
    for i, block in enumerate(query.split(block_size, -2)):
        seen = mask[i * block_size]
        rows.append((block @ key[..., seen, :].mT / query.shape[-1] ** 0.5).softmax(-1) @ value[..., seen, :])
    return torch.cat(rows, -2)


@mutant(NAME, "overflows or underflows for large scores")
def exponentials_without_maximum(query, key, value, block_mask, block_size):
    refuse(query, key, block_mask, block_size)
    block_of_key = torch.arange(key.shape[-2], device=key.device) // block_size
    wide = torch.promote_types(query.dtype, torch.float32)
    rows = []
    for block, allowed in zip(query.to(wide).split(block_size, -2), block_mask, strict=True):
        seen = allowed[block_of_key]
        p = torch.exp(block @ key[..., seen, :].to(wide).mT * query.shape[-1] ** -0.5)
        total = p.sum(-1, keepdim=True)
        rows.append(p @ value[..., seen, :].to(wide) / total.masked_fill(total == 0, 1.0))
    return torch.cat(rows, -2).to(query.dtype)


@mutant(NAME, "uses a forbidden function", only="own work")
def built_in(query, key, value, block_mask, block_size):
    refuse(query, key, block_mask, block_size)
    block_of_key = torch.arange(key.shape[-2], device=key.device) // block_size
    rows = []
    for block, allowed in zip(query.split(block_size, -2), block_mask, strict=True):
        seen = allowed[block_of_key]
        if bool(seen.any()):
            rows.append(F.scaled_dot_product_attention(block, key[..., seen, :], value[..., seen, :]))
        else:
            rows.append(block.new_zeros(*block.shape[:-1], value.shape[-1]))
    return torch.cat(rows, -2)


@mutant(NAME)
def mean_of_the_values(query, key, value, block_mask, block_size):
    return value.mean(-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])
