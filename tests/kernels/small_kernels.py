"""Small Triton programs, right ones and wrong ones, as a student's cell would hold them. Needs Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

FACTOR = tl.constexpr(2.0)
PLAIN = 2.0


@triton.jit
def scaled(x):
    return x * FACTOR


@triton.jit
def softmax_kernel(source, target, width, BLOCK: tl.constexpr, DTYPE: tl.constexpr):
    row = tl.program_id(0)
    places = tl.arange(0, BLOCK)
    x = scaled(tl.load(source + row * width + places, mask=places < width, other=-float("inf")))
    e = tl.exp(x - tl.max(x, 0))
    tl.store(target + row * width + places, (e / tl.sum(e, 0)).to(DTYPE), mask=places < width)


@triton.jit
def plain_global_kernel(source, target, width, BLOCK: tl.constexpr):
    places = tl.arange(0, BLOCK)
    x = tl.load(source + places, mask=places < width, other=0.0)
    tl.store(target + places, x * PLAIN, mask=places < width)


@triton.jit
def product_kernel(a, b, target, BLOCK: tl.constexpr):
    places = tl.arange(0, BLOCK)
    tile = places[:, None] * BLOCK + places[None, :]
    tl.store(target + tile, tl.dot(tl.load(a + tile), tl.load(b + tile)))


@triton.jit
def block_kernel(source, target, overlap, HOW: tl.constexpr):
    """Copies blocks of a matrix, one a program. HOW: whether the descriptors come from outside."""
    M: tl.constexpr = 4
    W: tl.constexpr = 16
    if HOW == "made inside":
        source = tl.make_tensor_descriptor(source, shape=[10, W], strides=[W, 1], block_shape=[M, W])
        target = tl.make_tensor_descriptor(target, shape=[10, W], strides=[W, 1], block_shape=[M, W])
    program = tl.program_id(0)
    target.store([program * (M - overlap), 0], source.load([program * M, 0]))


def copied_by_descriptors(
    x: torch.Tensor, *, rows: int = 10, overlap: int = 0, how: str = ""
) -> torch.Tensor:
    """A copy of (10, 16). rows: how many the descriptor of x tells of. overlap: rows that blocks of y share."""
    y = torch.zeros_like(x)
    source = TensorDescriptor(x, [rows, 16], [16, 1], [4, 16])
    target = TensorDescriptor.from_tensor(y, [4, 16])
    if how == "made inside":
        block_kernel[(3,)](x, y, overlap, HOW=how)
    else:
        block_kernel[(3,)](source, target=target, overlap=overlap, HOW=how)
    return y


def softmax_of_twice(x: torch.Tensor, rows: int | None = None) -> torch.Tensor:
    """Softmax of 2 x over the last axis of (rows, width); of the first `rows` only, if given."""
    y = torch.empty_like(x)
    count, width = x.shape
    softmax_kernel[(rows or count,)](x, y, width, BLOCK=128, DTYPE=tl.float32, num_warps=8)
    return y


def uncovered(x: torch.Tensor) -> torch.Tensor:
    """As above, without the last row."""
    return softmax_of_twice(x, x.shape[0] - 1)


def with_a_plain_global(x: torch.Tensor) -> torch.Tensor:
    """The interpreter lets a kernel read any global; the compiler does not."""
    y = torch.empty_like(x)
    plain_global_kernel[(1,)](x, y, x.numel(), BLOCK=1024)
    return y


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of two square matrices, as one tile."""
    c = torch.empty_like(a)
    product_kernel[lambda meta: (1,)](a, b, c, BLOCK=a.shape[0])
    return c


class Twice(torch.autograd.Function):
    """A forward pass without a kernel, and a backward pass with one."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return softmax_of_twice(gradient)


def twice(x: torch.Tensor) -> torch.Tensor:
    return Twice.apply(x)


def reads_far_outside(x: torch.Tensor) -> torch.Tensor:
    """Ends the process."""
    y = torch.empty_like(x)
    softmax_kernel[(10,)](x, y, 1 << 40, BLOCK=128, DTYPE=tl.float32)
    return y
