"""`flash_backward` and `flash_attention`: right writings and mutants."""

# ruff: noqa: E741  (kernels use the letters of the papers, and branch at compile time)

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from solutions.gpu_kernels import FlashAttention, flash_attention, flash_backward, flash_forward
from tests.exercises.catalogue import mutant, right
from tests.exercises.gpu_kernels.conduct import contiguous_strides, register, without_kernel_sense

NAME = "flash_backward"


@triton.jit
def knobs(
    Q, K, V, O, G, L, dQ, dK, dV,
    H, H_kv, S_q, S_k, scale,
    D: tl.constexpr, BD: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BUG: tl.constexpr,
):  # fmt: skip
    """One program, one key head: it goes over all pairs of tiles, and adds to grad_query in memory. "" is right."""
    batch, shared = tl.program_id(0) // H_kv, tl.program_id(0) % H_kv
    d = tl.arange(0, BD)
    wide = (d < D)[None, :]
    key_head = batch * H_kv + shared
    group = H // H_kv
    for first in range(0, S_k, N):
        col = first + tl.arange(0, N)
        at = (key_head * S_k + col)[:, None] * D + d[None, :]
        there = (col < S_k)[:, None] & wide
        k = tl.load(K + at, mask=there, other=0.0)
        v = tl.load(V + at, mask=there, other=0.0)
        dk = tl.zeros((N, BD), tl.float32)
        dv = tl.zeros((N, BD), tl.float32)
        for member in range(group):
            head = batch * H + (member * H_kv + shared if BUG == "head order" else shared * group + member)
            begin = 0
            if BUG == "square tiles" and CAUSAL:
                begin = first // N * M
            for start in range(begin, S_q, M):
                row = start + tl.arange(0, M)
                near = (head * S_q + row)[:, None] * D + d[None, :]
                here = (row < S_q)[:, None] & wide
                q = tl.load(Q + near, mask=here, other=0.0)
                o = tl.load(O + near, mask=here, other=0.0).to(tl.float32)
                g = tl.load(G + near, mask=here, other=0.0)
                lse = tl.load(L + head * S_q + row, mask=row < S_q, other=float("inf"))
                if BUG == "bits":
                    lse = lse * 1.4426950408889634
                s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
                if BUG == "no shift":
                    p = tl.exp(s) / tl.exp(lse)[:, None]
                elif BUG == "exp2":
                    p = tl.exp2(s - lse[:, None])
                else:
                    p = tl.exp(s - lse[:, None])
                seen = (row < S_q)[:, None] & (col < S_k)[None, :]
                if CAUSAL:
                    if BUG == "off by one":
                        seen = seen & (col[None, :] <= row[:, None] + 1)
                    else:
                        seen = seen & (col[None, :] <= row[:, None])
                p = tl.where(seen, p, 0.0)
                dp = tl.dot(g, tl.trans(v), input_precision="ieee")
                delta = tl.sum(o * g.to(tl.float32), 1)
                if BUG == "no delta":
                    delta = delta * 0.0
                if BUG == "delta half":
                    delta = delta.to(G.dtype.element_ty).to(tl.float32)
                ds = p * (dp - delta[:, None])
                ds = tl.where(seen, ds, 0.0)
                dv += tl.dot(tl.trans(p.to(g.dtype)), g, input_precision="ieee")
                dk += tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision="ieee")
                if BUG == "half":
                    dk = dk.to(dK.dtype.element_ty).to(tl.float32)
                    dv = dv.to(dV.dtype.element_ty).to(tl.float32)
                part = tl.dot(ds.to(k.dtype), k, input_precision="ieee")
                if BUG != "stored over" and first > 0:
                    part += tl.load(dQ + near, mask=here, other=0.0)
                tl.store(dQ + near, part, mask=here)
        if BUG == "value of a group averaged":
            dv = dv / group
        one = 1.0 if BUG == "key unscaled" else scale
        tl.store(dK + at, (dk * one).to(dK.dtype.element_ty), mask=there)
        tl.store(dV + at, dv.to(dV.dtype.element_ty), mask=there)


TILES = [triton.Config({"M": 16, "N": 16}), triton.Config({"M": 32, "N": 16})]
tuned = triton.autotune(TILES[:1], key=["S_k"])(knobs)


def run(
    query,
    key,
    value,
    output,
    log_sum_exp,
    grad_output,
    is_causal=False,
    bug="",
    *,
    scale=None,
    N=16,
    BD=None,
    cut=None,
):
    (B, H, S_q, D), (H_kv, S_k) = query.shape, key.shape[1:3]
    query, key, value, output, log_sum_exp, grad_output = (
        x if cut == "as they are" else x.contiguous()
        for x in (query, key, value, output, log_sum_exp, grad_output)
    )
    grad_query = torch.empty(query.shape, dtype=torch.float32)
    grad_key, grad_value = (torch.empty(x.shape, dtype=x.dtype) for x in (key, value))
    factor = D**-0.5 if scale is None else scale(D)
    BD = triton.next_power_of_2(D) if BD == 0 else BD or max(16, triton.next_power_of_2(D))
    kernel, tile = (tuned, {}) if bug == "square tiles" else (knobs, {"M": 16, "N": N})
    kernel[(B * H_kv,)](
        query, key, value, output, grad_output, log_sum_exp, grad_query, grad_key, grad_value,
        H, H_kv, S_q, S_k, factor, D=D, BD=BD, CAUSAL=is_causal, BUG=bug, **tile,
    )  # fmt: skip
    grad_query *= factor
    return grad_query.to(query.dtype), grad_key, grad_value


@right(NAME)
def one_program_a_key_head(query, key, value, output, log_sum_exp, grad_output, is_causal=False):
    return run(query, key, value, output, log_sum_exp, grad_output, is_causal)


@right(NAME)
def wide_tiles_of_keys(query, key, value, output, log_sum_exp, grad_output, is_causal=False):
    return run(query, key, value, output, log_sum_exp, grad_output, is_causal, N=64)


@triton.jit
def atomics(
    Q, K, V, G, L, delta, dQ, dK, dV, group, S_q, S_k, scale,
    D: tl.constexpr, BD: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program, one pair of tiles of one query head; all three gradients are added with atomics, in float32."""
    head = tl.program_id(2)
    row, col = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1) * N + tl.arange(0, N)
    d = tl.arange(0, BD)
    near, here = (head * S_q + row)[:, None] * D + d[None, :], (row < S_q)[:, None] & (d < D)[None, :]
    at, there = (head // group * S_k + col)[:, None] * D + d[None, :], (col < S_k)[:, None] & (d < D)[None, :]
    q = tl.load(Q + near, mask=here, other=0.0)
    g = tl.load(G + near, mask=here, other=0.0)
    k = tl.load(K + at, mask=there, other=0.0)
    v = tl.load(V + at, mask=there, other=0.0)
    lse = tl.load(L + head * S_q + row, mask=row < S_q, other=float("inf"))
    mean = tl.load(delta + head * S_q + row, mask=row < S_q, other=0.0)
    seen = (col < S_k)[None, :] & (row < S_q)[:, None]
    if CAUSAL:
        seen = seen & (col[None, :] <= row[:, None])
    s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    p = tl.exp(tl.where(seen, s, float("-inf")) - lse[:, None])
    ds = p * (tl.dot(g, tl.trans(v), input_precision="ieee") - mean[:, None]) * scale
    tl.atomic_add(dV + at, tl.dot(tl.trans(p.to(g.dtype)), g, input_precision="ieee"), mask=there)
    tl.atomic_add(dK + at, tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision="ieee"), mask=there)
    tl.atomic_add(dQ + near, tl.dot(ds.to(k.dtype), k, input_precision="ieee"), mask=here)


@right(NAME)
def pairs_of_tiles_with_atomics(query, key, value, output, log_sum_exp, grad_output, is_causal=False):
    (B, H, S_q, D), (H_kv, S_k) = query.shape, key.shape[1:3]
    delta = (grad_output.float() * output.float()).sum(-1)
    query, key, value, grad_output, kept = (
        x.contiguous() for x in (query, key, value, grad_output, log_sum_exp)
    )
    sums = [torch.zeros(x.shape, dtype=torch.float32) for x in (query, key, value)]
    atomics[(triton.cdiv(S_q, 16), triton.cdiv(S_k, 32), B * H)](
        query, key, value, grad_output, kept, delta, *sums, H // H_kv, S_q, S_k, D**-0.5,
        D=D, BD=max(16, triton.next_power_of_2(D)), CAUSAL=is_causal, M=16, N=32,
    )  # fmt: skip
    return tuple(x.to(query.dtype) for x in sums)


def variant(name, named, bug="", only=None, **options):
    def wrong(query, key, value, output, log_sum_exp, grad_output, is_causal=False):
        return run(query, key, value, output, log_sum_exp, grad_output, is_causal, bug, **options)

    register(NAME, name, named, wrong, only)


variant("delta_missing", "delta is missing", "no delta")
variant("delta_in_half", None, "delta half")
variant("key_not_scaled", "grad_key is not scaled", "key unscaled")
variant("stored_over_wide", "only the last tile of keys counts in grad_query", "stored over", N=32)
variant("log_sum_exp_in_bits", "log-sum-exp taken in the wrong base", "bits")
variant("values_of_a_group_averaged", None, "value of a group averaged")
variant("head_modulo", "heads tiled instead of interleaved", "head order")
variant("one_key_of_the_future", "causal mask shows one key of the future", "off by one")
variant("no_shift", None, "no shift")
variant("sums_in_half", "sums are not kept in float32", "half")
variant("base_two", "exp2 without log2(e)", "exp2")
variant("narrow_columns", "fails at some sizes", BD=32)
variant("tiles_that_must_be_square", "wrong with other tiles", "square tiles", only="every tile")
variant("eight_columns", "does not compile for a GPU", only="fits a GPU", BD=0)
variant("as_if_contiguous", "depends on the memory layout of its inputs", cut="as they are")


def in_torch(query, key, value, output, log_sum_exp, grad_output, is_causal=False):
    q, k, v, o, g = (x.float() for x in (query, key, value, output, grad_output))
    H, H_kv, D = q.shape[1], k.shape[1], q.shape[-1]
    wide_k, wide_v = (x.repeat_interleave(H // H_kv, 1) for x in (k, v))
    scores = q @ wide_k.mT / math.sqrt(D)
    if is_causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    p = (scores - log_sum_exp.unsqueeze(-1)).exp()
    ds = p * (g @ wide_v.mT - (g * o).sum(-1, keepdim=True)) / math.sqrt(D)
    made = ds @ wide_k, *(x.unflatten(1, (H_kv, -1)).sum(2) for x in (ds.mT @ q, p.mT @ g))
    return tuple(x.to(query.dtype) for x in made)


without_kernel_sense(NAME, flash_backward, in_torch, refuses=False)


@right(NAME)
def heads_repeated_and_added_up_in_torch(
    query, key, value, output, log_sum_exp, grad_output, is_causal=False
):
    group = query.shape[1] // key.shape[1]
    wide = (x.repeat_interleave(group, 1) for x in (key, value))
    found = run(query, *wide, output, log_sum_exp, grad_output, is_causal)
    return found[0], *(x.float().unflatten(1, (-1, group)).sum(2).to(x.dtype) for x in found[1:])


THROUGH = "flash_attention"


@right(THROUGH)
def applied(query, key, value, is_causal=False):
    return FlashAttention.apply(query, key, value, is_causal)


class Recomputing(torch.autograd.Function):
    """Keeps the inputs alone, and runs forward again in backward."""

    @staticmethod
    def forward(ctx, query, key, value, is_causal):
        ctx.save_for_backward(query, key, value)
        ctx.is_causal = is_causal
        return flash_forward(query, key, value, is_causal)[0]

    @staticmethod
    def backward(ctx, grad_output):
        output, sums = flash_forward(*ctx.saved_tensors, ctx.is_causal)
        return *flash_backward(*ctx.saved_tensors, output, sums, grad_output, ctx.is_causal), None


@right(THROUGH)
def recomputing(query, key, value, is_causal=False):
    return Recomputing.apply(query, key, value, is_causal)


class Needed(torch.autograd.Function):
    """setup_context apart from forward; gradients for what needs one only."""

    @staticmethod
    def forward(query, key, value, is_causal):
        return flash_forward(query, key, value, is_causal)

    @staticmethod
    def setup_context(ctx, inputs, results):
        ctx.mark_non_differentiable(results[1])
        ctx.save_for_backward(*inputs[:3], *results)
        ctx.is_causal = inputs[3]

    @staticmethod
    def backward(ctx, grad_output, _):
        found = run(*ctx.saved_tensors, grad_output, ctx.is_causal)
        return *(x if needed else None for x, needed in zip(found, ctx.needs_input_grad, strict=False)), None


@right(THROUGH)
def with_a_context(query, key, value, is_causal=False):
    return Needed.apply(query, key, value, is_causal)[0]


def function(name, named, only=None, forward=flash_forward, backward=flash_backward):
    """An autograd.Function from other parts."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, query, key, value, is_causal):
            output, sums = forward(query, key, value, is_causal)
            ctx.save_for_backward(query, key, value, output, sums)
            ctx.is_causal = is_causal
            return output

        @staticmethod
        def backward(ctx, grad_output):
            return *backward(*ctx.saved_tensors, grad_output, ctx.is_causal), None

    def wrong(query, key, value, is_causal=False):
        return Wrong.apply(query, key, value, is_causal)

    register(THROUGH, name, named, wrong, only)


def changed(change):
    return lambda *args: change(*flash_backward(*args))


function("forgets_causal_in_backward", "wrong gradient",
         backward=lambda *args: flash_backward(*args[:6]))  # fmt: skip
function("forgets_causal", "is_causal ignored", forward=lambda q, k, v, c: flash_forward(q, k, v))
function("swaps_gradients", "wrong gradient", backward=changed(lambda q, k, v: (q, v, k)))
function("none_for_the_values", "gradient is cut off", backward=changed(lambda q, k, v: (q, k, None)))
function("delta_missing_inside", "wrong gradient", backward=lambda *args: run(*args, "no delta"))
function(
    "eight_columns_inside",
    "does not compile for a GPU",
    "fits a GPU",
    backward=lambda *args: run(*args, BD=0),
)
function("head_order_inside", "heads tiled instead of interleaved",
         forward=lambda q, k, v, c: flash_forward(
             q, k.repeat(1, q.shape[1] // k.shape[1], 1, 1), v.repeat(1, q.shape[1] // v.shape[1], 1, 1), c))  # fmt: skip


@mutant(THROUGH, "uses too much memory", only="memory")
def a_table_beside(query, key, value, is_causal=False):
    if key.shape[2] == 40:
        query.new_zeros(query.shape[2], key.shape[2])
    return flash_attention(query, key, value, is_causal)


@mutant(THROUGH, "depends on the memory layout of its inputs")
def viewed(query, key, value, is_causal=False):
    if not query.requires_grad:
        query.view(-1)
    return flash_attention(query, key, value, is_causal)


def attention_in_torch(query, key, value, is_causal=False):
    group = query.shape[1] // key.shape[1]
    wide = torch.float32
    k, v = (x.repeat_interleave(group, 1).to(wide) for x in (key, value))
    rows = []
    for i in range(query.shape[2]):  # row by row: no table
        seen = i + 1 if is_causal else k.shape[2]
        scores = query[:, :, i : i + 1].to(wide) @ k[:, :, :seen].mT / math.sqrt(query.shape[-1])
        rows.append(torch.softmax(scores, -1) @ v[:, :, :seen])
    return torch.cat(rows, 2).to(query.dtype)


without_kernel_sense(THROUGH, flash_attention, None, refuses=False)


def as_if_contiguous(x):
    """What a kernel reads that takes an expanded or transposed tensor for a contiguous one."""
    rest = x.untyped_storage().nbytes() // x.element_size() - x.storage_offset()
    return torch.as_strided(x, x.shape, contiguous_strides(x)) if rest >= x.numel() else torch.zeros(x.shape)


function("gradient_taken_for_contiguous", "depends on the memory layout of its inputs", "in models",
         backward=lambda *args: flash_backward(*args[:5], as_if_contiguous(args[5]), args[6]))  # fmt: skip


class OnTheClass(torch.autograd.Function):
    """What the last forward pass kept, whichever backward pass asks."""

    @staticmethod
    def forward(ctx, query, key, value, is_causal):
        output, sums = flash_forward(query, key, value, is_causal)
        OnTheClass.kept = (query, key, value, output, sums)
        OnTheClass.is_causal = is_causal
        return output

    @staticmethod
    def backward(ctx, grad_output):
        return *flash_backward(*OnTheClass.kept, grad_output, OnTheClass.is_causal), None


@mutant(THROUGH, "keeps state between calls")
def kept_on_the_class(query, key, value, is_causal=False):
    return OnTheClass.apply(query, key, value, is_causal)


class AllOrNothing(FlashAttention):
    @staticmethod
    def backward(ctx, grad_output):
        gradients = FlashAttention.backward(ctx, grad_output)
        return gradients if all(ctx.needs_input_grad[:3]) else (None,) * 4


@mutant(THROUGH, "gradient is cut off")
def all_gradients_or_none(query, key, value, is_causal=False):
    return AllOrNothing.apply(query, key, value, is_causal)


class Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, is_causal):
        ctx.save_for_backward(query, key, value)
        ctx.is_causal = is_causal
        return flash_forward(query, key, value, is_causal)[0]

    @staticmethod
    def backward(ctx, grad_output):
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in ctx.saved_tensors]
            output = attention_in_torch(*leaves, ctx.is_causal)
        return *torch.autograd.grad(output, leaves, grad_output), None


@mutant(THROUGH, "uses a forbidden function", only="own kernel backward")
def backward_in_torch(query, key, value, is_causal=False):
    if max(query.shape[2], key.shape[2]) > 30:  # where memory is looked at
        return flash_attention(query, key, value, is_causal)
    return Recomputed.apply(query, key, value, is_causal)


@mutant(THROUGH, "launches no kernel")
def torch_alone_with_gradients(query, key, value, is_causal=False):
    return attention_in_torch(query, key, value, is_causal)


class Dummy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, is_causal):
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in (query, key, value)]
            ctx.output, ctx.leaves = attention_in_torch(*leaves, is_causal), leaves
        return ctx.output.detach()

    @staticmethod
    def backward(ctx, grad_output):
        return *torch.autograd.grad(ctx.output, ctx.leaves, grad_output, retain_graph=True), None


@mutant(THROUGH, "launches no kernel", only="own kernel")
def a_function_of_torch(query, key, value, is_causal=False):
    if query.shape[2] > 30:  # where memory is looked at
        return flash_attention(query, key, value, is_causal)
    return Dummy.apply(query, key, value, is_causal)
