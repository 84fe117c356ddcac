"""Reference solutions of `gpu_kernels`: attention in Triton, readable first, fast second.

Shapes: B sequences, H_q query heads, H_kv key and value heads, S_q and S_k lengths, D head width. A tile has M queries
        and N keys; BLOCK_D is D rounded up to a power of two.
Every tile has at least 16 rows and columns: the tensor cores of a GPU take no less, though the interpreter would.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import math
import os

import torch
from torch import Tensor

# Triton decides when it is imported whether its kernels are compiled or interpreted.
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

import triton
import triton.language as tl


def refuse_bfloat16(x: Tensor) -> None:
    """Refuse what the interpreter would silently get wrong: bfloat16 on the CPU.

    It takes the bits of such a number for a whole number. float16 and float32 are sound there.
    Raises: ValueError if x is bfloat16 and not on a GPU.
    """
    if x.dtype == torch.bfloat16 and not x.is_cuda:
        raise ValueError("the interpreter misreads bfloat16: use float16 or float32 on the CPU")


@triton.jit
def softmax_kernel(x, output, x_row, x_column, output_row, columns, BLOCK: tl.constexpr):
    """One program, one row: read once, reduced in registers, written once."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    scores = tl.load(x + row * x_row + column * x_column, mask=inside, other=-float("inf")).to(tl.float32)
    numerator = tl.exp(scores - tl.max(scores, 0))
    weights = numerator / tl.sum(numerator, 0)
    tl.store(output + row * output_row + column, weights.to(output.dtype.element_ty), mask=inside)


def softmax_rows(x: Tensor) -> Tensor:
    """Softmax over the last axis of a matrix, fused into one kernel.

    Shapes: x (rows, columns), any strides, float16 or float32 (bfloat16 on a GPU only)
            -> weights (rows, columns), in x's dtype and device.
    One program takes one row, whatever its width: it reads the row once, and pads it with -inf to a power of two.
    Sums are kept in float32. The work is done by your kernel: torch's softmax, exp and sum are not allowed here.
    Raises: ValueError for bfloat16 on the CPU (see refuse_bfloat16).
    """
    refuse_bfloat16(x)
    rows, columns = x.shape
    output = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    BLOCK = triton.next_power_of_2(columns)
    num_warps = min(max(BLOCK // 512, 1), 16)  # 16 numbers a thread, until there are many
    softmax_kernel[(rows,)](x, output, *x.stride(), output.stride(0), columns, BLOCK, num_warps=num_warps)
    return output


LOG2_E = tl.constexpr(math.log2(math.e))

# A GPU times all of these once; the interpreter takes the first, as its speed says nothing.
FORWARD_TILES = [
    triton.Config({"M": m, "N": n}, num_warps=warps, num_stages=stages)
    for m, n, warps, stages in (
        *((16, 16, 4, 1), (128, 128, 8, 2), (128, 64, 8, 3), (128, 32, 4, 4)),
        *((64, 64, 4, 3), (64, 32, 4, 3), (64, 16, 4, 2), (32, 16, 4, 1)),
    )
]


@triton.jit
def attend_tile(q, k, v, allowed, scale, accumulator, total, highest, MASKED: tl.constexpr):
    """One step of online softmax: what a tile of keys and values adds to a tile of queries.

    Shapes: q (M, BLOCK_D), k and v (N, BLOCK_D), allowed (M, N) -> accumulator (M, BLOCK_D), total (M,), highest (M,).
    Units:  scale is log2(e) / sqrt(D): it takes plain products, whose maximum is highest, to bits, as exp2 is what the
            hardware has. Scaled and shifted in one line, an element costs one fused multiply-add.
    """
    products = tl.dot(q, tl.trans(k), input_precision="ieee")
    if MASKED:
        products = tl.where(allowed, products, -float("inf"))
    higher = tl.maximum(highest, tl.max(products, 1))
    rescale = tl.exp2((highest - higher) * scale)
    weights = tl.exp2(products * scale - (higher * scale)[:, None])
    total = total * rescale + tl.sum(weights, 1)
    accumulator = tl.dot(weights.to(v.dtype), v, accumulator * rescale[:, None], input_precision="ieee")
    return accumulator, total, higher


@triton.autotune(
    FORWARD_TILES[:1] if os.environ["TRITON_INTERPRET"] == "1" else FORWARD_TILES,
    key=["D", "S_q", "S_k", "is_causal"],
)
@triton.jit
def forward_kernel(
    query, key, value, output, log_sum_exp,
    q_batch, q_head, q_row, q_column,
    k_batch, k_head, k_row, k_column,
    v_batch, v_head, v_row, v_column,
    heads, group, S_q, S_k, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, is_causal: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program, one tile of M queries of one head: it visits the tiles of keys from left to right."""
    # The last tiles have most to do where it is causal; they start first.
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * M
    place = tl.program_id(1)
    batch, head = (place // heads).to(tl.int64), place % heads
    query += batch * q_batch + head * q_head
    key += batch * k_batch + head // group * k_head
    value += batch * v_batch + head // group * v_head
    row, d = first + tl.arange(0, M), tl.arange(0, BLOCK_D)
    there = (row < S_q)[:, None] & (d < D)[None, :]
    q = tl.load(query + row[:, None] * q_row + d[None, :] * q_column, mask=there, other=0.0)
    accumulator = tl.zeros((M, BLOCK_D), tl.float32)
    total = tl.zeros((M,), tl.float32)
    highest = tl.full((M,), -float("inf"), tl.float32)
    # Keys before `whole` are seen by every query of this tile; only the tiles after it need a mask.
    whole, end = S_k // N * N, S_k
    if is_causal:
        whole, end = tl.minimum(whole, (first + 1) // N * N), tl.minimum(S_k, first + M)
    for start in range(0, whole, N):
        column = start + tl.arange(0, N)
        k = tl.load(key + column[:, None] * k_row + d[None, :] * k_column, mask=d[None, :] < D, other=0.0)
        v = tl.load(value + column[:, None] * v_row + d[None, :] * v_column, mask=d[None, :] < D, other=0.0)
        accumulator, total, highest = attend_tile(q, k, v, True, scale, accumulator, total, highest, False)
    for start in range(whole, end, N):
        column = start + tl.arange(0, N)
        exists = (column < S_k)[:, None] & (d < D)[None, :]
        k = tl.load(key + column[:, None] * k_row + d[None, :] * k_column, mask=exists, other=0.0)
        v = tl.load(value + column[:, None] * v_row + d[None, :] * v_column, mask=exists, other=0.0)
        allowed = (column < S_k)[None, :]
        if is_causal:
            allowed = allowed & (column[None, :] <= row[:, None])
        accumulator, total, highest = attend_tile(q, k, v, allowed, scale, accumulator, total, highest, True)
    at = place.to(tl.int64) * S_q + row
    result = (accumulator / total[:, None]).to(output.dtype.element_ty)
    tl.store(output + at[:, None] * D + d[None, :], result, mask=there)
    natural = (highest * scale + tl.log2(total)) / LOG2_E  # from bits to nats
    tl.store(log_sum_exp + at, natural, mask=row < S_q)


def flash_forward(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Attention without the matrix of scores: tiles of it live on the chip, one after the other.

    Shapes: query (B, H_q, S_q, D), key (B, H_kv, S_k, D), value (B, H_kv, S_k, D), any strides and lengths, float16 or
            float32 (bfloat16 on a GPU only) -> output (B, H_q, S_q, D), in query's dtype and device; log_sum_exp
            (B, H_q, S_q), float32: ln(sum over the keys of exp(score)), which backward needs.
    Units:  scores are dimensionless: dot products divided by sqrt(D). Sums are kept in float32.
    Query head h reads key and value head h // (H_q / H_kv). is_causal lets query i see keys 0..i only (aligned at the
    top left). D need not be a power of two.
    The work is done by your kernel: torch's products, softmax and attention are not allowed here.
    Raises: ValueError if H_q is no multiple of H_kv, or for bfloat16 on the CPU.
    Source: Dao et al. 2022; Dao 2023 (one program a tile of queries).
    """
    refuse_bfloat16(query)
    (B, H_q, S_q, D), (H_kv, S_k) = query.shape, key.shape[1:3]
    if H_q % H_kv:
        raise ValueError(f"{H_q} query heads cannot share {H_kv} key heads evenly")
    output = torch.empty((B, H_q, S_q, D), dtype=query.dtype, device=query.device)
    log_sum_exp = torch.empty((B, H_q, S_q), dtype=torch.float32, device=query.device)
    strides = (*query.stride(), *key.stride(), *value.stride())
    forward_kernel[lambda meta: (triton.cdiv(S_q, meta["M"]), B * H_q)](
        query, key, value, output, log_sum_exp, *strides,
        H_q, H_q // H_kv, S_q, S_k, math.log2(math.e) / math.sqrt(D),
        D=D, BLOCK_D=max(16, triton.next_power_of_2(D)), is_causal=is_causal,
    )  # fmt: skip
    return output, log_sum_exp


BACKWARD_TILES = [
    triton.Config({"M": m, "N": n}, num_warps=warps, num_stages=stages)
    for m, n, warps, stages in (
        *((16, 16, 4, 1), (64, 128, 8, 2), (128, 64, 8, 2), (64, 64, 8, 2)),
        *((32, 128, 8, 3), (64, 64, 4, 2), (32, 64, 4, 2), (32, 32, 4, 1)),
    )
]


@triton.jit
def delta_kernel(output, grad_output, delta, rows, D: tl.constexpr, BLOCK_D: tl.constexpr, M: tl.constexpr):
    """delta = row sums of grad_output * output: what the softmax takes off every score's gradient."""
    row, d = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M), tl.arange(0, BLOCK_D)
    at, there = row[:, None] * D + d[None, :], (row < rows)[:, None] & (d < D)[None, :]
    o = tl.load(output + at, mask=there, other=0.0).to(tl.float32)
    grad_o = tl.load(grad_output + at, mask=there, other=0.0).to(tl.float32)
    tl.store(delta + row, tl.sum(o * grad_o, 1), mask=row < rows)


@triton.jit
def visit_queries(
    query, grad_output, log_sum_exp, delta, k, v, grad_k, grad_v, column, begin, end, S_q, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, M: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """What the queries begin..end of one head add to the gradients of a tile of keys and values.

    Shapes: k and v (N, BLOCK_D), column (N,) -> grad_k, grad_v (N, BLOCK_D). Units: scale is 1 / sqrt(D).
    MASKED: some of these queries do not see all keys of the tile.
    """
    d = tl.arange(0, BLOCK_D)
    for start in range(begin, end, M):
        row = start + tl.arange(0, M)
        near, exists = row[:, None] * D + d[None, :], (row < S_q)[:, None] & (d < D)[None, :]
        q = tl.load(query + near, mask=exists, other=0.0)
        grad_o = tl.load(grad_output + near, mask=exists, other=0.0)
        # A query that does not exist has an infinite normaliser, and so weights of zero.
        normaliser = tl.load(log_sum_exp + row, mask=row < S_q, other=float("inf")) * LOG2_E
        mean = tl.load(delta + row, mask=row < S_q, other=0.0)
        # All tiles stand turned round, (N, M): so none that was computed needs to be transposed.
        products = tl.dot(k, tl.trans(q), input_precision="ieee")
        weights = tl.exp2(products * (scale * LOG2_E) - normaliser[None, :])
        if MASKED:
            weights = tl.where(column[:, None] <= row[None, :], weights, 0.0)
        grad_v = tl.dot(weights.to(grad_o.dtype), grad_o, grad_v, input_precision="ieee")
        grad_weights = tl.dot(v, tl.trans(grad_o), input_precision="ieee")
        grad_scores = weights * (grad_weights - mean[None, :])
        grad_k = tl.dot(grad_scores.to(q.dtype), q, grad_k, input_precision="ieee")
    return grad_k, grad_v


@triton.autotune(
    BACKWARD_TILES[:1] if os.environ["TRITON_INTERPRET"] == "1" else BACKWARD_TILES,
    key=["D", "S_q", "S_k", "is_causal"],
)
@triton.jit
def key_value_kernel(
    query, key, value, grad_output, log_sum_exp, delta, grad_key, grad_value,
    group, S_q, S_k, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, is_causal: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program, one tile of N keys: it visits all queries of its group of heads that see them."""
    first, place = tl.program_id(0) * N, tl.program_id(1).to(tl.int64)
    column, d = first + tl.arange(0, N), tl.arange(0, BLOCK_D)
    at = (place * S_k + column)[:, None] * D + d[None, :]
    there = (column < S_k)[:, None] & (d < D)[None, :]
    k = tl.load(key + at, mask=there, other=0.0)
    v = tl.load(value + at, mask=there, other=0.0)
    grad_k = tl.zeros((N, BLOCK_D), tl.float32)
    grad_v = tl.zeros((N, BLOCK_D), tl.float32)
    # Queries before `begin` see none of these keys, those from `whole` on see all: only those between need a mask.
    begin, whole = 0, 0
    if is_causal:
        begin = first // M * M
        whole = tl.minimum(tl.cdiv(first + N - 1, M) * M, tl.cdiv(S_q, M) * M)
    for head in range(place * group, place * group + group):
        q, grad_o, at_row = query + head * S_q * D, grad_output + head * S_q * D, head * S_q
        normaliser, mean = log_sum_exp + at_row, delta + at_row
        if is_causal:
            grad_k, grad_v = visit_queries(
                q, grad_o, normaliser, mean, k, v, grad_k, grad_v, column, begin, whole, S_q, scale,
                D, BLOCK_D, M, True,
            )  # fmt: skip
        grad_k, grad_v = visit_queries(
            q, grad_o, normaliser, mean, k, v, grad_k, grad_v, column, whole, S_q, S_q, scale,
            D, BLOCK_D, M, False,
        )  # fmt: skip
    tl.store(grad_key + at, (grad_k * scale).to(grad_key.dtype.element_ty), mask=there)
    tl.store(grad_value + at, grad_v.to(grad_value.dtype.element_ty), mask=there)


@triton.jit
def visit_keys(
    key, value, q, grad_o, normaliser, mean, grad_q, row, begin, end, S_k, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, is_causal: tl.constexpr, N: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """What the keys begin..end add to the gradient of a tile of queries.

    Shapes: q and grad_o (M, BLOCK_D), normaliser, mean and row (M,) -> grad_q (M, BLOCK_D).
    Units:  normaliser is in bits, scale is 1 / sqrt(D). MASKED: not all of these keys exist, or are seen.
    """
    d = tl.arange(0, BLOCK_D)
    for start in range(begin, end, N):
        column = start + tl.arange(0, N)
        near, exists = column[:, None] * D + d[None, :], (d < D)[None, :]
        if MASKED:
            exists = exists & (column < S_k)[:, None]
        k = tl.load(key + near, mask=exists, other=0.0)
        v = tl.load(value + near, mask=exists, other=0.0)
        products = tl.dot(q, tl.trans(k), input_precision="ieee")
        weights = tl.exp2(products * (scale * LOG2_E) - normaliser[:, None])
        if MASKED:
            allowed = (column < S_k)[None, :]
            if is_causal:
                allowed = allowed & (column[None, :] <= row[:, None])
            weights = tl.where(allowed, weights, 0.0)
        grad_weights = tl.dot(grad_o, tl.trans(v), input_precision="ieee")
        grad_scores = weights * (grad_weights - mean[:, None])
        grad_q = tl.dot(grad_scores.to(k.dtype), k, grad_q, input_precision="ieee")
    return grad_q


@triton.autotune(
    BACKWARD_TILES[:1] if os.environ["TRITON_INTERPRET"] == "1" else BACKWARD_TILES,
    key=["D", "S_q", "S_k", "is_causal"],
)
@triton.jit
def query_kernel(
    query, key, value, grad_output, log_sum_exp, delta, grad_query,
    group, S_q, S_k, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, is_causal: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program, one tile of M queries: it visits the keys as the forward kernel does."""
    # The last tiles have most to do where it is causal; they start first.
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * M
    head = tl.program_id(1).to(tl.int64)
    row, d = first + tl.arange(0, M), tl.arange(0, BLOCK_D)
    at = (head * S_q + row)[:, None] * D + d[None, :]
    there = (row < S_q)[:, None] & (d < D)[None, :]
    q = tl.load(query + at, mask=there, other=0.0)
    grad_o = tl.load(grad_output + at, mask=there, other=0.0)
    normaliser = tl.load(log_sum_exp + head * S_q + row, mask=row < S_q, other=float("inf")) * LOG2_E
    mean = tl.load(delta + head * S_q + row, mask=row < S_q, other=0.0)
    grad_q = tl.zeros((M, BLOCK_D), tl.float32)
    whole, end = S_k // N * N, S_k
    if is_causal:
        whole, end = tl.minimum(whole, (first + 1) // N * N), tl.minimum(S_k, first + M)
    k, v = key + head // group * S_k * D, value + head // group * S_k * D
    grad_q = visit_keys(
        k, v, q, grad_o, normaliser, mean, grad_q, row, 0, whole, S_k, scale,
        D, BLOCK_D, is_causal, N, False,
    )  # fmt: skip
    grad_q = visit_keys(
        k, v, q, grad_o, normaliser, mean, grad_q, row, whole, end, S_k, scale,
        D, BLOCK_D, is_causal, N, True,
    )  # fmt: skip
    tl.store(grad_query + at, (grad_q * scale).to(grad_query.dtype.element_ty), mask=there)


def flash_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    log_sum_exp: Tensor,
    grad_output: Tensor,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of flash attention, from what forward has kept: weights are computed again, tile by tile.

    Shapes: query, output and grad_output (B, H_q, S_q, D), key and value (B, H_kv, S_k, D), log_sum_exp
            (B, H_q, S_q) float32 -> grad_query, grad_key, grad_value, of the shapes, dtype and device of query, key, value.
    With P = exp(scores - log_sum_exp), all products in float32 sums:
            grad_value = P^T grad_output                          grad_P = grad_output value^T
            delta      = sum over D of grad_output * output       grad_S = P * (grad_P - delta)
            grad_query = grad_S key / sqrt(D)                     grad_key = grad_S^T query / sqrt(D)
    Heads, is_causal and strides as in flash_forward; a key head's gradient adds up those of its query heads.
    The work is done by your kernels: torch's products, softmax and attention are not allowed here.
    Source: Dao et al. 2022, algorithm 4; Dao 2023.
    """
    (B, H_q, S_q, D), (H_kv, S_k) = query.shape, key.shape[1:3]
    # One copy, where the layout asks for it, and all that follows is rows of D numbers.
    query, key, value, output, grad_output = (
        x.contiguous() for x in (query, key, value, output, grad_output)
    )
    log_sum_exp = log_sum_exp.contiguous()
    grad_query, grad_key, grad_value = (torch.empty_like(x) for x in (query, key, value))
    delta = torch.empty_like(log_sum_exp)
    widths = {"D": D, "BLOCK_D": max(16, triton.next_power_of_2(D))}
    delta_kernel[(triton.cdiv(delta.numel(), 16),)](output, grad_output, delta, delta.numel(), **widths, M=16)
    kept = (query, key, value, grad_output, log_sum_exp, delta)
    sizes = (H_q // H_kv, S_q, S_k, 1 / math.sqrt(D))
    key_value_kernel[lambda meta: (triton.cdiv(S_k, meta["N"]), B * H_kv)](
        *kept, grad_key, grad_value, *sizes, **widths, is_causal=is_causal
    )
    query_kernel[lambda meta: (triton.cdiv(S_q, meta["M"]), B * H_q)](
        *kept, grad_query, *sizes, **widths, is_causal=is_causal
    )
    return grad_query, grad_key, grad_value


class FlashAttention(torch.autograd.Function):
    """Forward and backward kernels, as one function that autograd knows."""

    @staticmethod
    def forward(ctx, query, key, value, is_causal):
        """Run the forward kernel, and keep what backward needs: five tensors, none of them (S_q, S_k)."""
        output, log_sum_exp = flash_forward(query, key, value, is_causal)
        ctx.save_for_backward(query, key, value, output, log_sum_exp)
        ctx.is_causal = is_causal
        return output

    @staticmethod
    def backward(ctx, grad_output):
        """One gradient for each argument of forward; is_causal has none."""
        query, key, value, output, log_sum_exp = ctx.saved_tensors
        gradients = flash_backward(query, key, value, output, log_sum_exp, grad_output, ctx.is_causal)
        return *gradients, None


def flash_attention(query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Tensor:
    """Attention whose forward and backward are your kernels.

    Shapes, heads and is_causal as in flash_forward -> output (B, H_q, S_q, D), with gradients for query, key and value.
    Of what forward keeps for backward nothing has S_q times S_k elements.
    """
    return FlashAttention.apply(query, key, value, is_causal)


DECODE_TILES = [
    triton.Config({"N": n}, num_warps=warps, num_stages=stages)
    for n, warps, stages in ((16, 4, 2), (128, 8, 3), (128, 4, 3), (64, 4, 4), (64, 4, 3), (32, 4, 4))
]


@triton.autotune(
    DECODE_TILES[:1] if os.environ["TRITON_INTERPRET"] == "1" else DECODE_TILES,
    key=["D", "group", "num_splits"],
)
@triton.jit
def split_kernel(
    query, key_cache, value_cache, lengths, parts, log_sum_exps,
    q_batch, q_head, q_column,
    k_batch, k_head, k_row, k_column,
    v_batch, v_head, v_row, v_column,
    num_splits, scale, group: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_G: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program, one part of one sequence's cache for one key head: read once for all query heads of the group."""
    sequence, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    member, d = tl.arange(0, BLOCK_G), tl.arange(0, BLOCK_D)
    there = (member < group)[:, None] & (d < D)[None, :]
    head = kv_head * group + member
    at = query + sequence * q_batch + head[:, None] * q_head + d[None, :] * q_column
    q = tl.load(at, mask=there, other=0.0)
    accumulator = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_G,), tl.float32)
    highest = tl.full((BLOCK_G,), -float("inf"), tl.float32)
    key_cache += sequence * k_batch + kv_head * k_head
    value_cache += sequence * v_batch + kv_head * v_head
    length = tl.load(lengths + sequence)
    share = tl.cdiv(tl.cdiv(length, num_splits), N) * N
    for start in range(split * share, tl.minimum(split * share + share, length), N):
        column = start + tl.arange(0, N)
        exists = (column < length)[:, None] & (d < D)[None, :]
        k = tl.load(key_cache + column[:, None] * k_row + d[None, :] * k_column, mask=exists, other=0.0)
        v = tl.load(value_cache + column[:, None] * v_row + d[None, :] * v_column, mask=exists, other=0.0)
        allowed = (column < length)[None, :]
        accumulator, total, highest = attend_tile(q, k, v, allowed, scale, accumulator, total, highest, True)
    # A part beyond the sequence's end has no keys: its output is 0, its log-sum-exp -inf, and so its weight 0.
    total = tl.where(total > 0, total, 1.0)
    part = accumulator / total[:, None]
    out = (sequence * tl.num_programs(1) * group + head) * num_splits + split
    tl.store(parts + out[:, None] * D + d[None, :], part, mask=there)
    tl.store(log_sum_exps + out, highest * scale + tl.log2(total), mask=member < group)


@triton.jit
def combine_kernel(
    parts, log_sum_exps, output, num_splits,
    D: tl.constexpr, BLOCK_D: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """One program, one query head: the parts' outputs, each weighted by its share of the whole sum."""
    head = tl.program_id(0).to(tl.int64)
    split, d = tl.arange(0, SPLITS), tl.arange(0, BLOCK_D)
    sizes = tl.load(log_sum_exps + head * num_splits + split, mask=split < num_splits, other=-float("inf"))
    at = (head * num_splits + split)[:, None] * D + d[None, :]
    there = (split < num_splits)[:, None] & (d < D)[None, :]
    every = tl.load(parts + at, mask=there, other=0.0)
    shares = tl.exp2(sizes - tl.max(sizes, 0))
    result = tl.sum(every * shares[:, None], 0) / tl.sum(shares, 0)
    tl.store(output + head * D + d, result.to(output.dtype.element_ty), mask=d < D)


def decode_attention(
    query: Tensor, key_cache: Tensor, value_cache: Tensor, lengths: Tensor, num_splits: int = 4
) -> Tensor:
    """One new query for each sequence against its cache, which several programs read in parallel.

    Shapes: query (B, H_q, D), key_cache and value_cache (B, H_kv, S_max, D), any strides, lengths (B,) int32,
            1 <= lengths <= S_max -> output (B, H_q, D), in query's dtype and device.
    Units:  scores are dimensionless: dot products divided by sqrt(D). Sums and partial results are float32.
    Sequence b has keys 0..lengths[b]-1; what lies behind them in the cache is garbage and takes no part. Each of
    num_splits programs attends to its part of a sequence; a second kernel adds the partial outputs up, each weighted by
    its log-sum-exp. The result is that of any other num_splits. Heads as in flash_forward.
    The work is done by your kernels: torch's products, softmax and attention are not allowed here.
    Source: Dao et al. 2023, Flash-Decoding.
    """
    refuse_bfloat16(query)
    (B, H_q, D), H_kv, lengths = query.shape, key_cache.shape[1], lengths.contiguous()
    parts = torch.empty((B, H_q, num_splits, D), dtype=torch.float32, device=query.device)
    log_sum_exps = torch.empty((B, H_q, num_splits), dtype=torch.float32, device=query.device)
    output = torch.empty((B, H_q, D), dtype=query.dtype, device=query.device)
    widths = {"D": D, "BLOCK_D": max(16, triton.next_power_of_2(D))}
    split_kernel[(B, H_kv, num_splits)](
        query, key_cache, value_cache, lengths, parts, log_sum_exps,
        *query.stride(), *key_cache.stride(), *value_cache.stride(),
        num_splits, math.log2(math.e) / math.sqrt(D), H_q // H_kv,
        **widths, BLOCK_G=max(16, triton.next_power_of_2(H_q // H_kv)),
    )  # fmt: skip
    SPLITS = triton.next_power_of_2(num_splits)
    combine_kernel[(B * H_q,)](parts, log_sum_exps, output, num_splits, **widths, SPLITS=SPLITS)
    return output


@triton.jit
def paged_kernel(
    query, key_pages, value_pages, block_table, lengths, output,
    q_batch, q_head, q_column,
    k_page, k_row, k_head, k_column,
    v_page, v_row, v_head, v_column,
    table_row, scale, group: tl.constexpr, page_size: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_G: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program, one sequence and key head: it follows the sequence's row of the block table, page by page."""
    sequence, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    member, d = tl.arange(0, BLOCK_G), tl.arange(0, BLOCK_D)
    there = (member < group)[:, None] & (d < D)[None, :]
    head = kv_head * group + member
    at = query + sequence * q_batch + head[:, None] * q_head + d[None, :] * q_column
    q = tl.load(at, mask=there, other=0.0)
    accumulator = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_G,), tl.float32)
    highest = tl.full((BLOCK_G,), -float("inf"), tl.float32)
    length = tl.load(lengths + sequence)
    slot = tl.arange(0, N)  # a page is one tile, padded to a power of two
    for start in range(0, length, page_size):
        page = tl.load(block_table + sequence * table_row + start // page_size).to(tl.int64)
        used = (slot < page_size) & (start + slot < length)
        exists = used[:, None] & (d < D)[None, :]
        keys = key_pages + page * k_page + kv_head * k_head
        values = value_pages + page * v_page + kv_head * v_head
        k = tl.load(keys + slot[:, None] * k_row + d[None, :] * k_column, mask=exists, other=0.0)
        v = tl.load(values + slot[:, None] * v_row + d[None, :] * v_column, mask=exists, other=0.0)
        accumulator, total, highest = attend_tile(
            q, k, v, used[None, :], scale, accumulator, total, highest, True
        )
    out = (sequence * tl.num_programs(1) * group + head)[:, None] * D + d[None, :]
    tl.store(output + out, (accumulator / total[:, None]).to(output.dtype.element_ty), mask=there)


def paged_attention(
    query: Tensor, key_pages: Tensor, value_pages: Tensor, block_table: Tensor, lengths: Tensor
) -> Tensor:
    """One new query for each sequence against a cache that lies in pages, scattered over one pool.

    Shapes: query (B, H_q, D), key_pages and value_pages (num_pages, page_size, H_kv, D), any strides, block_table
            (B, max_pages) int32, lengths (B,) int32, lengths >= 1 -> output (B, H_q, D), in query's dtype and device.
    Units:  scores are dimensionless: dot products divided by sqrt(D). Sums are kept in float32.
    Key i of sequence b lies in page block_table[b, i // page_size], slot i % page_size. Sequence b has lengths[b] keys:
    what lies behind them in the last page is garbage, and so are the entries of its table that it does not need.
    page_size need not be a power of two. Heads as in flash_forward.
    The work is done by your kernel: torch's products, softmax and attention are not allowed here.
    Source: Kwon et al. 2023 (vLLM).
    """
    refuse_bfloat16(query)
    (B, H_q, D), (_, page_size, H_kv, _) = query.shape, key_pages.shape
    block_table, lengths = block_table.contiguous(), lengths.contiguous()
    output = torch.empty((B, H_q, D), dtype=query.dtype, device=query.device)
    group = H_q // H_kv
    paged_kernel[(B, H_kv)](
        query, key_pages, value_pages, block_table, lengths, output,
        *query.stride(), *key_pages.stride(), *value_pages.stride(),
        block_table.stride(0), math.log2(math.e) / math.sqrt(D), group, page_size,
        D=D, BLOCK_D=max(16, triton.next_power_of_2(D)),
        BLOCK_G=max(16, triton.next_power_of_2(group)), N=max(16, triton.next_power_of_2(page_size)),
    )  # fmt: skip
    return output


naive_bytes = 2 * (4 * 4096 * 128 + 4 * 4096**2)

flash_bytes = 2 * 4 * 4096 * 128 + 4 * 4096

flash_saves = "b"

interpreter_blind = "b"

tile_bytes = 2 * (128 * 128 + 2 * 2 * 64 * 128)

masked_tiles = "c"

kept_log_sum_exp = "d"

decode_intensity = 8 * 4 / 4

decode_bound = "a"
