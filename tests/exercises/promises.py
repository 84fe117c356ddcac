"""The grader's three promises, as tests: no wrong solution passes, no right one fails, a wrong one is told its mistake.

A test module names its assignment (STEM) and imports these; conftest.py fills in right writings and mutants.
"""

from __future__ import annotations

import importlib

from autograder import check
from autograder.exercises import AnyExercise, Exercise, in_assignment
from tests.exercises import catalogue
from tests.exercises.catalogue import Mutant, Right

__all__ = [
    "test_a_mutant_is_rejected_and_named",
    "test_a_right_writing_earns_full_marks",
    "test_each_mistake_of_the_catalogue_is_named_by_some_mutant",
    "test_every_check_is_the_only_one_to_kill_some_mutant",
    "test_nine_mutants_in_ten_are_named",
    "test_the_reference_solution_earns_full_marks",
    "test_there_are_enough_right_writings_and_mutants",
]

ONE_LINERS = {"dot_scores", "scaled_dot_scores", "sliding_window_mask", "alibi_score"}
SECOND_OPINIONS = {"symmetric scores", "fully written"}
"""Checks that others make superfluous, or nearly: they say what is still right about a wrong solution, or why it is wrong
where memory that nobody wrote happens to hold the right numbers."""


def test_the_reference_solution_earns_full_marks(stem: str, exercise: AnyExercise, seed: int) -> None:
    reference = importlib.import_module(f"solutions.{stem}")
    report = check(exercise.name, getattr(reference, exercise.name), seed=seed)
    assert report.passed, str(report)
    assert report.points == report.max_points == exercise.points


def test_a_right_writing_earns_full_marks(right: Right, seed: int) -> None:
    report = check(right.exercise, right.obj, seed=seed)
    assert report.passed, str(report)
    assert not report.mistakes


def test_a_mutant_is_rejected_and_named(mutant_and_seed: tuple[Mutant, int]) -> None:
    mutant, seed = mutant_and_seed
    report = check(mutant.exercise, mutant.obj, seed=seed)
    assert not report.passed
    assert report.points < report.max_points
    if mutant.named is not None:
        assert mutant.named in report.mistakes, str(report)
    if mutant.only is not None:
        failed = {one.check for one in report.verdicts if one.status in ("failed", "errored")}
        assert failed == {mutant.only}, str(report)


def test_every_check_is_the_only_one_to_kill_some_mutant(coded: Exercise, mutants: list[Mutant]) -> None:
    alone = {mutant.only for mutant in mutants if mutant.exercise == coded.name}
    assert {one.name for one in coded.checks} - SECOND_OPINIONS <= alone


def test_there_are_enough_right_writings_and_mutants(coded: Exercise, mutants: list[Mutant]) -> None:
    assert sum(right.exercise == coded.name for right in catalogue.RIGHT) >= 3
    assert sum(mutant.exercise == coded.name for mutant in mutants) >= (5 if coded.name in ONE_LINERS else 10)


def test_nine_mutants_in_ten_are_named(mutants: list[Mutant]) -> None:
    named = sum(mutant.named is not None for mutant in mutants)
    assert named >= 0.9 * len(mutants), f"{named} of {len(mutants)}"


def test_each_mistake_of_the_catalogue_is_named_by_some_mutant(stem: str, mutants: list[Mutant]) -> None:
    named = {(mutant.exercise, mutant.named) for mutant in mutants}
    coded = [one for one in in_assignment(stem) if isinstance(one, Exercise)]
    assert {(one.name, mistake.name) for one in coded for mistake in one.mistakes} <= named
