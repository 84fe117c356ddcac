"""Right writings and mutants on tensor descriptors, made on the host or in the kernel, as Triton's tutorials write them."""

# ruff: noqa: E741  (kernels use the letters of the papers)

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from solutions.gpu_kernels import flash_backward, refuse_bfloat16
from tests.exercises.catalogue import mutant, right

FORWARD, BOTH, SOFTMAX = "flash_forward", "flash_attention", "softmax_rows"
DECODE, PAGED = "decode_attention", "paged_attention"


def padded(x):
    """Contiguous, and rows begin at multiples of 16 bytes, as a descriptor asks: x itself if it is so, else a copy."""
    missing = -x.shape[-1] % (16 // x.element_size())
    return torch.nn.functional.pad(x, (0, missing)) if missing else x.contiguous()


def described(x, block):
    """A descriptor of a padded tensor: (heads of all sequences, rows, columns), in blocks of one head."""
    return TensorDescriptor.from_tensor(x.flatten(0, -3), [1, *block])


@triton.jit
def flash(
    Q, K, V, O, L, H, H_kv, S_q, S_k, scale,
    BD: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BUG: tl.constexpr,
):  # fmt: skip
    """All tiles by descriptors of (heads, rows, columns); a mistake of that name, "" is right."""
    head, first = tl.program_id(1), tl.program_id(0) * M
    shared = head // H * H_kv + head % H // (H // H_kv)
    row = first + tl.arange(0, M)
    q = Q.load([head, first, 0]).reshape([M, BD])
    acc = tl.zeros([M, BD], tl.float32)
    l = tl.zeros([M], tl.float32)
    m = tl.full([M], float("-inf"), tl.float32)
    for start in range(0, S_k, N):
        col = start + tl.arange(0, N)
        at = start // N if BUG == "number of the tile" else start
        k = K.load([shared, start, 0]).reshape([N, BD])
        v = V.load([shared, at, 0]).reshape([N, BD])
        s = tl.dot(q, k.T, input_precision="ieee") * scale
        seen = (col < S_k)[None, :]
        if CAUSAL:
            seen = seen & (col[None, :] <= row[:, None])
        s = tl.where(seen, s, float("-inf"))
        new = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - new[:, None])
        alpha = tl.exp2(m - new)
        l = l * alpha + tl.sum(p, 1)
        acc = tl.dot(p.to(V.dtype), v, acc * alpha[:, None], input_precision="ieee")
        m = new
    O.store([head, first, 0], (acc / l[:, None]).to(O.dtype).reshape([1, M, BD]))
    tl.store(L + head * S_q + row, (m + tl.log2(l)) * 0.6931471805599453, mask=row < S_q)


def forward(query, key, value, is_causal=False, bug="", *, M=16, N=32, D=None, claimed=None):
    """D: how many columns count, if not all. claimed: what the descriptor of the queries says of their number."""
    refuse_bfloat16(query)
    (B, H, S_q, width), (H_kv, S_k) = query.shape, key.shape[1:3]
    if H % H_kv:
        raise ValueError("heads do not fit")
    q, k, v = (padded(x) for x in (query, key, value))
    output, sums = torch.empty_like(q), torch.empty(B, H, S_q, dtype=torch.float32)
    BD = max(16, triton.next_power_of_2(width))
    Q = described(q, [M, BD])
    Q.shape = [B * H, claimed(S_q, M) if claimed else S_q, q.shape[-1]]
    flash[(triton.cdiv(S_q, M), B * H)](
        Q, described(k, [N, BD]), described(v, [N, BD]), described(output, [M, BD]), sums,
        H, H_kv, S_q, S_k, math.log2(math.e) / math.sqrt(D or width), BD=BD, CAUSAL=is_causal, M=M, N=N, BUG=bug,
    )  # fmt: skip
    return output[..., :width], sums


@right(FORWARD)
def described_on_the_host(query, key, value, is_causal=False):
    return forward(query, key, value, is_causal)


class FlashOfWideRows(torch.autograd.Function):
    """Forward on copies padded to the width of a tile."""

    @staticmethod
    def forward(ctx, query, key, value, is_causal):
        D = query.shape[-1]
        width = max(16, triton.next_power_of_2(D))
        wide = (torch.nn.functional.pad(x, (0, width - D)) for x in (query, key, value))
        output, sums = forward(*wide, is_causal, D=D)
        output = output[..., :D]
        ctx.save_for_backward(query, key, value, output, sums)
        ctx.is_causal = is_causal
        return output

    @staticmethod
    def backward(ctx, grad_output):
        return *flash_backward(*ctx.saved_tensors, grad_output, ctx.is_causal), None


@right(BOTH)
def padded_to_the_width_of_a_tile(query, key, value, is_causal=False):
    return FlashOfWideRows.apply(query, key, value, is_causal)


@mutant(FORWARD)
def values_of_another_tile(query, key, value, is_causal=False):
    return forward(query, key, value, is_causal, "number of the tile", N=16)


@mutant(FORWARD, "reads or writes outside its tensors", only="safe access")
def more_rows_described_than_there_are(query, key, value, is_causal=False):
    return forward(query, key, value, is_causal, claimed=lambda rows, M: triton.cdiv(rows, M) * M)


@triton.jit
def flash_row(Q, K, V, O, L, group, width, S_q, S_k, scale, CAUSAL: tl.constexpr):
    """One program, one query, and one tile of as many keys as the descriptors' blocks have; a few columns at a time."""
    i, head = tl.program_id(0), tl.program_id(1)
    N: tl.constexpr = K.block_shape[1]
    W: tl.constexpr = K.block_shape[2]
    col = tl.arange(0, N)
    s = tl.zeros([N], tl.float32)
    for d in range(0, width, W):
        k = K.load([head // group, 0, d]).reshape([N, W]).to(tl.float32)
        s += tl.sum(k * Q.load([head, i, d]).reshape([1, W]).to(tl.float32), 1) * scale
    seen = col < (tl.minimum(i + 1, S_k) if CAUSAL else S_k)
    s = tl.where(seen, s, float("-inf"))
    m = tl.max(s, 0)
    p = tl.exp(s - m)
    l = tl.sum(p, 0)
    for d in range(0, width, W):
        v = V.load([head // group, 0, d]).reshape([N, W]).to(tl.float32)
        O.store([head, i, d], (tl.sum(v * p[:, None], 0) / l).to(O.dtype).reshape([1, 1, W]))
    tl.store(L + head * S_q + i, m + tl.log(l))


def all_keys_in_a_block(query, key, value, is_causal, columns):
    refuse_bfloat16(query)
    (B, H, S_q, D), (H_kv, S_k) = query.shape, key.shape[1:3]
    if H % H_kv:
        raise ValueError("heads do not fit")
    q, k, v = (padded(x) for x in (query, key, value))
    output, sums = torch.empty_like(q), torch.empty(B, H, S_q, dtype=torch.float32)
    row, column = [1, columns], [triton.next_power_of_2(S_k), columns]
    flash_row[(S_q, B * H)](
        described(q, row), described(k, column), described(v, column), described(output, row), sums,
        H // H_kv, q.shape[-1], S_q, S_k, D**-0.5, CAUSAL=is_causal,
    )  # fmt: skip
    return output[..., :D], sums


@mutant(FORWARD, "tiles grow with the input", only="long inputs")
def blocks_beyond_shared_memory(query, key, value, is_causal=False):
    return all_keys_in_a_block(query, key, value, is_causal, 8)


@mutant(FORWARD, "tiles grow with the input", only="long inputs")
def blocks_beyond_what_triton_describes(query, key, value, is_causal=False):
    return all_keys_in_a_block(query, key, value, is_causal, 16)


def blocks_to_tiles(arguments):
    """What a configuration's tile makes of the descriptors' blocks, as Triton's tutorials set them."""
    M, N, BD = (arguments[name] for name in ("M", "N", "BD"))
    if isinstance(arguments["Q"], TensorDescriptor):
        arguments["Q"].block_shape = [M, BD]
        arguments["K"].block_shape = arguments["V"].block_shape = [N, BD]


@triton.jit
def as_descriptor(x, rows, width, BLOCK: tl.constexpr, BD: tl.constexpr):
    """A descriptor, made here if the caller has made none."""
    if isinstance(x, tl.tensor_descriptor):
        return x
    else:
        return tl.make_tensor_descriptor(x, shape=[rows, width], strides=[width, 1], block_shape=[BLOCK, BD])


@triton.autotune(
    [triton.Config({"M": 16, "N": 16}, num_warps=4, pre_hook=blocks_to_tiles)], key=["S_k", "BD"]
)
@triton.jit
def flash_over_all_rows(
    Q, K, V, O, L, H, H_kv, heads, S_q, S_k, D, width, scale,
    BD: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BUG: tl.constexpr,
):  # fmt: skip
    """The rows of all heads in one matrix: a last tile reaches into the next head, where only loads are allowed to."""
    Q = as_descriptor(Q, heads * S_q, width, M, BD)
    K = as_descriptor(K, heads * H_kv // H * S_k, width, N, BD)
    V = as_descriptor(V, heads * H_kv // H * S_k, width, N, BD)
    head, first = tl.program_id(1), tl.program_id(0) * M
    shared = head // H * H_kv + head % H // (H // H_kv)
    row, d = first + tl.arange(0, M), tl.arange(0, BD)
    q = Q.load([head * S_q + first, 0])
    acc = tl.zeros([M, BD], tl.float32)
    l = tl.zeros([M], tl.float32)
    m = tl.full([M], float("-inf"), tl.float32)
    for start in tl.range(0, tl.minimum(S_k, first + M) if CAUSAL else S_k, N, warp_specialize=False):
        col = start + tl.arange(0, N)
        k, v = K.load([shared * S_k + start, 0]), V.load([shared * S_k + start, 0])
        seen = (col < S_k)[None, :]
        if CAUSAL:
            seen = seen & (col[None, :] <= row[:, None])
        s = tl.where(seen, tl.dot(q, k.T, input_precision="ieee") * scale, float("-inf"))
        new = tl.maximum(m, tl.max(s, 1))
        p, alpha = tl.exp2(s - new[:, None]), tl.exp2(m - new)
        l = l * alpha + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * alpha[:, None], input_precision="ieee")
        m = new
    at, there = head * S_q + row, row < S_q
    o = (acc / l[:, None]).to(O.dtype.element_ty)
    if BUG == "stored by a descriptor":
        made = tl.make_tensor_descriptor(
            O, shape=[heads * S_q, width], strides=[width, 1], block_shape=[M, BD]
        )
        made.store([head * S_q + first, 0], o)
    else:
        tl.store(O + at[:, None] * width + d[None, :], o, mask=there[:, None] & (d < D)[None, :])
    tl.store(L + at, (m + tl.log2(l)) * 0.6931471805599453, mask=there)


def over_all_rows(query, key, value, is_causal, wrap, bug=""):
    refuse_bfloat16(query)
    (B, H, S_q, D), (H_kv, S_k) = query.shape, key.shape[1:3]
    if H % H_kv:
        raise ValueError("heads do not fit")
    q, k, v = (padded(x) for x in (query, key, value))
    width = q.shape[-1]
    output, sums = torch.empty_like(q), torch.empty(B, H, S_q, dtype=torch.float32)
    flash_over_all_rows[lambda meta: (triton.cdiv(S_q, meta["M"]), B * H)](
        wrap(q), wrap(k), wrap(v), output, sums, H, H_kv, B * H, S_q, S_k, D, width,
        math.log2(math.e) / math.sqrt(D), BD=max(16, triton.next_power_of_2(D)), CAUSAL=is_causal, BUG=bug,
    )  # fmt: skip
    return output[..., :D], sums


@right(FORWARD)
def blocks_set_by_a_hook(query, key, value, is_causal=False):
    def wrap(x):
        rows, width = x.numel() // x.shape[-1], x.shape[-1]
        return TensorDescriptor(x, shape=[rows, width], strides=[width, 1], block_shape=[1, 1])

    return over_all_rows(query, key, value, is_causal, wrap)


def scratch(size, alignment, stream):
    """Where a GPU keeps descriptors that are made in a kernel."""
    return torch.empty(size, dtype=torch.int8, device="cuda")


@right(FORWARD)
def described_in_the_kernel(query, key, value, is_causal=False):
    triton.set_allocator(scratch)
    return over_all_rows(query, key, value, is_causal, lambda x: x)


@mutant(FORWARD, "programs get into each other's way")
def last_tiles_reach_into_the_next_head(query, key, value, is_causal=False):
    return over_all_rows(query, key, value, is_causal, lambda x: x, "stored by a descriptor")


@triton.jit
def softmax_in_blocks(X, Y, columns, BLOCK: tl.constexpr):
    """Online: maximum and sum in one pass over the blocks of a row, the weights in a second."""
    row = tl.program_id(0)
    highest, total = float("-inf"), 0.0
    for start in range(0, columns, BLOCK):
        inside = start + tl.arange(0, BLOCK) < columns
        part = tl.where(inside, X.load([row, start]).reshape([BLOCK]).to(tl.float32), float("-inf"))
        higher = tl.maximum(highest, tl.max(part, 0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(part - higher), 0)
        highest = higher
    for start in range(0, columns, BLOCK):
        part = X.load([row, start]).reshape([BLOCK]).to(tl.float32)
        Y.store([row, start], (tl.exp(part - highest) / total).to(Y.dtype).reshape([1, BLOCK]))


@right(SOFTMAX)
def rows_by_descriptors(x):
    refuse_bfloat16(x)
    wide = padded(x)
    weights = torch.empty_like(wide)
    X, Y = (TensorDescriptor.from_tensor(one, block_shape=[1, 1024]) for one in (wide, weights))
    softmax_in_blocks[(x.shape[0],)](X, Y, x.shape[1], BLOCK=1024)
    return weights[:, : x.shape[1]].contiguous()


@triton.jit
def parts_of_a_cache(
    Q, K, V, LEN, P, S, qb, qh, qd, group, splits, scale,
    D: tl.constexpr, G: tl.constexpr, BD: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program, one key head and one part: the rows of its tile are the queries of the group."""
    b, shared, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    heads = tl.num_programs(1)
    g, d = tl.arange(0, G), tl.arange(0, BD)
    there = (g < group)[:, None] & (d < D)[None, :]
    h = shared * group + g
    q = tl.load(Q + b.to(tl.int64) * qb + h[:, None] * qh + d[None, :] * qd, mask=there, other=0.0)
    length = tl.load(LEN + b)
    share = tl.cdiv(tl.cdiv(length, splits), N) * N
    acc = tl.zeros([G, BD], tl.float32)
    l = tl.zeros([G], tl.float32)
    m = tl.full([G], float("-inf"), tl.float32)
    for start in range(part * share, tl.minimum(part * share + share, length), N):
        here = start + tl.arange(0, N) < length
        k = K.load([b * heads + shared, start, 0]).reshape([N, BD])
        v = V.load([b * heads + shared, start, 0]).reshape([N, BD])
        v = tl.where(here[:, None], v, 0.0)
        s = tl.where(here[None, :], tl.dot(q, k.T, input_precision="ieee") * scale, float("-inf"))
        new = tl.maximum(m, tl.max(s, 1))
        p, alpha = tl.exp2(s - new[:, None]), tl.exp2(m - new)
        l = l * alpha + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * alpha[:, None], input_precision="ieee")
        m = new
    out = ((b * heads + shared) * group + g) * splits + part
    o = acc / tl.where(l > 0, l, 1.0)[:, None]
    tl.store(P + out[:, None] * D + d[None, :], o, mask=there)
    tl.store(S + out, m + tl.log2(l), mask=g < group)


@triton.jit
def parts_joined(P, S, O, splits, D: tl.constexpr, BD: tl.constexpr):
    """One program, one query head: its parts one after the other."""
    head, d = tl.program_id(0), tl.arange(0, BD)
    acc = tl.zeros([BD], tl.float32)
    l, m = 0.0, float("-inf")
    for part in range(splits):
        s = tl.load(S + head * splits + part)
        o = tl.load(P + (head * splits + part) * D + d, mask=d < D, other=0.0)
        new = tl.maximum(m, s)
        l = l * tl.exp2(m - new) + tl.exp2(s - new)
        acc = acc * tl.exp2(m - new) + tl.exp2(s - new) * o
        m = new
    tl.store(O + head * D + d, (acc / l).to(O.dtype.element_ty), mask=d < D)


@right(DECODE)
def caches_by_descriptors(query, key_cache, value_cache, lengths, num_splits=4):
    refuse_bfloat16(query)
    (B, H, D), H_kv = query.shape, key_cache.shape[1]
    k, v = padded(key_cache), padded(value_cache)
    parts, sums = (torch.empty(B, H, num_splits, n, dtype=torch.float32) for n in (D, 1))
    output = torch.empty(query.shape, dtype=query.dtype)
    BD, group = max(16, triton.next_power_of_2(D)), H // H_kv
    parts_of_a_cache[(B, H_kv, num_splits)](
        query, described(k, [16, BD]), described(v, [16, BD]), lengths.contiguous(), parts, sums,
        *query.stride(), group, num_splits, math.log2(math.e) / math.sqrt(D),
        D=D, G=max(16, triton.next_power_of_2(group)), BD=BD, N=16,
    )  # fmt: skip
    parts_joined[(B * H,)](parts, sums, output, num_splits, D=D, BD=BD)
    return output


@triton.jit
def pages_by_descriptors(
    Q, K, V, T, LEN, O, pages, page, H_kv, group, table_row, width, scale,
    D: tl.constexpr, G: tl.constexpr, BD: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program, one sequence and key head; a page is visited in tiles, which its descriptor's shape cuts off."""
    b, shared = tl.program_id(0), tl.program_id(1)
    g, d = tl.arange(0, G), tl.arange(0, BD)
    at = (b * H_kv * group + shared * group + g)[:, None] * D + d[None, :]
    there = (g < group)[:, None] & (d < D)[None, :]
    q = tl.load(Q + at, mask=there, other=0.0)
    row = H_kv * width
    keys = tl.make_tensor_descriptor(
        K, [pages, page, H_kv, width], [page * row, row, width, 1], [1, N, 1, BD]
    )
    values = tl.make_tensor_descriptor(
        V, [pages, page, H_kv, width], [page * row, row, width, 1], [1, N, 1, BD]
    )
    length = tl.load(LEN + b)
    acc = tl.zeros([G, BD], tl.float32)
    l = tl.zeros([G], tl.float32)
    m = tl.full([G], float("-inf"), tl.float32)
    for slot in range(tl.cdiv(length, page)):
        place = tl.load(T + b * table_row + slot)
        for start in range(0, tl.minimum(page, length - slot * page), N):
            offset = start + tl.arange(0, N)
            here = (offset < page) & (slot * page + offset < length)
            k = keys.load([place, start, shared, 0]).reshape([N, BD])
            v = tl.where(here[:, None], values.load([place, start, shared, 0]).reshape([N, BD]), 0.0)
            s = tl.where(here[None, :], tl.dot(q, k.T, input_precision="ieee") * scale, float("-inf"))
            new = tl.maximum(m, tl.max(s, 1))
            p, alpha = tl.exp2(s - new[:, None]), tl.exp2(m - new)
            l = l * alpha + tl.sum(p, 1)
            acc = tl.dot(p.to(v.dtype), v, acc * alpha[:, None], input_precision="ieee")
            m = new
    tl.store(O + at, (acc / l[:, None]).to(O.dtype.element_ty), mask=there)


@right(PAGED)
def pages_described_in_the_kernel(query, key_pages, value_pages, block_table, lengths):
    refuse_bfloat16(query)
    triton.set_allocator(scratch)
    (B, H, D), (pages, page, H_kv, _) = query.shape, key_pages.shape
    k, v = padded(key_pages), padded(value_pages)
    output, group, table = torch.empty((B, H, D), dtype=query.dtype), H // H_kv, block_table.contiguous()
    pages_by_descriptors[(B, H_kv)](
        query.contiguous(), k, v, table, lengths.contiguous(), output,
        pages, page, H_kv, group, table.stride(0), k.shape[-1], math.log2(math.e) / math.sqrt(D),
        D=D, G=max(16, triton.next_power_of_2(group)), BD=max(16, triton.next_power_of_2(D)), N=16,
    )  # fmt: skip
    return output
