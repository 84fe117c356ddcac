"""`decode_attention` and `paged_attention`: right writings and mutants."""

# ruff: noqa: E741, SIM108  (kernels use the letters of the papers, and branch at compile time)

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from solutions.gpu_kernels import decode_attention, paged_attention, refuse_bfloat16
from tests.exercises.catalogue import mutant, right
from tests.exercises.gpu_kernels.conduct import contiguous_strides, register, without_kernel_sense

NAME, PAGED = "decode_attention", "paged_attention"


@triton.jit
def knobs(
    Q, K, V, T, LEN, P, S,
    qb, qh, qd, kb, kh, kn, kd, vb, vh, vn, vd, table_row,
    H, H_kv, splits, page, S_max, pages, scale,
    D: tl.constexpr, BD: tl.constexpr, N: tl.constexpr, PAGED: tl.constexpr, SHARE: tl.constexpr, BUG: tl.constexpr,
):  # fmt: skip
    """One program, one query head and one part: a mistake of that name; "" is right. SHARE: keys a part is rounded up to.

    PAGED: kb is the stride of a page, and T the block table.
    """
    b, h, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    shared = h // (H // H_kv)
    if BUG == "head order":
        shared = h % H_kv
    d = tl.arange(0, BD)
    q = tl.load(Q + b * qb + h * qh + d * qd, mask=d < D, other=0.0).to(tl.float32)
    length = tl.load(LEN + b)
    if BUG == "one less":
        length = length - 1
    if BUG == "full pages":
        length = tl.maximum(length // page * page, 1)
    share = tl.cdiv(tl.cdiv(length, splits), SHARE) * SHARE
    acc = tl.zeros((BD,), tl.float32)
    l, m = 0.0, float("-inf")
    for start in range(part * share, tl.minimum(part * share + share, length), N):
        col = start + tl.arange(0, N)
        here = (col < length) & (col < part * share + share)
        if BUG == "tiles overlap":
            here = col < length
        there = here[:, None] & (d < D)[None, :]
        if BUG == "loads garbage":
            there = (col < S_max)[:, None] & (d < D)[None, :]
        if PAGED:
            slot = col // page
            place = tl.load(T + b * table_row + slot, mask=here, other=0).to(tl.int64)
            if BUG == "no table":
                place = slot.to(tl.int64)
            at = place * kb + col % page * kn
            bt = place * vb + col % page * vn
        else:
            at, bt = b * kb + col * kn, b * vb + col * vn
        k = tl.load(K + shared * kh + at[:, None] + d[None, :] * kd, mask=there, other=0.0).to(tl.float32)
        v = tl.load(V + shared * vh + bt[:, None] + d[None, :] * vd, mask=there, other=0.0).to(tl.float32)
        s = tl.sum(q[None, :] * k, 1) * scale
        s = tl.where(here, s, float("-inf"))
        new = tl.maximum(m, tl.max(s, 0))
        if BUG == "no maximum":
            new = 0.0
        p = tl.exp2(s - new) if BUG == "exp2" else tl.exp(s - new)
        alpha = tl.exp2(m - new) if BUG == "exp2" else tl.exp(m - new)
        if BUG == "no maximum":
            alpha = 1.0
        l = l * alpha + tl.sum(p, 0)
        acc = acc * alpha + tl.sum(p[:, None] * v, 0)
        if BUG == "half":
            acc = acc.to(Q.dtype.element_ty).to(tl.float32)
        m = new
    if BUG != "nan for nothing":
        l = tl.where(l > 0, l, 1.0)
    out = (b * H + h) * splits + part
    tl.store(P + out * D + d, acc / l, mask=d < D)
    tl.store(S + out, (m + tl.log2(l)) * 0.6931471805599453 if BUG == "exp2" else m + tl.log(l))


@triton.jit
def join(P, S, O, splits, D: tl.constexpr, BD: tl.constexpr, BUG: tl.constexpr):
    """One program, one query head: the parts one after the other, as in online softmax."""
    head, d = tl.program_id(0), tl.arange(0, BD)
    acc = tl.zeros((BD,), tl.float32)
    l, m = 0.0, float("-inf")
    for part in range(tl.minimum(splits, 8) if BUG == "eight parts" else splits):
        o = tl.load(P + (head * splits + part) * D + d, mask=d < D, other=0.0)
        s = tl.load(S + head * splits + part)
        if BUG == "parts in bits":
            s = s * 1.4426950408889634
        if BUG == "mean of those with keys":
            s = tl.where(s > float("-inf"), 0.0, s)
        new = tl.maximum(m, s)
        alpha = tl.exp(m - new)
        l = l * alpha + tl.exp(s - new)
        acc = acc * alpha + tl.exp(s - new) * o
        m = new
    if BUG == "weights not normalised":
        l = 1.0
    tl.store(O + head * D + d, (acc / l).to(O.dtype.element_ty), mask=d < D)


TILES = [triton.Config({"N": 16}), triton.Config({"N": 32})]
tuned = triton.autotune(TILES[:1], key=["splits"])(knobs)


def run(
    query, keys, values, table, lengths, splits, bug="", *, scale=None, N=16, share=16, BD=None, strides=None
):
    refuse_bfloat16(query)
    (B, H, D), paged = query.shape, table is not None
    steps = [list((strides or torch.Tensor.stride)(x)) for x in (query, keys, values)]
    if paged:  # (pages, page_size, H_kv, D)
        (S_max, page, H_kv, _) = keys.shape
        for step in steps[1:]:
            step[1], step[2] = step[2], step[1]
        table = table.contiguous()
    else:
        H_kv, S_max, page = keys.shape[1], keys.shape[2], 1
        table = lengths
    lengths = lengths.contiguous()
    parts, sums = (torch.empty(B, H, splits, n, dtype=torch.float32) for n in (D, 1))
    output = torch.empty((B, H, D), dtype=query.dtype)
    BD = BD or triton.next_power_of_2(D)
    kernel, tile = (tuned, {}) if bug == "tiles overlap" else (knobs, {"N": N})
    kernel[(B, H, splits)](
        query, keys, values, table, lengths, parts, sums, *steps[0], *steps[1], *steps[2], table.stride(0),
        H, H_kv, splits, page, S_max, table.shape[-1], D**-0.5 if scale is None else scale(D),
        D=D, BD=BD, **tile, PAGED=paged, SHARE=share, BUG=bug,
    )  # fmt: skip
    join[(B * H,)](parts, sums, output, splits, D=D, BD=BD, BUG=bug)
    return output


@right(NAME)
def one_head_a_program(query, key_cache, value_cache, lengths, num_splits=4):
    return run(query, key_cache, value_cache, None, lengths, num_splits)


@right(NAME)
def parts_of_odd_sizes(query, key_cache, value_cache, lengths, num_splits=4):
    return run(query, key_cache, value_cache, None, lengths, num_splits, N=32, share=1)


@mutant(NAME, "num_splits has no effect", only="programs")
def never_split(query, key_cache, value_cache, lengths, num_splits=4):
    return run(query, key_cache, value_cache, None, lengths, 1, N=64)


@right(PAGED)
def one_query_head_a_program(query, key_pages, value_pages, block_table, lengths):
    return run(query, key_pages, value_pages, block_table, lengths, 1)


@right(PAGED)
def pages_in_parts(query, key_pages, value_pages, block_table, lengths):
    return run(query, key_pages, value_pages, block_table, lengths, 3, N=32)


@right(PAGED)
def gathered_first(query, key_pages, value_pages, block_table, lengths):
    """One copy into a cache in one piece, then decoding as before."""
    needed = torch.arange(block_table.shape[1]) * key_pages.shape[1] < lengths[:, None]
    table = torch.where(needed, block_table, 0).long()
    caches = [x[table].flatten(1, 2).transpose(1, 2) for x in (key_pages, value_pages)]
    return decode_attention(query, *caches, lengths)


def both(name, named, bug="", only=None, **options):
    """A mutant of each of the two."""

    def wrong(query, key_cache, value_cache, lengths, num_splits=4):
        return run(query, key_cache, value_cache, None, lengths, num_splits, bug, **options)

    def wrong_paged(query, key_pages, value_pages, block_table, lengths):
        return run(query, key_pages, value_pages, block_table, lengths, 1, bug, **options)

    register(NAME, name, named, wrong, only)
    register(PAGED, name, named, wrong_paged, only)


def split(name, named, bug, only=None, **options):
    def wrong(query, key_cache, value_cache, lengths, num_splits=4):
        return run(query, key_cache, value_cache, None, lengths, num_splits, bug, **options)

    register(NAME, name, named, wrong, only)


def pages(name, named, bug, only=None, **options):
    def wrong(query, key_pages, value_pages, block_table, lengths):
        return run(query, key_pages, value_pages, block_table, lengths, 1, bug, **options)

    register(PAGED, name, named, wrong, only)


both("one_key_too_few", "one key too few", "one less")
both("head_modulo", "heads tiled instead of interleaved", "head order")
both("no_maximum", None, "no maximum")
both("sums_in_half", "sums are not kept in float32", "half")
both(
    "root_of_the_padded_width",
    None,
    scale=lambda D: 0.25 if D <= 16 else D**-0.5,
)
both("as_if_contiguous", "depends on the memory layout of its inputs", strides=contiguous_strides)
split("loads_garbage", "reads behind the end of a sequence", "loads garbage")
split("nothing_over_nothing", None, "nan for nothing")
split("at_most_eight_parts", "the number of splits changes the result", "eight parts")
split("parts_with_keys_averaged", None, "mean of those with keys")
split("parts_not_normalised", "weights of the parts do not add up to 1", "weights not normalised", share=1)
split("parts_in_bits", "log-sum-exps of the parts in the wrong base", "parts in bits")
split("tiles_that_overlap", "wrong with other tiles", "tiles overlap", only="every tile")
pages("no_table", "block table ignored", "no table")
pages("last_page_left_out", "the last page is left out", "full pages")


@mutant(PAGED, "reads behind the end of a sequence")
def garbage_hidden_by_a_weight_of_zero(query, key_pages, value_pages, block_table, lengths):
    result = paged_attention(query, key_pages, value_pages, block_table, lengths)
    last = block_table[torch.arange(len(lengths)), (lengths.long() - 1) // value_pages.shape[1]].long()
    return result + (0 * value_pages[last]).sum((1, 2, 3)).to(result.dtype)[:, None, None]


@mutant(PAGED, "fails at some page sizes")
def pages_of_sixteen_at_most(query, key_pages, value_pages, block_table, lengths):
    if key_pages.shape[1] == 17:
        key_pages = key_pages.roll(1, 1)
    return paged_attention(query, key_pages, value_pages, block_table, lengths)


@mutant(NAME, "fails at some lengths")
def at_least_two_keys(query, key_cache, value_cache, lengths, num_splits=4):
    return decode_attention(query, key_cache, value_cache, lengths.clamp_min(2), num_splits)


@triton.jit
def breaks_off(Q, O, n, BLOCK: tl.constexpr):
    """`break` in a loop, which the compiler does not know."""
    at = tl.arange(0, BLOCK)
    x = tl.load(Q + at, mask=at < n, other=0.0)
    for i in range(4):
        if i > 1:
            break
        x = x + 0.0
    tl.store(O + at, x, mask=at < n)


def broken_kernel(right):
    def wrong(*args, **kwargs):
        result = right(*args, **kwargs)
        copy = torch.empty_like(result)
        breaks_off[(1,)](result, copy, result.numel(), BLOCK=triton.next_power_of_2(result.numel()))
        return copy

    return wrong


@mutant(NAME, "fails at some sizes")
def sixteen_columns(query, key_cache, value_cache, lengths, num_splits=4):
    return run(query, key_cache, value_cache, None, lengths, num_splits, BD=16)


@mutant(PAGED, "fails at some sizes")
def sixteen_columns_in_pages(query, key_pages, value_pages, block_table, lengths):
    return run(query, key_pages, value_pages, block_table, lengths, 1, BD=16)


@mutant(NAME, "an argument that it does not take")
def no_default(query, key_cache, value_cache, lengths, num_splits):
    return decode_attention(query, key_cache, value_cache, lengths, num_splits)


def of_sixteen_heads(right):
    """A tile of sixteen rows for the query heads of a group, and no second one."""

    def wrong(query, keys, *rest, **options):
        result = right(query, keys, *rest, **options)
        if query.shape[1] > 16:
            result[:, 16:] = 0.0
        return result

    return wrong


@mutant(PAGED, None)
def all_entries_looked_up(query, key_pages, value_pages, block_table, lengths):
    caches = [x[block_table.long()].flatten(1, 2).transpose(1, 2) for x in (key_pages, value_pages)]
    return decode_attention(query, *caches, lengths)


@triton.jit
def last_joins(
    Q, K, V, LEN, P, S, T, O,
    qb, qh, qd, kb, kh, kn, kd, vb, vh, vn, vd,
    H, group, splits, scale,
    D: tl.constexpr, BD: tl.constexpr, N: tl.constexpr, TICKETS: tl.constexpr,
):  # fmt: skip
    """One launch: tiles dealt out in turn, and whichever program of a head draws the last ticket joins the parts."""
    place, part, d = tl.program_id(0), tl.program_id(1), tl.arange(0, BD)
    b, h = (place // H).to(tl.int64), place % H
    q = tl.load(Q + b * qb + h * qh + d * qd, mask=d < D, other=0.0).to(tl.float32) * scale
    length = tl.load(LEN + b)
    acc = tl.zeros((BD,), tl.float32)
    l, m = 0.0, -1e30
    for tile in range(part, tl.cdiv(length, N), splits):
        col = tile * N + tl.arange(0, N)
        there = (col < length)[:, None] & (d < D)[None, :]
        k = tl.load(K + b * kb + h // group * kh + col[:, None] * kn + d[None, :] * kd, mask=there, other=0.0)
        v = tl.load(V + b * vb + h // group * vh + col[:, None] * vn + d[None, :] * vd, mask=there, other=0.0)
        s = tl.where(col < length, tl.sum(q[None, :] * k.to(tl.float32), 1), -1e30)
        new = tl.maximum(m, tl.max(s, 0))
        p = tl.where(col < length, tl.exp2(s - new), 0.0)
        l = l * tl.exp2(m - new) + tl.sum(p, 0)
        acc = acc * tl.exp2(m - new) + tl.sum(p[:, None] * v.to(tl.float32), 0)
        m = new
    out = place * splits + part
    tl.store(P + out * D + d, acc, mask=d < D)
    tl.store(S + out * 2, m)
    tl.store(S + out * 2 + 1, l)
    if TICKETS:
        last = tl.atomic_add(T + place, 1) == splits - 1
    else:
        last = part == splits - 1
    if last:
        acc = tl.zeros((BD,), tl.float32)
        l, m = 0.0, -1e30
        for one in range(splits):
            at = place * splits + one
            other = tl.load(S + at * 2)
            new = tl.maximum(m, other)
            l = l * tl.exp2(m - new) + tl.load(S + at * 2 + 1) * tl.exp2(other - new)
            acc = acc * tl.exp2(m - new) + tl.load(P + at * D + d, mask=d < D, other=0.0) * tl.exp2(
                other - new
            )
            m = new
        tl.store(O + place * D + d, (acc / l).to(O.dtype.element_ty), mask=d < D)


def in_one_launch(query, key_cache, value_cache, lengths, splits, tickets):
    refuse_bfloat16(query)
    (B, H, D), output = query.shape, torch.empty(query.shape, dtype=query.dtype)
    parts, sums = (torch.empty(B, H, splits, n, dtype=torch.float32) for n in (D, 2))
    last_joins[(B * H, splits)](
        query, key_cache, value_cache, lengths.contiguous(), parts, sums, torch.zeros(B, H, dtype=torch.int32), output,
        *query.stride(), *key_cache.stride(), *value_cache.stride(),
        H, H // key_cache.shape[1], splits, math.log2(math.e) / math.sqrt(D),
        D=D, BD=triton.next_power_of_2(D), N=16, TICKETS=tickets,
    )  # fmt: skip
    return output


@right(NAME)
def the_last_ticket_joins(query, key_cache, value_cache, lengths, num_splits=4):
    return in_one_launch(query, key_cache, value_cache, lengths, num_splits, True)


@mutant(NAME, "programs get into each other's way", only="safe access")
def the_last_part_joins(query, key_cache, value_cache, lengths, num_splits=4):
    return in_one_launch(query, key_cache, value_cache, lengths, num_splits, False)


for exercise, solved in ((NAME, decode_attention), (PAGED, paged_attention)):
    register(exercise, "sixteen_heads_a_group", "reads the wrong heads", of_sixteen_heads(solved))
    register(exercise, "breaks_off_a_loop", "does not compile for a GPU", broken_kernel(solved), "fits a GPU")


def in_torch(query, key_cache, value_cache, lengths, num_splits=4):
    refuse_bfloat16(query)
    group, rows = query.shape[1] // key_cache.shape[1], []
    for b, length in enumerate(lengths.tolist()):
        k, v = (x[b, :, :length].repeat_interleave(group, 0).float() for x in (key_cache, value_cache))
        scores = (query[b].float().unsqueeze(1) @ k.mT) / math.sqrt(query.shape[-1])
        rows.append((torch.softmax(scores, -1) @ v).squeeze(1))
    return torch.stack(rows).to(query.dtype)


def paged_in_torch(query, key_pages, value_pages, block_table, lengths):
    table = block_table.long().clamp_max(len(key_pages) - 1)
    caches = [x[table].flatten(1, 2).transpose(1, 2) for x in (key_pages, value_pages)]
    return in_torch(query, *caches, lengths)


without_kernel_sense(NAME, decode_attention, in_torch)
without_kernel_sense(PAGED, paged_attention, paged_in_torch)
