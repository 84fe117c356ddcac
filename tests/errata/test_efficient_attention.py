"""What attention costs, and how far it reaches, in our own words and numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from autograder import check
from autograder.observation import observe
from solutions.efficient_attention import (
    block_sparse_attention,
    chunked_attention,
    online_softmax,
    sliding_window_attention,
)

D = 8


def dense(query: Tensor, key: Tensor, value: Tensor, block_size: int = 0) -> tuple[Tensor, Tensor]:
    scores = query @ key.mT / query.shape[-1] ** 0.5
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


def cost(function: Callable[..., Any], length: int, **more: Any) -> tuple[int, int]:
    """Floating-point operations, and the elements of the largest tensor, at one length."""
    given = {name: torch.randn(length, D) for name in ("query", "key", "value")} | more
    seen = observe(lambda inputs: function(**inputs), given)
    return seen.flops, seen.largest


def test_dense_attention_is_quadratic_in_work_and_memory() -> None:
    """C04: attention does not reduce computation; four times the length is sixteen times the work."""
    (short_work, short_size), (long_work, long_size) = (cost(dense, length) for length in (128, 512))
    assert long_work == 16 * short_work == 4 * 512**2 * D
    assert long_size == 16 * short_size == 512**2


def test_chunks_reduce_memory_and_no_work() -> None:
    """C04: the order of the work changes, not its amount."""
    work, size = cost(chunked_attention, 512, block_size=16)
    assert work == cost(dense, 512)[0]
    assert size == 512 * 16


def test_a_causal_chunk_may_skip_almost_half_and_no_more() -> None:
    """C04: the tiles on the diagonal are computed whole: 136 of 256."""
    tiles = [(i, j) for i in range(16) for j in range(16) if j <= i]
    assert len(tiles) == 136
    assert len(tiles) / 256 == pytest.approx(0.5, abs=0.04)


def test_what_reduces_computation_is_leaving_pairs_out() -> None:
    """C04: a window and a sparse pattern are linear where dense attention is quadratic."""
    works = [cost(sliding_window_attention, length, window=16)[0] for length in (256, 512, 1024)]
    assert works[2] - works[1] == 2 * (works[1] - works[0])
    patterns = [torch.eye(length // 16, dtype=torch.bool) for length in (256, 512)]
    sparse = [
        cost(block_sparse_attention, 16 * len(one), block_mask=one, block_size=16)[0] for one in patterns
    ]
    assert sparse[1] == 2 * sparse[0] == 512 // 16 * 16**2 * 4 * D


def test_dense_attention_reaches_the_first_position_in_one_step() -> None:
    """C11: distant information can be captured, and its distance does not weaken it."""
    torch.manual_seed(0)
    query, value = torch.randn(1, D) * 4, torch.randn(1000, D)
    for place in (0, 500, 999):
        key = torch.randn(1000, D)
        key[place] = query[0] * 4
        output, _ = chunked_attention(query, key, value, 64)
        assert torch.allclose(output, value[place], atol=1e-3)
        assert torch.allclose(output, scaled_dot_product_attention(query, key, value), atol=1e-5)


def test_a_window_cannot_see_what_lies_before_it_but_layers_add_up() -> None:
    """C11: "cannot" is true of a window; 1 + layers * (window - 1) positions can be reached."""
    torch.manual_seed(1)
    layers, window, length = 3, 4, 20
    x = torch.randn(length, D, requires_grad=True)
    state = x
    for _ in range(layers):
        state = sliding_window_attention(state, state, state, window)
    (gradient,) = torch.autograd.grad(state[-1].sum(), x)
    reached = (gradient != 0).any(-1).nonzero().flatten()
    assert int(reached.min()) == length - (1 + layers * (window - 1))
    assert len(reached) == 1 + layers * (window - 1)


def test_a_stale_maximum_is_right_until_a_later_score_is_far_larger() -> None:
    def stale(blocks: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        m = blocks[0].amax(-1, keepdim=True)
        total = sum(((block - m).exp().sum(-1, keepdim=True) for block in blocks), torch.zeros_like(m))
        return [(block - m).exp() / total for block in blocks], (m + total.log()).squeeze(-1)

    torch.manual_seed(2)
    blocks = [torch.randn(3, 4), torch.randn(3, 5)]
    for one, other in zip(stale(blocks)[0], online_softmax(blocks)[0], strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    blocks[1] = blocks[1] + 100.0
    assert bool(stale(blocks)[0][1].isnan().any())
    assert torch.allclose(
        torch.cat(online_softmax(blocks)[0], -1), torch.cat(blocks, -1).softmax(-1), atol=1e-6
    )


def test_the_grader_tells_a_dense_table_from_chunks() -> None:
    """C04"""

    def whole_table(query, key, value, block_size, is_causal=False):
        if block_size < 1:
            raise ValueError("block_size")
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if is_causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        return scores.softmax(-1) @ value, scores.logsumexp(-1)

    report = check("chunked_attention", whole_table, seed=3)
    assert report.mistakes == ("makes the whole S_q x S_k table",)
    assert report.score < 0.5
