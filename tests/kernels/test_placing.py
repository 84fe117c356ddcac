"""Tensors beside the GPU for a call."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from autograder.kernels import NOT_VERIFIED, device_note, gpu
from autograder.kernels.placing import beside_the_gpu


def test_where_kernels_are_interpreted_nothing_moves() -> None:
    assert beside_the_gpu(torch.add) is torch.add
    assert device_note() == NOT_VERIFIED


def test_tensors_in_lists_and_options_are_moved_too() -> None:
    seen: list[Any] = []

    def look(*args: Any, **kwargs: Any) -> None:
        seen.extend(
            [args[0].device.type, args[1][0].device.type, kwargs["mask"].device.type, kwargs["scale"]]
        )

    x = torch.ones(2)
    beside_the_gpu(look, device="meta")(x, [x], mask=x, scale=2.0)
    assert seen == ["meta", "meta", "meta", 2.0]


def test_gradients_follow() -> None:
    x = torch.ones(3, requires_grad=True)
    output, rest = beside_the_gpu(lambda x: ((3 * x).double(), {"a": [x]}), device="cpu")(x)
    output.sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 3.0))
    assert rest["a"][0].device.type == "cpu"


def test_a_gpu_is_claimed_only_where_kernels_ran_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpu_name", lambda: "H200")
    assert device_note() == NOT_VERIFIED
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert device_note() == "Ran on a GPU: H200."
    monkeypatch.setattr(gpu, "gpu_name", lambda: "")
    assert device_note() == NOT_VERIFIED
