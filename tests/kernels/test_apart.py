"""Tensors that lie far apart in memory, and tiles other than the first: what shows on a GPU alone, shown by the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

import triton
import triton.language as tl

from autograder.circumstance import Circumstance, performed
from autograder.kernels.far import STEP, far_apart

TILES = [triton.Config({"BLOCK": size}) for size in (16, 32, 64)]


@triton.jit
def copying(x, y, x_row, columns, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    if WIDE:
        row = row.to(tl.int64)
    tl.store(
        y + row * columns + column, tl.load(x + row * x_row + column, column < columns), column < columns
    )


@triton.autotune(TILES[:1], key=["columns"])
@triton.jit
def numbered(y, columns, BLOCK: tl.constexpr):
    tl.store(y + tl.arange(0, 1), BLOCK + tl.zeros((1,), tl.float32))


def copied(x: torch.Tensor, wide: bool) -> torch.Tensor:
    y = torch.empty(x.shape)
    copying[(x.shape[0],)](x, y, x.stride(0), x.shape[1], BLOCK=8, WIDE=wide)
    return y


def test_rows_far_apart_hold_the_same_numbers() -> None:
    x = torch.randn(4, 2, 3)
    far = far_apart(x)
    assert far.stride() == (STEP, 3, 1)
    assert torch.equal(far, x)
    assert far_apart(x[:2]) is not x
    assert far_apart(x[:2]).stride() == x.stride()


@pytest.mark.parametrize(
    "whole", [torch.arange(12).view(4, 3), torch.randn(5)], ids=["whole numbers", "one axis"]
)
def test_what_has_no_rows_of_numbers_stays_as_it_is(whole: torch.Tensor) -> None:
    assert far_apart(whole) is whole


def test_offsets_of_32_bits_do_not_reach_the_third_row() -> None:
    x, far = torch.randn(3, 5), Circumstance(far=True)
    assert torch.equal(performed(lambda change: copied(change(x), True), [x], far), x)
    with pytest.raises(Exception, match="wrapped round in 32 bits"):
        performed(lambda change: copied(change(x), False), [x], far)


@pytest.mark.parametrize(("place", "size"), [(0, 16), (1, 32), (2, 64), (3, 16)])
def test_a_kernel_runs_with_the_configuration_that_is_asked_for(place: int, size: int) -> None:
    def call(change: Any) -> torch.Tensor:
        y = torch.zeros(1)
        numbered[(1,)](y, 1)
        return y

    assert performed(call, [], Circumstance(tiles=place)).item() == size
