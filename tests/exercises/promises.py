"""The grader's three promises, as tests: no wrong solution passes, no right one fails, a wrong one is told its mistake.

A test module names its assignment (STEM) and imports these; conftest.py fills in right writings and mutants.
"""

from __future__ import annotations

from autograder import check
from autograder.exercises import AnyExercise, Exercise, in_assignment
from autograder.mistakes import Mistake
from tests.exercises import catalogue
from tests.exercises.catalogue import Mutant, Right
from tests.exercises.derived import derivable, reference, spoilt, student_of

__all__ = [
    "test_a_mistake_of_the_catalogue_is_rejected_and_named",
    "test_a_mutant_is_rejected_and_named",
    "test_a_right_writing_earns_full_marks",
    "test_a_spoilt_reference_is_rejected",
    "test_every_written_check_is_the_only_one_to_kill_some_mutant",
    "test_more_than_five_mutants_in_six_are_named",
    "test_the_reference_solution_earns_full_marks",
    "test_there_are_enough_right_writings_and_mutants",
]

SECOND_OPINIONS = {"symmetric scores", "fully written"}
"""Checks that others make superfluous, or nearly: they say what is still right about a wrong solution, or why it is wrong
where memory that nobody wrote happens to hold the right numbers."""


def test_the_reference_solution_earns_full_marks(exercise: AnyExercise, seed: int) -> None:
    report = check(exercise.name, reference(exercise), seed=seed)
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


def test_a_mistake_of_the_catalogue_is_rejected_and_named(mistake: tuple[Exercise, Mistake, int]) -> None:
    """Each as a student's code, made of the mistake's own formula. Some are told by the name of another that gives the same."""
    exercise, made, seed = mistake
    report = check(exercise.name, student_of(exercise, made), seed=seed)
    assert not report.passed, f"{exercise.name}: {made.name}"
    assert made.name in report.mistakes or (exercise.name, made.name) in catalogue.OTHERWISE, str(report)


def test_a_spoilt_reference_is_rejected(spoiler: tuple[Exercise, str]) -> None:
    exercise, how = spoiler
    report = check(exercise.name, spoilt(exercise, how), seed=11)
    assert not report.passed, f"{exercise.name}, {how}"


def test_every_written_check_is_the_only_one_to_kill_some_mutant(
    coded: Exercise, mutants: list[Mutant]
) -> None:
    """The groups of situations are held to the derived mutants."""
    alone = {mutant.only for mutant in mutants if mutant.exercise == coded.name}
    missing = {one.name for one in coded.checks} - SECOND_OPINIONS - alone
    assert not missing, (
        f'{coded.name}: write a mutant that only "{missing.pop()}" kills: @mutant(..., only=...)'
    )


def test_there_are_enough_right_writings_and_mutants(coded: Exercise, mutants: list[Mutant]) -> None:
    right = sum(right.exercise == coded.name for right in catalogue.RIGHT)
    wrong = sum(mutant.exercise == coded.name for mutant in mutants)
    assert right >= 3, f"{coded.name} has {right} right writings; 3 of different structure are needed"
    assert wrong >= 3, (
        f"{coded.name} has {wrong} mutants written by hand; 3 that share nothing with its formula are needed"
    )


def test_more_than_five_mutants_in_six_are_named(stem: str, mutants: list[Mutant]) -> None:
    """Of those written by hand and those made of the catalogue's mistakes; nine in ten is the aim, four assignments reach it."""
    coded = [one for one in in_assignment(stem) if isinstance(one, Exercise) and derivable(one)]
    made = [(one.name, mistake.name) not in catalogue.OTHERWISE for one in coded for mistake in one.mistakes]
    named = sum(made) + sum(mutant.named is not None for mutant in mutants)
    assert named >= 5 / 6 * (len(made) + len(mutants)), f"{named} of {len(made) + len(mutants)}"
