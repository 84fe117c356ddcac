"""The reference kernels of `gpu_kernels` with all the tiles that a GPU tries: each builds for sm_90, and fits.

The interpreter launches them with its one small tile; here that launch is built again with the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from autograder.kernels import H200, Launch, cross_compile
from autograder.observation import observe
from solutions import gpu_kernels
from solutions.gpu_kernels import BACKWARD_TILES, DECODE_TILES, FORWARD_TILES

D = 128
TILES = {
    "forward_kernel": FORWARD_TILES,
    "key_value_kernel": BACKWARD_TILES,
    "query_kernel": BACKWARD_TILES,
    "split_kernel": DECODE_TILES,
}
SPILLS = {"key_value_kernel": 512}
"""Bytes a thread may spill. This kernel has two accumulators and two loops, and spills around them, hardly within."""
HEAVY = ("key_value_kernel", 128, 64)
"""Kernel, M, N: too much at this width; it is for narrower heads, and for the other kernel."""


def launches() -> dict[str, Launch]:
    """One launch of each kernel, at the width of a real model."""
    query, key = torch.randn(1, 2, 16, D).half(), torch.randn(1, 1, 16, D).half()
    cache, lengths = torch.randn(1, 1, 16, D).half(), torch.tensor([9], dtype=torch.int32)
    pages, table = torch.randn(2, 16, 1, D).half(), torch.tensor([[1]], dtype=torch.int32)
    output, sums = gpu_kernels.flash_forward(query, key, key, True)

    def call(given: Any) -> None:
        gpu_kernels.softmax_rows(given["x"])
        gpu_kernels.flash_forward(query, key, key, True)
        gpu_kernels.flash_backward(query, key, key, output, sums, query, True)
        gpu_kernels.decode_attention(query[:, :, 0], cache, cache, lengths)
        gpu_kernels.paged_attention(query[:, :, 0], pages, pages, table, lengths)

    return {one.kernel: one for one in observe(call, {"x": torch.randn(3, 1000).half()}).launches}


def test_every_tile_that_a_gpu_tries_builds_and_fits() -> None:
    found = launches()
    assert len(found) == 8
    asked: list[Launch] = []
    for kernel, launch in found.items():
        half = {name: kind.replace("fp16", "bf16") for name, kind in launch.signature.items()}
        for config in TILES.get(kernel, [None]):
            asked.append(
                replace(launch, signature=half)
                if config is None
                else replace(
                    launch,
                    signature=half,
                    constants={**launch.constants, **config.kwargs},
                    num_warps=config.num_warps,
                    num_stages=config.num_stages,
                )
            )
    for launch, built in zip(asked, cross_compile(asked), strict=True):
        tile = (launch.kernel, launch.constants.get("M"), launch.constants.get("N"))
        assert not built.error, f"{tile}: {built.error}"
        assert built.shared <= H200.shared, f"{tile}: {built}"
        assert tile == HEAVY or built.spilled <= SPILLS.get(launch.kernel, 64), f"{tile}: {built}"
