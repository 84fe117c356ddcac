"""What can be wrong about any kernel's wrapper, made from a right one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tests.exercises.catalogue import mutant

__all__ = ["contiguous_strides", "copied", "register", "without_kernel_sense"]


def register(exercise: str, name: str, named: str | None, obj: Any, only: str | None = None) -> None:
    """A mutant under a name of its own."""
    obj.__name__ = name
    mutant(exercise, named, only=only)(obj)


def contiguous_strides(x: Tensor) -> tuple[int, ...]:
    """The strides that x would have if it were contiguous."""
    return torch.empty(x.shape, device="meta").stride()


def _floats(args: tuple[Any, ...]) -> list[Tensor]:
    return [x for x in args if isinstance(x, Tensor) and x.is_floating_point()]


@triton.jit
def copying(x, y, n, STRIDE: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr):
    """Blocks that overlap where STRIDE is less than BLOCK; a load that runs over the end where it is not MASKED."""
    at = tl.program_id(0) * STRIDE + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n, other=0.0) if MASKED else tl.load(x + at)
    tl.store(y + at, value, mask=at < n)


@triton.jit
def adding(y, n, BLOCK: tl.constexpr):
    """All programs add to y[0] what stands behind it, without atomics."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y, tl.load(y) + tl.sum(tl.load(y + 1 + at, mask=at < n, other=0.0), 0))


@triton.jit
def multiplying(x, y, n, BLOCK: tl.constexpr):
    """The product of a tile with itself, in what a GPU takes for float32 by itself."""
    at = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    tile = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    tl.store(y + at, tl.dot(tile, tile))


def multiplied(x: Tensor) -> Tensor:
    """The square of a matrix of the first numbers."""
    y = torch.empty(16, 16, dtype=torch.float32)
    multiplying[(1,)](x.contiguous(), y, x.numel(), BLOCK=16)
    return y


def copied(x: Tensor, *, masked: bool = True, at_once: int = 512) -> Tensor:
    """A copy made by a kernel, in one launch for so many numbers."""
    x, y = x.contiguous(), torch.empty(x.shape, dtype=x.dtype)
    flat, made = x.view(-1), y.view(-1)
    for start in range(0, x.numel(), at_once):
        part, to = flat[start : start + at_once], made[start : start + at_once]
        copying[(triton.cdiv(part.numel(), 64),)](part, to, part.numel(), STRIDE=64, BLOCK=64, MASKED=masked)
    return y


def summed(x: Tensor) -> Tensor:
    """The sum of all numbers, behind a 0 at first."""
    sums = torch.cat([x.new_zeros(1), x.reshape(-1)])
    adding[(triton.cdiv(x.numel(), 16),)](sums, x.numel(), BLOCK=16)
    return sums[0]


def without_kernel_sense(
    exercise: str, right: Callable[..., Any], in_torch: Callable[..., Any] | None, *, refuses: bool = True
) -> None:
    """Register wrappers that do one thing wrong around a right kernel, and an answer without any.

    in_torch: right without any kernel. refuses: the exercise asks that bfloat16 be refused.
    """

    def beside(work: Callable[[Tensor], Any]) -> Callable[..., Any]:
        def wrong(*args: Any, **kwargs: Any) -> Any:
            work(max(_floats(args), key=Tensor.numel).detach())
            return right(*args, **kwargs)

        return wrong

    for name, named, work, only in (
        (
            "copies_beyond_the_end",
            "reads or writes outside its tensors",
            lambda x: copied(x, masked=False, at_once=1 << 30),
            "safe access",
        ),
        ("sums_without_atomics", "programs get into each other's way", summed, "safe access"),
        ("launches_for_each_piece", "launches grow with the input", copied, "long inputs"),
        ("products_in_tf32", "multiplies float32 in TF32", multiplied, "float32 products"),
    ):
        if exercise == "softmax_rows" and only == "float32 products":
            continue
        register(exercise, name, named, beside(work), only)

    if refuses:

        def casts(*args: Any, **kwargs: Any) -> Any:
            dtype = _floats(args)[0].dtype
            if dtype != torch.bfloat16:
                return right(*args, **kwargs)
            wide = [x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args]
            result = right(*wide, **kwargs)
            return result.to(dtype) if isinstance(result, Tensor) else tuple(x.to(dtype) for x in result)

        name = "bfloat16 is not refused on the CPU"
        register(exercise, "casts_bfloat16", name, casts, "bfloat16 on the CPU")
    if in_torch is not None:
        register(exercise, "torch_alone", "launches no kernel", in_torch, "own kernel")
