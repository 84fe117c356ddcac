"""What goes wrong in attention as it is often printed, in our own words: each defect shown, and the check that meets it."""

from __future__ import annotations

import pytest
import torch

from autograder import check

QUERY, KEYS = [1, 0, -1], [[1], [2], [3], [4], [5]]


def test_a_query_of_width_three_does_not_fit_keys_of_width_one() -> None:
    """E01"""
    with pytest.raises(RuntimeError):
        torch.tensor([QUERY], dtype=torch.float32) @ torch.tensor(KEYS, dtype=torch.float32).T


def test_softmax_refuses_whole_numbers() -> None:
    """E02"""
    with pytest.raises(RuntimeError, match="not implemented for 'Long'"):
        torch.softmax(torch.tensor(QUERY), dim=0)


def test_a_vector_of_scores_has_no_axis_one() -> None:
    """E03"""
    with pytest.raises(IndexError):
        torch.softmax(torch.tensor(QUERY, dtype=torch.float32), dim=1)


def test_a_function_name_holds_no_space() -> None:
    """E08"""
    with pytest.raises(SyntaxError):
        compile("def attention of(query): pass", "printed", "exec")


def test_dividing_scores_by_norms_makes_no_weights() -> None:
    """E10: neither a sum of one nor non-negative."""

    def normed(query, key, value, attn_mask=None, is_causal=False):
        scores = query @ key.mT / query.shape[-1] ** 0.5
        weights = scores / query.sum(-2, keepdim=True).norm(dim=-1, keepdim=True)
        return weights @ value, weights

    report = check("attention", normed, seed=3)
    assert not report.passed
    assert "weights outside [0, 1]" in report.mistakes


def test_identity_projections_are_a_special_case_only() -> None:
    """E11"""
    from torch import nn

    class Unprojected(nn.Module):
        def __init__(self, d_model):
            super().__init__()
            self.q_proj, self.k_proj = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
            self.v_proj, self.out_proj = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)

        def forward(self, x, attn_mask=None, is_causal=False):
            scores = self.q_proj(x) @ self.k_proj(x).mT / x.shape[-1] ** 0.5
            allowed = torch.ones(scores.shape[-2:], dtype=torch.bool)
            allowed = allowed.tril() if is_causal else allowed
            allowed = allowed if attn_mask is None else allowed & attn_mask
            weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num()
            return self.out_proj(weights @ x), weights

    assert "values not projected" in check("SelfAttention", Unprojected, seed=3).mistakes


def test_without_the_scale_the_softmax_saturates_as_the_width_grows() -> None:
    """E19"""
    torch.manual_seed(0)
    largest = {}
    for width in (4, 1024):
        scores = torch.randn(200, width) @ torch.randn(30, width).T
        largest[width] = scores.softmax(-1).amax(-1).mean(), (scores / width**0.5).softmax(-1).amax(-1).mean()
    assert largest[1024][0] > 0.9 > largest[4][0]
    assert abs(largest[1024][1] - largest[4][1]) < 0.05

    def unscaled(query, key):
        return query @ key.mT

    assert check("scaled_dot_scores", unscaled, seed=3).mistakes[0] == "not scaled"
