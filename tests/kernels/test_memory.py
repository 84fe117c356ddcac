"""What is seen of a kernel's memory where it is interpreted: accesses outside its tensors, and programs that race."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton exists for Linux only")

import triton
import triton.language as tl

from autograder.observation import USES, Observation, observe
from tests.kernels.small_kernels import copied_by_descriptors


@triton.jit
def tile(x, y, n, BLOCK: tl.constexpr, HOW: tl.constexpr):
    program = tl.program_id(0)
    at = program * BLOCK + tl.arange(0, BLOCK)
    if HOW == "reads beyond":
        tl.store(y + at, tl.load(x + at), mask=at < n)
    elif HOW == "writes beyond":
        tl.store(y + n + at, tl.load(x + at, mask=at < n), mask=at < 2)
    elif HOW == "adds by hand":
        tl.store(y, tl.load(y) + tl.sum(tl.load(x + at, mask=at < n, other=0.0), 0))
    elif HOW == "adds with atomics":
        tl.atomic_add(y, tl.sum(tl.load(x + at, mask=at < n, other=0.0), 0))
    elif HOW == "clears, then adds":
        if program == 0:
            tl.store(y, 0.0)
        tl.atomic_add(y, tl.sum(tl.load(x + at, mask=at < n, other=0.0), 0))
    elif HOW == "overwrites":
        tl.store(y, program.to(tl.float32))
    elif HOW == "writes the same":
        tl.store(y + tl.arange(0, BLOCK), tl.arange(0, BLOCK).to(tl.float32), mask=tl.arange(0, BLOCK) < n)
    elif HOW == "in place":
        tl.store(x + at, tl.load(x + at, mask=at < n) * 2, mask=at < n)
    else:
        tl.store(y + at, tl.load(x + at, mask=at < n), mask=at < n)


@triton.jit
def last_adds_up(x, parts, ticket, y, n, BLOCK: tl.constexpr):
    """The program that draws the last ticket adds up what the others have left."""
    program, count = tl.program_id(0), tl.num_programs(0)
    at = program * BLOCK + tl.arange(0, BLOCK)
    tl.store(parts + program, tl.sum(tl.load(x + at, mask=at < n, other=0.0), 0))
    if tl.atomic_add(ticket, 1) == count - 1:
        places = tl.arange(0, BLOCK)
        tl.store(y, tl.sum(tl.load(parts + places, mask=places < count, other=0.0), 0))


def seen(how: str, n: int = 21) -> Observation:
    def call(given: dict[str, torch.Tensor]) -> torch.Tensor:
        # Of the memory behind x and y their tensors know nothing, and nobody is harmed.
        x, y = (torch.frombuffer(bytearray(4 * 64), dtype=torch.float32, count=n) for _ in range(2))
        x.copy_(given["x"])
        tile[(3,)](x, y, n, BLOCK=8, HOW=how)
        return y

    return observe(call, {"x": torch.randn(n)})


@pytest.mark.parametrize("how", ["reads beyond", "writes beyond"])
def test_an_access_outside_a_kernels_tensors_is_seen(how: str) -> None:
    assert seen(how).strayed == ("tile",)


@pytest.mark.parametrize("how", ["adds by hand", "clears, then adds", "overwrites"])
def test_programs_that_depend_on_their_order_are_seen(how: str) -> None:
    found = seen(how)
    assert (found.raced, found.strayed) == (("tile",), ())


@pytest.mark.parametrize("how", ["copies", "in place", "adds with atomics", "writes the same"])
def test_programs_that_keep_apart_are_left_alone(how: str) -> None:
    found = seen(how)
    assert (found.raced, found.strayed) == ((), ())


@pytest.mark.parametrize(
    ("options", "strayed", "raced"),
    [
        ({}, False, False),
        ({"how": "made inside"}, False, False),
        ({"rows": 12}, True, False),  # more than there are
        ({"overlap": 1}, False, True),
        ({"overlap": 1, "how": "made inside"}, False, True),
    ],
)
def test_blocks_of_descriptors_are_seen_where_they_lie(
    options: dict[str, Any], strayed: bool, raced: bool
) -> None:
    def call(given: dict[str, Tensor]) -> Tensor:
        return copied_by_descriptors(given["x"], **options)

    found = observe(call, {"x": torch.randn(10, 16)})
    assert (bool(found.strayed), bool(found.raced)) == (strayed, raced)


def test_programs_that_wait_for_each_other_are_left_alone() -> None:
    def call(given: dict[str, torch.Tensor]) -> torch.Tensor:
        y, parts, ticket = torch.zeros(1), torch.zeros(3), torch.zeros(1, dtype=torch.int32)
        last_adds_up[(3,)](given["x"], parts, ticket, y, 21, BLOCK=8)
        return y

    assert not observe(call, {"x": torch.randn(21)}).raced


@triton.jit
def product(x, y, BLOCK: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    at = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    tile = tl.load(x + at).to(DTYPE)
    tl.store(y + at, tl.dot(tile, tile, input_precision=PRECISION))


@pytest.mark.parametrize(
    ("dtype", "precision", "narrowed"),
    [
        (tl.float32, None, ("product",)),
        (tl.float32, "tf32", ("product",)),
        (tl.float32, "ieee", ()),
        (tl.float32, "tf32x3", ()),
        (tl.float16, None, ()),
    ],
)
def test_products_that_a_gpu_makes_of_fewer_bits_are_seen(
    dtype: Any, precision: str | None, narrowed: tuple[str, ...]
) -> None:
    def call(given: dict[str, torch.Tensor]) -> torch.Tensor:
        y = torch.empty(16, 16)
        product[(1,)](given["x"], y, BLOCK=16, DTYPE=dtype, PRECISION=precision)
        return y

    assert observe(call, {"x": torch.randn(16, 16)}).narrowed == narrowed


def test_the_interpreter_is_as_before_after_a_launch() -> None:
    from triton.runtime.interpreter import interpreter_builder

    before = set(vars(interpreter_builder)) - {"grid_idx", "grid_dim"}
    seen("copies")
    assert set(vars(interpreter_builder)) - {"grid_idx", "grid_dim"} == before


def test_a_rehearsal_counts_launches_and_programs_and_runs_nothing() -> None:
    touched: list[torch.Tensor] = []

    def call(given: dict[str, torch.Tensor]) -> torch.Tensor:
        y = torch.zeros(21)
        for _ in range(2):
            tile[(3,)](given["x"], y, 21, BLOCK=8, HOW="copies")
        touched.append(y)
        return y

    found = observe(call, {"x": torch.ones(21)}, idle=True)
    assert (found.launched, found.programs, len(found.launches)) == (2, 6, 1)
    assert not touched[0].any()


@pytest.mark.parametrize(
    ("work", "numbers"),
    [
        (lambda x: x.clone().transpose(0, 1)[1:], 0),
        (lambda x: torch.cat([x, torch.zeros(2, 5)]).half().contiguous(), 0),
        (lambda x: x * 2, 15),
        (lambda x: x.clone().mul_(2), 15),
        (lambda x: x.sum(), 15),
        (lambda x: x.unsqueeze(0) * torch.ones(4, 1, 1), 60),
    ],
)
def test_what_torch_calculates_with_is_counted_and_what_it_moves_is_not(
    work: Callable[[Any], Any], numbers: int
) -> None:
    assert observe(lambda given: work(given["x"]), {"x": torch.randn(3, 5)}).reckoned == numbers


def test_numbers_taken_out_of_torch_are_seen() -> None:
    x = torch.randn(2, 3)
    for work in (Tensor.tolist, Tensor.numpy, np.asarray, lambda x: [float(one) for one in x.flatten()]):
        assert observe(lambda given, work=work: work(given["x"]), {"x": x}).reckoned >= USES * x.numel()
    assert observe(lambda given: given["x"].sum().item(), {"x": x}).reckoned == x.numel() + USES
