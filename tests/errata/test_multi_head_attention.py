"""What goes wrong in multi-head attention as it is often printed, in our own words, and the check that meets it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from autograder import check
from solutions.multi_head_attention import MultiHeadAttention, TransformerBlock, split_heads

SEED = 3


class Four(nn.Module):
    """The four layers, without a look at whether the heads come out even."""

    def __init__(self, d_model: int, num_heads: int, bias: bool = True, dropout: float = 0.0):
        super().__init__()
        self.num_heads, self.d_head = num_heads, d_model // num_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(d_model, d_model, bias) for _ in range(4)
        )


def test_a_query_cut_into_single_numbers_is_not_attention_in_heads() -> None:
    """E06: num_heads plays no part, every number is a head, and the weights are joined along the keys."""

    def by_numbers(query, key, value, num_heads, attn_mask=None):
        tables = [torch.softmax(one * key.mT.sum(-2, keepdim=True), -1) for one in query.split(1, -1)]
        return torch.cat(tables, -1) @ torch.cat([value] * len(tables), -2), torch.cat(tables, -1)

    query, key, value = torch.randn(4, 6), torch.randn(5, 6), torch.randn(5, 6)
    assert by_numbers(query, key, value, 2)[1].shape == (4, 6 * 5)
    assert torch.equal(by_numbers(query, key, value, 2)[0], by_numbers(query, key, value, 3)[0])
    report = check("multi_head_attention", by_numbers, seed=SEED)
    assert not report.passed
    assert report.points < 0.2 * report.max_points
    assert "weights has the wrong shape" in report.mistakes


def test_layers_that_are_created_and_never_applied_get_no_gradient() -> None:
    """E12"""

    class Unprojected(Four):
        def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
            key = query if key is None else key
            parts = (split_heads(x, self.num_heads) for x in (query, key, key if value is None else value))
            queries, keys, values = parts
            weights = torch.softmax(queries @ keys.mT / math.sqrt(self.d_head), -1)
            return self.out_proj((weights @ values).transpose(-3, -2).flatten(-2)), weights

    module = Unprojected(6, 2)
    module(torch.randn(2, 5, 6))[0].sum().backward()
    assert module.q_proj.weight.grad is module.k_proj.weight.grad is module.v_proj.weight.grad is None
    assert "projections never applied" in check("MultiHeadAttention", Unprojected, seed=SEED).mistakes


class CutLikeTheQuery(Four):
    """Keys and values are viewed with the query's length."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        key = query if key is None else key
        value = key if value is None else value
        shape = (*query.shape[:-1], self.num_heads, self.d_head)
        queries, keys, values = (
            layer(x).view(shape).transpose(-3, -2)
            for layer, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        weights = torch.softmax(queries @ keys.mT / math.sqrt(self.d_head), -1)
        return self.out_proj((weights @ values).transpose(-3, -2).flatten(-2)), weights


def test_keys_cut_with_the_querys_length_fail_in_cross_attention() -> None:
    """E13"""
    module, x = CutLikeTheQuery(6, 2), torch.randn(2, 5, 6)
    module(x)
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        module(x, torch.randn(2, 7, 6))
    report = check("MultiHeadAttention", CutLikeTheQuery, seed=SEED)
    assert not report.passed
    assert "invalid for input of size" in str(report)


def test_a_width_that_the_heads_do_not_divide_is_refused_with_both_numbers() -> None:
    """E15"""
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        CutLikeTheQuery(7, 2)(torch.randn(2, 5, 7))
    for refusal in (
        lambda: MultiHeadAttention(7, 2),
        lambda: TransformerBlock(7, 2, 9),
        lambda: split_heads(torch.randn(5, 7), 2),
    ):
        with pytest.raises(ValueError, match=r"7.*not divisible.*2"):
            refusal()


def test_half_of_each_order_and_a_skip_path_counted_twice_are_told_apart() -> None:
    """E18"""

    class Parts(nn.Module):
        def __init__(self, d_model, num_heads, d_ff, norm_first=True):
            super().__init__()
            self.attention = MultiHeadAttention(d_model, num_heads)
            self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
            self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)

        def network(self, x: Tensor) -> Tensor:
            return self.linear2(self.linear1(x).relu())

    class Half(Parts):
        def forward(self, x, attn_mask=None, is_causal=False):
            x = self.norm1(x + self.attention(x, attn_mask=attn_mask, is_causal=is_causal)[0])
            return x + self.network(self.norm2(x))

    class Twice(Parts):
        def forward(self, x, attn_mask=None, is_causal=False):
            attended = x + self.attention(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)[0]
            x = x + attended
            return x + (x + self.network(self.norm2(x)))

    assert "half pre-norm, half post-norm" in check("TransformerBlock", Half, seed=SEED).mistakes
    assert "skip path counted twice" in check("TransformerBlock", Twice, seed=SEED).mistakes


def test_an_elementwise_product_runs_where_all_sizes_agree() -> None:
    """E20"""

    def elementwise(query, key, value, num_heads, attn_mask=None):
        queries, keys, values = (split_heads(x, num_heads) for x in (query, key, value))
        weights = torch.softmax(queries * keys.mT / math.sqrt(queries.shape[-1]), -1)
        return (weights * values).transpose(-3, -2).flatten(-2), weights

    x = torch.randn(4, 8)  # S = D / H = 4
    assert elementwise(x, x, x, 2)[0].shape == (4, 8)
    with pytest.raises(RuntimeError, match="must match"):
        elementwise(torch.randn(5, 8), x, x, 2)
    report = check("multi_head_attention", elementwise, seed=SEED)
    assert report.points < 0.2 * report.max_points


def test_a_softmax_over_axis_two_is_one_over_the_queries_once_there_are_heads() -> None:
    """E21"""

    def over_axis_two(query, key, value, num_heads, attn_mask=None):
        queries, keys, values = (split_heads(x, num_heads) for x in (query, key, value))
        scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=2)
        if attn_mask is not None:
            weights = weights * attn_mask
        return (weights @ values).transpose(-3, -2).flatten(-2), weights

    assert "softmax over the third axis" in check("multi_head_attention", over_axis_two, seed=SEED).mistakes


def test_every_head_sees_every_position() -> None:
    """C03: what is cut is the features."""
    x = torch.randn(1, 7, 6, requires_grad=True)
    _, weights = MultiHeadAttention(6, 3)(x, need_weights=True)
    assert weights.shape == (1, 3, 7, 7)
    for head in range(3):
        (gradient,) = torch.autograd.grad(weights[0, head, 0, -1], x, retain_graph=True)
        assert bool((gradient[0, [0, -1]].abs().sum(-1) > 0).all())  # the last position counts for the first


def test_heads_cost_no_operations_and_save_none() -> None:
    """C04: quadratic in the length with any number of heads; the weights grow with them."""
    from torch.utils.flop_counter import FlopCounterMode

    def cost(length: int, num_heads: int) -> tuple[int, int]:
        module, x = MultiHeadAttention(32, num_heads), torch.randn(1, length, 32)
        projections = 4 * 2 * length * 32 * 32
        with FlopCounterMode(display=False) as counter:
            weights = module(x, need_weights=True)[1]
        return counter.get_total_flops() - projections, weights.numel()

    assert cost(64, 1)[0] == cost(64, 8)[0] == 4 * 64 * 64 * 32
    assert cost(128, 8)[0] == 4 * cost(64, 8)[0]
    assert cost(64, 8)[1] == 8 * cost(64, 1)[1]
