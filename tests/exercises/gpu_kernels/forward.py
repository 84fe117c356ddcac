"""`flash_forward`: right writings and mutants."""

# ruff: noqa: E741, SIM108  (kernels use the letters of the papers, and branch at compile time)

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from solutions.gpu_kernels import flash_forward, refuse_bfloat16
from tests.exercises.catalogue import mutant, right
from tests.exercises.gpu_kernels.conduct import copied, register, without_kernel_sense

NAME = "flash_forward"


@triton.jit
def knobs(
    Q, K, V, O, L,
    qb, qh, qm, qd, kb, kh, kn, kd, vb, vh, vn, vd,
    H, H_kv, S_q, S_k, scale,
    D: tl.constexpr, BD: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BUG: tl.constexpr,
):  # fmt: skip
    """The kernel with a mistake of that name; "" is right: one loop, every tile masked."""
    batch, head = (tl.program_id(1) // H).to(tl.int64), tl.program_id(1) % H
    shared = head // (H // H_kv)
    if BUG == "head order":
        shared = head % H_kv
    k_first, v_first = batch * kb + shared * kh, batch * vb + shared * vh
    if BUG == "batch of query heads":
        k_first, v_first = (batch * H + shared) * kh, (batch * H + shared) * vh
    row, d = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, BD)
    wide = (d < D)[None, :]
    q = tl.load(
        Q + batch * qb + head * qh + row[:, None] * qm + d[None, :] * qd, (row < S_q)[:, None] & wide, 0.0
    )
    acc = tl.zeros((M, BD), tl.float32)
    l = tl.zeros((M,), tl.float32)
    m = tl.full((M,), float("-inf"), tl.float32)
    end = S_k
    if BUG == "square tiles" and CAUSAL:
        end = tl.minimum(S_k, (tl.program_id(0) + 1) * N)
    for start in range(0, end, N):
        col = start + tl.arange(0, N)
        there = (col < S_k)[:, None] & wide
        k = tl.load(K + k_first + col[:, None] * kn + d[None, :] * kd, there, 0.0)
        v = tl.load(V + v_first + col[:, None] * vn + d[None, :] * vd, there, 0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        if BUG == "unscaled under the mask":
            s = s * (1.0 if CAUSAL else scale)
        else:
            s = s * scale
        if BUG != "tail":
            s = tl.where((col < S_k)[None, :], s, float("-inf"))
        if CAUSAL:
            if BUG == "off by one":
                s = tl.where(col[None, :] <= row[:, None] + 1, s, float("-inf"))
            elif BUG == "present hidden":
                s = tl.where((col[None, :] < row[:, None]) | (col[None, :] == 0), s, float("-inf"))
            else:
                s = tl.where(col[None, :] <= row[:, None], s, float("-inf"))
            if BUG == "window":
                s = tl.where(col[None, :] > row[:, None] - 64, s, float("-inf"))
        new = tl.maximum(m, tl.max(s, 1))
        if BUG == "stale maximum" and start > 0:
            new = m
        alpha = tl.exp2(m - new) if BUG == "exp2" else tl.exp(m - new)
        p = tl.exp2(s - new[:, None]) if BUG == "exp2" else tl.exp(s - new[:, None])
        l = l * alpha + tl.sum(p, 1)
        before = acc if BUG == "no rescale" else acc * alpha[:, None]
        acc = before + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        if BUG == "half":
            acc = acc.to(O.dtype.element_ty).to(tl.float32)
        m = new
    o = acc / l[:, None]
    out = tl.program_id(1) * S_q + row
    tl.store(O + out[:, None] * D + d[None, :], o.to(O.dtype.element_ty), (row < S_q)[:, None] & wide)
    lse = (m + tl.log2(l)) * 0.6931471805599453 if BUG == "exp2" else m + tl.log(l)
    if BUG == "two units":
        lse = m * 1.4426950408889634 + tl.log(l)
    tl.store(L + out, lse, row < S_q)


TILES = [triton.Config({"M": 16, "N": 16}), triton.Config({"M": 32, "N": 16})]
tuned = triton.autotune(TILES[:1], key=["S_k"])(knobs)


def run(
    query,
    key,
    value,
    is_causal=False,
    bug="",
    *,
    scale=None,
    M=16,
    N=16,
    BD=None,
    strides=None,
    statistics=None,
    programs=None,
):
    refuse_bfloat16(query)
    (B, H, S_q, D), (H_kv, S_k) = query.shape, key.shape[1:3]
    if H % H_kv:
        raise ValueError("heads do not fit")
    output = torch.empty(query.shape, dtype=query.dtype)
    sums = torch.empty(query.shape[:3], dtype=statistics or torch.float32)
    BD = triton.next_power_of_2(D) if BD == 0 else BD or max(16, triton.next_power_of_2(D))
    steps = [size for x in (query, key, value) for size in (strides or torch.Tensor.stride)(x)]
    if bug == "strides of the keys":
        steps[8:] = steps[4:8]
    kernel, tile = (tuned, {}) if bug == "square tiles" else (knobs, {"M": M, "N": N})
    kernel[lambda meta: (programs or triton.cdiv(S_q, meta["M"]), B * H)](
        query, key, value, output, sums, *steps, H, H_kv, S_q, S_k,
        1 / math.sqrt(D) if scale is None else scale(D),
        D=D, BD=BD, CAUSAL=is_causal, BUG=bug, **tile,
    )  # fmt: skip
    return output, sums


@right(NAME)
def every_tile_masked(query, key, value, is_causal=False):
    return run(query, key, value, is_causal)


@right(NAME)
def wide_tiles(query, key, value, is_causal=False):
    return run(query, key, value, is_causal, M=16, N=64)


@triton.jit
def row_by_row(
    Q, K, V, O, L, group, S_q, S_k, scale,
    D: tl.constexpr, BD: tl.constexpr, CAUSAL: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program, one query: products as sums, first over all keys for the log-sum-exp, then for the values."""
    i, head = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, BD)
    q = tl.load(Q + (head * S_q + i) * D + d, mask=d < D, other=0.0).to(tl.float32)
    end = tl.minimum(i + 1, S_k) if CAUSAL else S_k
    lse = float("-inf")
    for start in range(0, end, N):
        col = start + tl.arange(0, N)
        at, there = (
            (head // group * S_k + col)[:, None] * D + d[None, :],
            (col < end)[:, None] & (d < D)[None, :],
        )
        s = tl.sum(tl.load(K + at, mask=there, other=0.0).to(tl.float32) * q[None, :], 1) * scale
        s = tl.where(col < end, s, float("-inf"))
        top = tl.maximum(lse, tl.max(s, 0))
        lse = top + tl.log(tl.exp(lse - top) + tl.sum(tl.exp(s - top), 0))
    o = tl.zeros((BD,), tl.float32)
    for start in range(0, end, N):
        col = start + tl.arange(0, N)
        at, there = (
            (head // group * S_k + col)[:, None] * D + d[None, :],
            (col < end)[:, None] & (d < D)[None, :],
        )
        s = tl.sum(tl.load(K + at, mask=there, other=0.0).to(tl.float32) * q[None, :], 1) * scale
        p = tl.where(col < end, tl.exp(s - lse), 0.0)
        o += tl.sum(tl.load(V + at, mask=there, other=0.0).to(tl.float32) * p[:, None], 0)
    tl.store(O + (head * S_q + i) * D + d, o.to(O.dtype.element_ty), mask=d < D)
    tl.store(L + head * S_q + i, lse)


def row_wise(query, key, value, is_causal=False, *, N=None):
    refuse_bfloat16(query)
    (B, H, S_q, D), (H_kv, S_k) = query.shape, key.shape[1:3]
    if H % H_kv:
        raise ValueError("heads do not fit")
    query, key, value = (x.contiguous() for x in (query, key, value))
    output, sums = torch.empty_like(query), torch.empty(B, H, S_q, dtype=torch.float32)
    row_by_row[(S_q, B * H)](
        query,
        key,
        value,
        output,
        sums,
        H // H_kv,
        S_q,
        S_k,
        D**-0.5,
        D=D,
        BD=triton.next_power_of_2(D),
        CAUSAL=is_causal,
        N=N or triton.next_power_of_2(S_k),
    )
    return output, sums


@right(NAME)
def one_query_a_program(query, key, value, is_causal=False):
    return row_wise(query, key, value, is_causal, N=64)


@mutant(NAME, "tiles grow with the input", only="long inputs")
def all_keys_in_one_tile(query, key, value, is_causal=False):
    return row_wise(query, key, value, is_causal)


@triton.jit
def packed(
    Q, K, V, O, L,
    qb, qh, qm, qd, kb, kh, kn, kd, vb, vh, vn, vd,
    H_kv, S_q, S_k, scale,
    G: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program, one key head: its rows are the queries of the whole group; tiles of keys from the last to the first."""
    batch, shared, d = (tl.program_id(1) // H_kv).to(tl.int64), tl.program_id(1) % H_kv, tl.arange(0, BD)
    place = tl.program_id(0) * M + tl.arange(0, M)
    row, head = place // G, shared * G + place % G
    here = (row < S_q)[:, None] & (d < D)[None, :]
    q = tl.load(
        Q + batch * qb + head[:, None] * qh + row[:, None] * qm + d[None, :] * qd, mask=here, other=0.0
    )
    acc = tl.zeros((M, BD), tl.float32)
    l = tl.zeros((M,), tl.float32)
    m = tl.full((M,), -1e30, tl.float32)
    tiles = tl.cdiv(S_k, N)
    for step in range(tiles):
        col = (tiles - 1 - step) * N + tl.arange(0, N)
        there = (col < S_k)[:, None] & (d < D)[None, :]
        k = tl.load(K + batch * kb + shared * kh + col[:, None] * kn + d[None, :] * kd, mask=there, other=0.0)
        v = tl.load(V + batch * vb + shared * vh + col[:, None] * vn + d[None, :] * vd, mask=there, other=0.0)
        seen = (col < S_k)[None, :]
        if CAUSAL:
            seen = seen & (col[None, :] <= row[:, None])
        s = tl.where(seen, tl.dot(q, k.T, input_precision="ieee") * scale, -1e30)
        new = tl.maximum(m, tl.max(s, 1))
        p = tl.where(seen, tl.exp2(s - new[:, None]), 0.0)
        l = l * tl.exp2(m - new) + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * tl.exp2(m - new)[:, None], input_precision="ieee")
        m = new
    out = (batch * H_kv * G + head) * S_q + row
    tl.store(O + out[:, None] * D + d[None, :], (acc / l[:, None]).to(O.dtype.element_ty), mask=here)
    tl.store(L + out, (m + tl.log2(l)) * 0.6931471805599453, mask=row < S_q)


@right(NAME)
def groups_packed_from_the_end(query, key, value, is_causal=False):
    refuse_bfloat16(query)
    (B, H, S_q, D), (H_kv, S_k) = query.shape, key.shape[1:3]
    if H % H_kv:
        raise ValueError("heads do not fit")
    output, sums = torch.empty(query.shape, dtype=query.dtype), torch.empty(B, H, S_q, dtype=torch.float32)
    packed[(triton.cdiv(S_q * H // H_kv, 16), B * H_kv)](
        query, key, value, output, sums, *query.stride(), *key.stride(), *value.stride(),
        H_kv, S_q, S_k, 1.4426950408889634 / math.sqrt(D),
        G=H // H_kv, D=D, BD=max(16, triton.next_power_of_2(D)), CAUSAL=is_causal, M=16, N=32,
    )  # fmt: skip
    return output, sums


def variant(name, named, bug="", only=None, **options):
    def wrong(query, key, value, is_causal=False):
        return run(query, key, value, is_causal, bug, **options)

    register(NAME, name, named, wrong, only)


OVERFLOWS = "overflows or underflows for large scores"
variant("no_rescale_in_wide_tiles", "the accumulator is not rescaled", "no rescale", N=64)
variant("stale_maximum", None, "stale maximum")
variant("tail_of_wide_tiles", "keys beyond the end take part", "tail", N=128)
variant("one_key_of_the_future", "causal mask shows one key of the future", "off by one")
variant("present_hidden", None, "present hidden")
variant("unscaled_under_the_mask", None, "unscaled under the mask")
variant("head_modulo", "heads tiled instead of interleaved", "head order")
variant("base_two", "exp2 without log2(e)", "exp2")
variant("sums_in_half", "sums are not kept in float32", "half")
variant("sum_exp_in_two_units", "log-sum-exp in two units", "two units")
variant("batch_of_query_heads", "reads the wrong heads", "batch of query heads")
variant("a_window_left_over", None, "window")
variant("sixty_four_queries", "fails at some sizes", M=64, programs=1)
variant("sixty_four_columns", "fails at some sizes", BD=64)
variant("strides_of_the_keys", "depends on the memory layout of its inputs", "strides of the keys")
variant("tiles_that_must_be_square", "wrong with other tiles", "square tiles", only="every tile")
variant("eight_columns", "does not compile for a GPU", only="fits a GPU", BD=0)


@mutant(NAME, "raises another exception than ValueError", only="heads that do not fit")
def asserts(query, key, value, is_causal=False):
    assert query.shape[1] % key.shape[1] == 0
    return flash_forward(query, key, value, is_causal)


@mutant(NAME, "statistics are not float32")
def statistics_in_half(query, key, value, is_causal=False):
    return run(query, key, value, is_causal, statistics=query.dtype)


def in_torch(query, key, value, is_causal=False):
    refuse_bfloat16(query)
    if query.shape[1] % key.shape[1]:
        raise ValueError("heads do not fit")
    key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], 1).float() for x in (key, value))
    scores = query.float() @ key.mT / math.sqrt(query.shape[-1])
    if is_causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    return (torch.softmax(scores, -1) @ value).to(query.dtype), scores.logsumexp(-1)


@mutant(NAME, "calculates outside the kernel", only="own kernel")
def sums_of_products_in_torch(query, key, value, is_causal=False):
    refuse_bfloat16(query)
    if query.shape[1] % key.shape[1]:
        raise ValueError("heads do not fit")
    key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], 1).float() for x in (key, value))
    scores = (query.float()[:, :, :, None] * key[:, :, None]).sum(-1) / math.sqrt(query.shape[-1])
    if is_causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    sums = scores.logsumexp(-1)
    output = ((scores - sums[..., None]).exp()[..., None] * value[:, :, None]).sum(-2)
    return copied(output.to(query.dtype)), copied(sums)


without_kernel_sense(NAME, flash_forward, in_torch)
