"""What goes wrong in "shared" attention as it is often printed, and what sharing really buys, in our own words."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from autograder import check
from solutions.shared_attention import (
    SharedAcrossTasks,
    SharedLayerStack,
    SymmetricAttention,
    count_parameters,
    grouped_query_attention,
    kv_cache_bytes,
    shared_attention,
)


def without_keys(query, key, value, weight):
    weights = torch.softmax(query @ weight, -1)
    return weights @ value, weights


def test_scores_of_query_and_weight_alone_ignore_the_keys() -> None:
    """E04"""
    torch.manual_seed(0)
    query, key, value, weight = (torch.randn(*shape) for shape in ((3, 4), (5, 5), (5, 2), (4, 5)))
    assert torch.equal(
        without_keys(query, key, value, weight)[0], without_keys(query, -key, value, weight)[0]
    )
    ours = [shared_attention(query, keys, value, weight)[0] for keys in (key, -key)]
    assert not torch.allclose(*ours)


def test_the_grader_says_that_the_keys_are_not_used() -> None:
    """E04"""
    report = check("shared_attention", without_keys, seed=3)
    assert report.mistakes[0] == "keys never used"
    assert report.score < 0.2


def test_a_matrix_of_two_by_two_does_not_fit_a_query_of_width_three() -> None:
    """E05"""
    query, key = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(RuntimeError):
        query @ weight
    with pytest.raises(ValueError, match=r"\(D_q, D_k\) = \(3, 1\); it is \(2, 2\)"):
        shared_attention(query, key, key, weight)
    output, weights = shared_attention(query, key, key, torch.tensor([[0.5], [2.0], [-0.25]]))
    assert output.shape == (1, 1)
    assert weights.shape == (1, 5)
    assert torch.allclose(weights, torch.softmax(0.75 * key.T, -1))


def test_one_matrix_is_two_projections_multiplied_out() -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(3, 6), torch.randn(4, 5), torch.randn(4, 2)
    W_q, W_k = torch.randn(6, 8), torch.randn(5, 8)
    weights = torch.softmax((query @ W_q) @ (key @ W_k).T, -1)
    assert torch.allclose(shared_attention(query, key, value, W_q @ W_k.T)[1], weights, atol=1e-5)


def test_the_largest_symmetric_score_stands_on_the_diagonal() -> None:
    torch.manual_seed(2)
    module, x = SymmetricAttention(8), torch.randn(20, 9, 8)
    both = module.qk_proj(x)
    scores = both @ both.mT
    largest = scores.flatten(1).argmax(-1)
    assert bool((largest // 9 == largest % 9).all())


@pytest.mark.parametrize(("H_q", "H_kv"), [(6, 6), (6, 3), (6, 2), (6, 1)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_heads_are_grouped_as_in_the_built_in_kernel(H_q: int, H_kv: int, is_causal: bool) -> None:
    torch.manual_seed(3)
    query, key, value = torch.randn(2, H_q, 4, 8), torch.randn(2, H_kv, 5, 8), torch.randn(2, H_kv, 5, 7)
    output, _ = grouped_query_attention(query, key, value, is_causal)
    built_in = scaled_dot_product_attention(query, key, value, is_causal=is_causal, enable_gqa=True)
    assert torch.allclose(output, built_in, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_the_count_of_parameters_is_that_of_layers_that_are_really_built(bias: bool) -> None:
    d_model, num_heads, num_kv_heads = 24, 6, 2
    widths = (d_model, 8, 8, d_model)
    built = sum(p.numel() for width in widths for p in nn.Linear(d_model, width, bias).parameters())
    assert count_parameters(d_model, num_heads, num_kv_heads, bias) == built
    assert count_parameters(d_model, num_heads, num_heads, bias) == sum(
        p.numel() for p in nn.MultiheadAttention(d_model, num_heads, bias=bias).parameters()
    )


def test_sharing_heads_shrinks_the_cache_and_leaves_the_work_of_the_scores() -> None:
    """C12: what sharing buys is memory."""
    work, cache = {}, {}
    for H_kv in (8, 2):
        query, key = torch.randn(1, 8, 16, 4), torch.randn(1, H_kv, 16, 4)
        with FlopCounterMode(display=False) as counter:
            grouped_query_attention(query, key, key)
        work[H_kv], cache[H_kv] = counter.get_total_flops(), kv_cache_bytes(1, 16, 1, H_kv, 4, torch.float32)
        assert cache[H_kv] == 2 * key.numel() * key.element_size()
    assert work[8] == work[2]
    assert cache[8] == 4 * cache[2]


def test_a_shared_layer_has_the_parameters_of_one_and_the_gradients_of_all() -> None:
    """C12: parameters fall with the depth, and a shared weight adds up what its copies would get."""
    torch.manual_seed(4)
    layer, x = nn.Sequential(nn.Linear(5, 5), nn.Tanh()), torch.randn(3, 5)
    stack = SharedLayerStack(layer, 3)
    assert sum(p.numel() for p in stack.parameters()) == sum(p.numel() for p in layer.parameters())
    copies = [
        {name: p.detach().clone().requires_grad_() for name, p in layer.named_parameters()} for _ in range(3)
    ]
    state = x
    for weights in copies:
        state = torch.func.functional_call(layer, weights, (state,))
    state.square().sum().backward()
    stack(x).square().sum().backward()
    for name, shared in layer.named_parameters():
        assert torch.allclose(shared.grad, sum(weights[name].grad for weights in copies), atol=1e-6)


def test_a_constraint_between_tasks_can_hurt() -> None:
    """C12: consistent is not better. Two tasks that need different directions, through one shared number."""
    torch.manual_seed(5)
    x, targets = torch.randn(200, 4), torch.eye(4)[:2]
    own = x @ torch.linalg.lstsq(x, x @ targets.T).solution
    shared = x @ torch.linalg.svd(targets)[2][:1].T  # the best single direction
    heads = torch.linalg.lstsq(shared, x @ targets.T).solution
    assert float((own - x @ targets.T).square().mean()) < 1e-9
    assert float((shared @ heads - x @ targets.T).square().mean()) > 0.3


def test_a_task_trains_its_own_head_alone() -> None:
    module = SharedAcrossTasks(6, 3)
    module(torch.randn(2, 4, 6), 1)[0].square().sum().backward()
    assert [head.weight.grad is not None for head in module.heads] == [False, True, False]
    assert module.q_proj.weight.grad is not None
