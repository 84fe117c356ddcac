"""What exercises make of situations: every pair covered, what is left out said with a reason, cases that can be had again."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch

from autograder.case import CASES_PER_SEED
from autograder.exercises import ASSIGNMENTS, Exercise, in_assignment
from autograder.situations import Situations
from tests.exercises.counts import counted

CODED = [one for stem in ASSIGNMENTS for one in in_assignment(stem) if isinstance(one, Exercise)]
SPACES = [(one, one.situations) for one in CODED if one.situations is not None]
ROOT = Path(__file__).parents[2]
MOST = 110
"""Situations of one exercise: each is a call that a student waits for."""


def names(pair: tuple[Exercise, Situations]) -> str:
    return pair[0].name


def test_every_exercise_has_situations() -> None:
    assert [one.name for one in CODED if one.situations is None] == []


@pytest.mark.parametrize("pair", SPACES, ids=names)
def test_every_pair_of_levels_that_goes_together_is_tried(pair: tuple[Exercise, Situations]) -> None:
    exercise, space = pair
    tried = {
        frozenset(part)
        for place in range(space.places)
        for part in combinations(space.row(7, place).items(), 2)
    }
    every = space.wanted()
    missing = [one for one in every if len(one) == 2 and frozenset(one) not in tried]
    # A pair that stands in no whole situation, because of a third level, is none.
    assert len(missing) <= len(every) // 50, f"{exercise.name}: {missing[:5]}"
    assert space.places <= MOST


@pytest.mark.parametrize("pair", SPACES, ids=names)
def test_what_is_left_out_exists_and_has_a_reason(pair: tuple[Exercise, Situations]) -> None:
    exercise, space = pair
    for left, reason in space.left_out.items():
        factor, _, level = left.partition(": ")
        known = space.circumstances.get(factor, ())
        assert known, f"{exercise.name}: there is no circumstance {factor!r}"
        assert not level or level in known, (
            f"{exercise.name}: {factor} has no level {level!r}; it has {known}"
        )
        assert len(reason.split()) >= 3, f"{exercise.name}: why is {left} left out?"


@pytest.mark.parametrize("pair", SPACES, ids=names)
def test_a_case_is_the_same_each_time_and_another_with_another_seed(
    pair: tuple[Exercise, Situations],
) -> None:
    exercise, _ = pair
    first = len(exercise.recipes)
    one, again, other = (exercise.case(seed * CASES_PER_SEED + first) for seed in (5, 5, 6))
    assert str(one) == str(again)
    for name, value in one.inputs.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.nan_to_num(), again.inputs[name].nan_to_num())
    assert one.situation == again.situation == other.situation
    assert "ordinary" in str(one)


@pytest.mark.parametrize("pair", SPACES, ids=names)
def test_a_number_behind_the_last_situation_is_no_case(pair: tuple[Exercise, Situations]) -> None:
    exercise, space = pair
    with pytest.raises(ValueError, match="does not exist"):
        exercise.case(len(exercise.recipes) + space.places)


def test_the_readme_holds_the_figures_that_the_command_gives() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    figures = counted()
    for name, words in {
        "mutants": "mutants are rejected",
        "mutants by hand": "written by hand",
        "mutants from mistakes": "made of known mistakes",
        "mutants by spoiling": "by spoiling the reference",
        "right writings": "right writings earn full marks",
        "exercises with situations": "exercises are tried in *situations*",
        "situations": "cases for",
        "pairs": "pairs of levels",
    }.items():
        assert f"{figures[name]:,} {words}" in text, (
            f"{name}: {figures[name]:,}; python -m tests.exercises.counts"
        )
