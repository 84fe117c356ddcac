"""C04: attention does not become cheaper by being fused; it moves less. And what the interpreter does not see."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("triton", reason="Triton exists for Linux only")

from autograder import check
from autograder.exercises import find
from autograder.observation import observe
from solutions.gpu_kernels import decode_attention, flash_bytes, flash_forward, naive_bytes, refuse_bfloat16


def test_the_answer_that_flash_attention_computes_less_is_told_why_not() -> None:
    """C04"""
    report = check("flash_saves", "a")
    assert not report.passed
    assert "quadratic" in str(report)
    assert find("flash_saves").claim == "C04"


def test_operations_are_quadratic_in_the_length() -> None:
    """C04"""
    counted = {}
    for S in (32, 64):
        q, k, v = torch.randn(3, 1, 2, S, 16)
        with FlopCounterMode(display=False) as counter:
            torch.softmax(q @ k.mT / 4, -1) @ v
        counted[S] = counter.get_total_flops()
    assert counted[64] == 4 * counted[32]


def test_no_tensor_of_the_kernel_is_quadratic() -> None:
    """C04"""
    query, key, value = torch.randn(3, 1, 1, 48, 4)
    seen = observe(lambda given: flash_forward(given["q"], key, value), {"q": query})
    assert seen.largest <= query.numel()
    assert seen.flops == 0  # the kernel's products are its own, not torch's
    assert naive_bytes > 30 * flash_bytes


def test_a_split_changes_no_result() -> None:
    torch.manual_seed(0)
    query, cache = torch.randn(1, 2, 8), torch.randn(2, 1, 1, 40, 8)
    lengths = torch.tensor([37], dtype=torch.int32)
    whole, split = (decode_attention(query, *cache, lengths, num_splits=n) for n in (1, 6))
    assert torch.allclose(whole, split, atol=1e-6)


def test_bfloat16_is_refused_on_the_cpu() -> None:
    with pytest.raises(ValueError, match="misreads bfloat16"):
        refuse_bfloat16(torch.zeros(2, dtype=torch.bfloat16))
