"""The formulas that kernels are held to, against torch's own derivatives and functions."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from autograder.oracle.kernels import decode, flash_forward, flash_gradients, paged_decode, softmax_rows


def inputs(S_q: int = 5, S_k: int = 7) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    shapes = ((2, 4, S_q, 6), (2, 2, S_k, 6), (2, 2, S_k, 6), (2, 4, S_q, 6))
    return tuple(torch.randn(*shape, dtype=torch.float64) for shape in shapes)


@pytest.mark.parametrize("is_causal", [False, True])
def test_output_and_gradients_are_those_of_torch(is_causal: bool) -> None:
    query, key, value, grad_output = inputs()
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    output = scaled_dot_product_attention(*leaves, is_causal=is_causal, enable_gqa=True)
    wanted = (output, *torch.autograd.grad(output, leaves, grad_output))
    found = flash_gradients(query, key, value, grad_output, is_causal)
    for one, quantity in zip(wanted, found.values(), strict=True):
        assert torch.allclose(one, quantity.value, atol=1e-12)
        assert bool((quantity.magnitude >= quantity.value.abs() - 1e-12).all())


def test_the_log_sum_exp_is_that_of_the_scores() -> None:
    query, key, value, _ = inputs()
    scores = query @ key.repeat_interleave(2, 1).mT / 6**0.5
    found = flash_forward(query, key, value)["log_sum_exp"]
    assert torch.allclose(found.value, scores.logsumexp(-1))


def test_decoding_is_attention_over_each_sequence_alone() -> None:
    query, key, value, _ = inputs(1, 7)
    lengths = torch.tensor([3, 7])
    found = decode(query[:, :, 0], key, value, lengths)["output"].value
    for b, length in enumerate(lengths.tolist()):
        alone = scaled_dot_product_attention(
            query[b], key[b, :, :length], value[b, :, :length], enable_gqa=True
        )
        assert torch.allclose(found[b], alone[:, 0])


def test_pages_are_a_cache_in_another_place() -> None:
    query, key, value, _ = inputs(1, 6)
    order, lengths = torch.tensor([[4, 1, 3], [0, 5, 2]]), torch.tensor([5, 6])
    pools = [torch.full((6, 2, 2, 6), torch.nan, dtype=torch.float64) for _ in range(2)]
    for pool, cache in zip(pools, (key, value), strict=True):
        for b in range(2):
            for i in range(int(lengths[b])):
                pool[order[b, i // 2], i % 2] = cache[b, :, i]
    wanted = decode(query[:, :, 0], key, value, lengths)["output"].value
    assert torch.allclose(paged_decode(query[:, :, 0], *pools, order, lengths)["output"].value, wanted)


def test_softmax_is_torchs() -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    assert torch.equal(softmax_rows(x)["weights"].value, torch.softmax(x, -1))
