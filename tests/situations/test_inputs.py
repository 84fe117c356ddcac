"""Inputs by their axes: sizes as they are asked for, and otherwise all different."""

from __future__ import annotations

from autograder.case import Draw
from autograder.situations import drawn_by

AXES = {"query": "... S_q D", "key": "... S_k D", "value": "... S_k D_v"}


def test_sizes_of_a_range_are_those_of_no_other_axis() -> None:
    draw = drawn_by(AXES)
    for number in range(60):
        inputs = draw(Draw(number), S_q=(2, 4), S_k=(5, 9))
        (S_q, D), (S_k, D_v) = inputs["query"].shape[-2:], inputs["value"].shape[-2:]
        assert 2 <= S_q <= 4
        assert 5 <= S_k <= 9
        assert len({S_q, S_k, D, D_v}) == 4


def test_sizes_that_leave_no_choice_are_as_asked() -> None:
    inputs = drawn_by(AXES)(Draw(7), S_q=(3, 3), S_k=(3, 3), D=3)
    assert inputs["query"].shape[-2:] == inputs["key"].shape[-2:] == (3, 3)


def test_a_size_may_be_that_of_another_axis() -> None:
    inputs = drawn_by(AXES)(Draw(7), S_q=(3, 5), S_k="S_q")
    assert inputs["query"].shape[-2] == inputs["key"].shape[-2]
