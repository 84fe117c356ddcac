"""The quadratic formulas behind efficient attention, against PyTorch's own and against published rules."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from autograder.oracle.tiles import (
    alibi_score,
    alibi_slopes,
    block_sparse_attention,
    chunked_attention,
    online_softmax,
    pairs_of_blocks,
    pairs_of_window,
    sliding_window_attention,
)


def triple(S_q: int, S_k: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    shapes = ((2, S_q, 5), (2, S_k, 5), (2, S_k, 3))
    return tuple(torch.randn(*shape, dtype=torch.float64) for shape in shapes)


def published_slopes(heads: int) -> list[float]:
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**i for i in range(heads)]
    power = 2 ** math.floor(math.log2(heads))
    return published_slopes(power) + published_slopes(2 * power)[0::2][: heads - power]


@pytest.mark.parametrize("heads", range(1, 33))
def test_the_slopes_are_the_published_ones(heads: int) -> None:
    assert torch.allclose(alibi_slopes(heads), torch.tensor(published_slopes(heads), dtype=torch.float64))


@pytest.mark.parametrize("is_causal", [False, True])
def test_chunked_attention_is_attention_and_its_log_sum_exp(is_causal: bool) -> None:
    query, key, value = triple(4, 6)
    found = chunked_attention(query, key, value, 2, is_causal)
    wanted = scaled_dot_product_attention(query, key, value, is_causal=is_causal)
    assert torch.allclose(found["output"].value, wanted)
    scores = query @ key.mT / math.sqrt(5)
    if is_causal:
        scores = scores.masked_fill(~torch.ones(4, 6, dtype=torch.bool).tril(), -torch.inf)
    assert torch.allclose(found["log_sum_exp"].value, scores.exp().sum(-1).log())


def test_a_window_is_the_last_positions_with_the_own_one() -> None:
    assert pairs_of_window(4, 2).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    query, key, value = triple(5, 5)
    alone = sliding_window_attention(query, key, value, 1)["output"].value
    assert torch.allclose(alone, value)


def test_block_masks_stretch_and_are_cut_at_the_end() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    assert pairs_of_blocks(mask, 2, 3, 3).int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    query, key, value = triple(3, 3)
    output = block_sparse_attention(query, key, value, mask, 2)["output"].value
    assert not bool(output[:, 2].any())


def test_a_dead_row_has_no_weights_and_no_sum() -> None:
    scores = torch.tensor([[0.0, 1.0, -torch.inf], [-torch.inf] * 3], dtype=torch.float64)
    found = online_softmax(scores, [1, 2])
    assert found["weights"].value[1].tolist() == [0.0, 0.0, 0.0]
    assert found["log_sum_exp"].value.tolist() == [pytest.approx(math.log(1 + math.e)), -math.inf]


def test_a_score_mod_adds_the_slope_of_its_head() -> None:
    zero, places = torch.tensor(0), torch.arange(3)
    found = alibi_score(torch.zeros(3, dtype=torch.float64), zero, torch.tensor(1), torch.tensor(2), places)
    assert found["score"].value.tolist() == [-0.5, -0.25, 0.0]
