"""`softmax_rows`: right writings and mutants."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from solutions.gpu_kernels import refuse_bfloat16, softmax_rows
from tests.exercises.catalogue import mutant, right
from tests.exercises.gpu_kernels.conduct import contiguous_strides, copied, register, without_kernel_sense

NAME = "softmax_rows"


@triton.jit
def knobs(x, out, x_row, x_col, out_row, columns, BLOCK: tl.constexpr, BUG: tl.constexpr):
    """The kernel with a mistake of that name; "" is right."""
    row = tl.program_id(0).to(tl.int64)
    col = tl.arange(0, BLOCK)
    inside = col < columns
    tail: tl.constexpr = 0.0 if BUG == "tail" else -65504.0 if BUG == "half tail" else float("-inf")
    scores = tl.load(x + row * x_row + col * x_col, mask=inside, other=tail)
    if BUG != "half":
        scores = scores.to(tl.float32)
    highest = tl.max(scores, 0)
    if BUG == "no maximum":
        highest = 0.0
    top = tl.exp(scores - highest)
    total = tl.sum(top, 0)
    if BUG == "half":
        total = tl.sum(top.to(tl.float32), 0).to(x.dtype.element_ty)
    tl.store(out + row * out_row + col, (top / total).to(out.dtype.element_ty), mask=inside)


def run(x, bug="", strides=None, width=None):
    refuse_bfloat16(x)
    rows, columns = x.shape
    out = torch.empty((rows, columns), dtype=x.dtype)
    BLOCK = width or triton.next_power_of_2(columns)
    knobs[(rows,)](x, out, *(strides or x.stride()), out.stride(0), columns, BLOCK, bug)
    return out


@right(NAME)
def plain(x):
    return run(x)


@triton.jit
def several_rows(x, out, x_row, x_col, rows, columns, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (col < columns)[None, :]
    at = x + row[:, None] * x_row + col[None, :] * x_col
    scores = tl.load(at, mask=inside, other=-1e30).to(tl.float32) * 1.4426950408889634
    top = tl.exp2(scores - tl.max(scores, 1)[:, None])
    top = tl.where(col[None, :] < columns, top, 0.0)
    weights = top / tl.sum(top, 1)[:, None]
    tl.store(out + row[:, None] * columns + col[None, :], weights.to(out.dtype.element_ty), mask=inside)


@right(NAME)
def two_rows_a_program(x):
    if x.dtype == torch.bfloat16:
        raise ValueError("no bfloat16 here")
    out = torch.empty(x.shape, dtype=x.dtype)
    grid = (triton.cdiv(x.shape[0], 2),)
    several_rows[grid](x, out, *x.stride(), *x.shape, ROWS=2, BLOCK=triton.next_power_of_2(x.shape[1]))
    return out


@triton.jit
def in_blocks(x, out, columns, BLOCK: tl.constexpr):
    """Online: maximum and sum in one pass over blocks of the row, the weights in a second."""
    row = tl.program_id(0)
    highest, total = float("-inf"), 0.0
    for start in range(0, columns, BLOCK):
        col = start + tl.arange(0, BLOCK)
        part = tl.load(x + row * columns + col, mask=col < columns, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(part, 0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(part - higher), 0)
        highest = higher
    for start in range(0, columns, BLOCK):
        col = start + tl.arange(0, BLOCK)
        part = tl.load(x + row * columns + col, mask=col < columns, other=0.0).to(tl.float32)
        weights = tl.exp(part - highest) / total
        tl.store(out + row * columns + col, weights.to(out.dtype.element_ty), mask=col < columns)


@right(NAME)
def online(x):
    refuse_bfloat16(x)
    x = x.contiguous()
    out = torch.empty_like(x)
    in_blocks[(x.shape[0],)](x, out, x.shape[1], BLOCK=16384 if x.shape[1] > 9999 else 128)
    return out


def variant(name, named, bug, only=None):
    register(NAME, name, named, lambda x: run(x, bug), only)


variant("tail_takes_part", "the tail takes part", "tail")
variant("no_maximum", "overflows or underflows for large scores", "no maximum")
variant("sum_in_half", None, "half")
variant("least_number_of_half", None, "half tail")


@mutant(NAME, "fails at some sizes")
def at_most_a_thousand(x):
    if x.shape[1] < 10_000:
        kept = x[:, :1024]
        return torch.cat([run(kept), x.new_zeros(x.shape[0], x.shape[1] - kept.shape[1])], 1)
    return run(x)


@mutant(NAME, "depends on the memory layout of its inputs")
def contiguous_rows(x):
    return run(x, strides=contiguous_strides(x))


@mutant(NAME, "uses a forbidden function")
def half_in_torch(x):
    refuse_bfloat16(x)
    top = torch.exp((x - x.amax(1, keepdim=True)).float())
    return run(torch.log(top / top.sum(1, keepdim=True)).to(x.dtype))


@mutant(NAME, "calculates outside the kernel", only="own kernel")
def other_names_in_torch(x):
    refuse_bfloat16(x)
    top = torch.pow(2.718281828459045, x.float() - x.float().sort(-1).values[:, -1:])
    return copied((top / torch.linalg.vector_norm(top, 1, -1, keepdim=True)).to(x.dtype))


@mutant(NAME, "calculates outside the kernel", only="own kernel")
def lists_of_numbers(x):
    refuse_bfloat16(x)
    rows = [[math.exp(v - top) for v in row] for row in x.float().tolist() for top in [max(row)]]
    totals = [math.fsum(row) for row in rows]
    shares = [[v / total for v in row] for row, total in zip(rows, totals, strict=True)]
    return copied(torch.tensor(shares).to(x.dtype))


@mutant(NAME, "one program for everything", only="long inputs")
def one_program(x):
    refuse_bfloat16(x)
    out = torch.empty(x.shape, dtype=x.dtype)
    one_after_the_other[(1,)](
        x, out, *x.stride(), *x.shape, BLOCK=triton.next_power_of_2(x.shape[1]), num_warps=16
    )
    return out


@triton.jit
def one_after_the_other(x, out, x_row, x_col, rows, columns, BLOCK: tl.constexpr):
    """Persistent: each program takes every so many-th row."""
    col = tl.arange(0, BLOCK)
    inside = col < columns
    for row in range(tl.program_id(0), rows, tl.num_programs(0)):
        at = tl.zeros_like(col).to(tl.int64) + row
        scores = tl.load(x + at * x_row + col * x_col, mask=inside, other=float("-inf")).to(tl.float32)
        highest = tl.max(scores, 0)
        total = highest + tl.log(tl.sum(tl.exp(scores - highest), 0))
        tl.store(out + row * columns + col, tl.exp(scores - total).to(out.dtype.element_ty), mask=inside)


@right(NAME)
def four_persistent_programs(x):
    refuse_bfloat16(x)
    out = torch.empty(x.shape, dtype=x.dtype)
    one_after_the_other[(min(4, x.shape[0]),)](
        x, out, *x.stride(), *x.shape, BLOCK=triton.next_power_of_2(x.shape[1]), num_warps=16
    )
    return out


@triton.jit
def with_numpy(x, out, x_row, x_col, columns, BLOCK: tl.constexpr):
    """Python that only the interpreter can run: a list of tensors."""
    row, col = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = col < columns
    parts = []
    parts.append(tl.load(x + row * x_row + col * x_col, mask=inside, other=float("-inf")).to(tl.float32))
    scores = parts[0]
    top = tl.exp(scores - tl.max(scores, 0))
    tl.store(out + row * columns + col, (top / tl.sum(top, 0)).to(out.dtype.element_ty), mask=inside)


@mutant(NAME, "does not compile for a GPU", only="fits a GPU")
def python_in_the_kernel(x):
    refuse_bfloat16(x)
    out = torch.empty(x.shape, dtype=x.dtype)
    with_numpy[(x.shape[0],)](x, out, *x.stride(), x.shape[1], BLOCK=triton.next_power_of_2(x.shape[1]))
    return out


def in_torch(x):
    refuse_bfloat16(x)
    return torch.softmax(x.float(), -1).to(x.dtype)


without_kernel_sense(NAME, softmax_rows, in_torch)
