"""Which forms of attention really do less work, and how far back they reach, in our own words."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from autograder import check
from solutions.efficient_attention import (
    LatentAttention,
    adaptive_span_attention,
    causal_linear_attention,
    linear_attention,
    low_rank_attention,
    recurrent_attention,
)


def operations(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def dense(query, key, value):
    return torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, -1) @ value


def inputs(length, width=16):
    return [torch.randn(length, width) for _ in range(3)]


def test_twice_the_length_is_four_times_the_work_of_dense_attention() -> None:
    """C04"""
    assert operations(lambda: dense(*inputs(256))) == 4 * operations(lambda: dense(*inputs(128)))


@pytest.mark.parametrize("attend", [linear_attention, lambda *x: causal_linear_attention(*x)[0]])
def test_twice_the_length_is_twice_the_work_of_linear_attention(attend) -> None:
    """C04"""
    assert operations(lambda: attend(*inputs(256))) == 2 * operations(lambda: attend(*inputs(128)))


def test_twice_the_length_is_twice_the_work_of_low_rank_attention() -> None:
    """C04"""

    def work(length):
        mixtures = [torch.randn(8, length) for _ in range(2)]
        return operations(lambda: low_rank_attention(*inputs(length), *mixtures))

    assert work(256) == 2 * work(128)


def test_linear_attention_takes_more_work_than_dense_attention_below_its_width() -> None:
    """C04: not every length gains."""
    assert operations(lambda: linear_attention(*inputs(8))) > operations(lambda: dense(*inputs(8)))
    assert operations(lambda: linear_attention(*inputs(32))) < operations(lambda: dense(*inputs(32)))


def test_each_mixture_of_low_rank_attention_holds_the_future() -> None:
    """C04: the price of mixtures along the length."""
    torch.manual_seed(0)
    query, key, value = inputs(6)
    mixtures = [torch.randn(3, 6) for _ in range(2)]
    other = torch.cat([key[:-1], torch.randn(1, 16)])
    first, second = (low_rank_attention(query, keys, value, *mixtures)[0] for keys in (key, other))
    assert not torch.allclose(first, second)


def test_two_layers_reach_back_by_two_memories() -> None:
    """C11"""
    torch.manual_seed(0)
    text, weights = torch.randn(12, 4, dtype=torch.float64), [torch.randn(4, 4).double() for _ in range(3)]

    def last(text):
        memories = [None, None]
        for segment in text.split(4):
            for layer in range(2):
                segment, memories[layer] = recurrent_attention(segment, memories[layer], *weights, 4)
        return segment[-1]

    changed = text.clone()
    changed[0] += 1.0  # eight positions before the last segment's first: out of reach for one layer
    assert not torch.equal(last(text), last(changed))
    alone = recurrent_attention(text[8:], text[4:8], *weights, 4)[0][-1]
    assert torch.equal(alone, recurrent_attention(changed[8:], changed[4:8], *weights, 4)[0][-1])


def test_a_short_span_cannot_see_what_is_distant() -> None:
    """C11"""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 9, 4) for _ in range(3))
    output, weights, _ = adaptive_span_attention(query, key, value, torch.tensor([1.5]), 2.0)
    assert bool((weights[0, 8, :5] == 0).all())
    assert torch.allclose(weights.sum(-1), torch.ones(1, 9))
    assert output.shape == value.shape


def test_a_latent_cache_is_as_wide_as_the_latent_whatever_the_heads() -> None:
    """C12: a smaller cache than that of shared heads, with keys of its own for each head."""
    for heads in (1, 2, 8):
        _, cache = LatentAttention(16, heads, 5)(torch.randn(2, 7, 16))
        assert cache.shape == (2, 7, 5)


def test_the_grader_tells_the_table_from_the_linear_order() -> None:
    """C04"""

    def by_table(query, key, value):
        phi_q, phi_k = torch.nn.functional.elu(query) + 1, torch.nn.functional.elu(key) + 1
        table = phi_q @ phi_k.mT
        return table @ value / table.sum(-1, keepdim=True)

    report = check("linear_attention", by_table, seed=3)
    assert report.mistakes == ("does too much work",)
