"""The grader of `shared_attention` on right writings and on mutants."""

from __future__ import annotations

import pytest

import solutions.shared_attention as reference
from autograder import check
from autograder.exercises import Exercise, in_assignment
from tests.exercises.catalogue import MUTANTS as ALL_MUTANTS
from tests.exercises.catalogue import RIGHT as ALL_RIGHT
from tests.exercises.catalogue import Mutant, Right
from tests.exercises.shared_attention import (  # noqa: F401  (they register)
    bilinear,
    counting,
    grouped,
    stack,
    symmetric,
    tasks,
)

EXERCISES = {one.name: one for one in in_assignment("shared_attention")}
CODED = {name: one for name, one in EXERCISES.items() if isinstance(one, Exercise)}
RIGHT = [one for one in ALL_RIGHT if one.exercise in CODED]
MUTANTS = [one for one in ALL_MUTANTS if one.exercise in CODED]
SEEDS = (3, 1_204)
SECOND_OPINIONS = {"symmetric scores"}
"""Checks that other checks make superfluous: they say what is still right about a wrong solution."""


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_solution_earns_full_marks(name: str, seed: int) -> None:
    report = check(name, getattr(reference, name), seed=seed)
    assert report.passed, str(report)
    assert report.points == report.max_points == EXERCISES[name].points


@pytest.mark.parametrize("right", RIGHT, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_right_writing_earns_full_marks(right: Right, seed: int) -> None:
    report = check(right.exercise, right.obj, seed=seed)
    assert report.passed, str(report)
    assert not report.mistakes


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_mutant_is_rejected_and_named(mutant: Mutant, seed: int) -> None:
    report = check(mutant.exercise, mutant.obj, seed=seed)
    assert not report.passed
    assert report.points < report.max_points
    if mutant.named is not None:
        assert mutant.named in report.mistakes, str(report)
    if mutant.only is not None:
        failing = {v.check for v in report.verdicts if v.status in ("failed", "errored")}
        assert failing == {mutant.only}, str(report)


@pytest.mark.parametrize("name", CODED)
def test_every_check_is_the_only_one_to_kill_some_mutant(name: str) -> None:
    alone = {mutant.only for mutant in MUTANTS if mutant.exercise == name}
    assert {one.name for one in CODED[name].checks} - SECOND_OPINIONS <= alone


@pytest.mark.parametrize("name", CODED)
def test_there_are_enough_right_writings_and_mutants(name: str) -> None:
    assert sum(right.exercise == name for right in RIGHT) >= 3
    assert sum(mutant.exercise == name for mutant in MUTANTS) >= 10


def test_nine_mutants_in_ten_are_named() -> None:
    named = sum(mutant.named is not None for mutant in MUTANTS)
    assert named >= 0.9 * len(MUTANTS), f"{named} of {len(MUTANTS)}"


def test_each_mistake_of_the_catalogue_is_named_by_some_mutant() -> None:
    named = {(mutant.exercise, mutant.named) for mutant in MUTANTS}
    silent = {(name, m.name) for name, one in CODED.items() for m in one.mistakes} - named
    assert not silent
