"""Reports on situations: what goes wrong together, who loses points for it, and what is right but for one mistake."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from autograder import check
from autograder.verdict import Report
from solutions.basic_attention import SelfAttention, attention


def groups_lost(report: Report) -> set[str]:
    return {verdict.check for verdict in report.verdicts if verdict.status in ("failed", "errored")}


def said(report: Report) -> str:
    return " ".join(finding.question for finding in report.findings)


def one_query_ignores_causality(query, key, value, attn_mask=None, is_causal=False):
    return attention(query, key, value, attn_mask, is_causal and query.shape[-2] > 1)


def wrong_in_float16(query, key, value, attn_mask=None, is_causal=False):
    output, weights = attention(query, key, value, attn_mask, is_causal)
    return (output * 1.5 if query.dtype == torch.float16 else output), weights


def test_the_statement_is_the_smallest_that_explains_the_failures() -> None:
    report = check("attention", one_query_ignores_causality, seed=3)
    assert groups_lost(report) == {"masks", "lengths"}
    assert "one query, many keys and is_causal" in said(report) or report.mistakes == ("is_causal ignored",)


def test_a_single_level_is_told_alone() -> None:
    report = check("attention", wrong_in_float16, seed=3)
    assert groups_lost(report) == {"dtypes"}
    assert "It goes wrong with float16: in" in said(report)


def test_what_is_known_by_its_level_has_a_name() -> None:
    class Smaller(SelfAttention):
        def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Any:
            output, weights = super().forward(x, attn_mask, is_causal)
            return output * (1.0 if self.training else 0.9), weights

    report = check("SelfAttention", Smaller, seed=3)
    assert groups_lost(report) == {"calls"}
    assert "depends on train() or eval()" in report.mistakes


def test_a_level_costs_the_group_of_what_it_goes_wrong_with() -> None:
    class Forgets(SelfAttention):
        def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Any:
            return super().forward(x, attn_mask if self.training else None, is_causal)

    assert {"calls", "masks"} <= groups_lost(check("SelfAttention", Forgets, seed=3))
    report = check("SelfAttention", Forgets, seed=4)  # at seed 3 a mistake of the formula looks the same
    assert "masks" in groups_lost(report)
    assert "depends on train() or eval()" in report.mistakes or "eval mode" in said(report)


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_what_is_right_but_for_one_mistake_keeps_half_of_its_points(seed: int) -> None:
    def not_scaled(query, key, value, attn_mask=None, is_causal=False):
        return attention(query * math.sqrt(query.shape[-1]), key, value, attn_mask, is_causal)

    report = check("attention", not_scaled, seed=seed)
    assert report.mistakes == ("not scaled",)
    assert not report.passed
    assert 0.2 * report.max_points < report.points < 0.5 * report.max_points
    masks = next(verdict for verdict in report.verdicts if verdict.check == "masks")
    assert masks.points == math.floor(2 * masks.max_points) / 4
    assert "right but for one mistake: not scaled" in masks.message


def test_two_things_wrong_keep_nothing_of_the_group_that_has_both() -> None:
    def not_scaled_nor_causal(query, key, value, attn_mask=None, is_causal=False):
        return attention(query * math.sqrt(query.shape[-1]), key, value, attn_mask, False)

    report = check("attention", not_scaled_nor_causal, seed=3)
    masks = next(verdict for verdict in report.verdicts if verdict.check == "masks")
    assert masks.points == 0


def test_nothing_that_makes_sense_earns_nothing() -> None:
    assert (
        check("attention", lambda query, key, value, **_: (torch.zeros(1), torch.zeros(1)), seed=3).points
        == 0
    )
    assert check("attention", lambda *_, **__: None, seed=3).points == 0


def test_one_situation_can_be_had_again_by_its_number() -> None:
    report = check("attention", wrong_in_float16, seed=3)
    number = next(verdict.case_number for verdict in report.verdicts if verdict.status == "failed")
    again = check("attention", wrong_in_float16, case=number)
    assert not again.passed
    assert {verdict.case_number for verdict in again.verdicts if verdict.status == "failed"} == {number}
    assert check("attention", attention, case=number).passed


def test_an_answer_that_ignores_its_inputs_earns_nothing_for_what_it_gets_right_by_chance() -> None:
    def mean_of_the_values(query, key, value, attn_mask=None, is_causal=False):
        weights = query.new_ones(*query.shape[:-1], key.shape[-2]) / key.shape[-2]
        return weights @ value, weights

    assert check("attention", mean_of_the_values, seed=3).points == 0


def test_a_constant_keeps_nothing_for_being_right_but_for_one_mistake() -> None:
    report = check("kv_cache_bytes", lambda *sizes: 0, seed=3)
    assert report.mistakes == ("nothing counted",)
    assert report.points == 0
