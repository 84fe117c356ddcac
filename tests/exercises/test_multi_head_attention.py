"""The grader of `multi_head_attention` on right writings and on mutants."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import solutions.multi_head_attention as reference
from autograder import check
from autograder.exercises import Choice, Exercise, Number, in_assignment
from tests.exercises.catalogue import MUTANTS, RIGHT, Mutant, Right
from tests.exercises.multi_head_attention import (  # noqa: F401  (they register)
    block,
    block_conduct,
    function,
    function_conduct,
    heads,
    module_dropout,
    module_layers,
    module_masks,
    module_results,
    modules,
)

EXERCISES = {one.name: one for one in in_assignment("multi_head_attention")}
CODED = {name: one for name, one in EXERCISES.items() if isinstance(one, Exercise)}
CHOICES = [one for one in EXERCISES.values() if isinstance(one, Choice)]
NUMBERS = [one for one in EXERCISES.values() if isinstance(one, Number)]
LESSON = (Path(__file__).parents[2] / "course/lessons/multi_head_attention.md").read_text(encoding="utf-8")
RIGHTS = [one for one in RIGHT if one.exercise in EXERCISES]
WRONGS = [one for one in MUTANTS if one.exercise in EXERCISES]
SEEDS = (3, 1_204)
LAZY = {
    "zeros_split",
    "input_back",
    "zeros_merged",
    "zeros",
    "mean_of_values",
    "random_numbers",
    "Zeros",
    "InputBack",
}


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_solution_earns_full_marks(name: str, seed: int) -> None:
    report = check(name, getattr(reference, name), seed=seed)
    assert report.passed, str(report)
    assert report.points == report.max_points == EXERCISES[name].points


@pytest.mark.parametrize("right", RIGHTS, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_right_writing_earns_full_marks(right: Right, seed: int) -> None:
    report = check(right.exercise, right.obj, seed=seed)
    assert report.passed, str(report)
    assert not report.mistakes


@pytest.mark.parametrize(("place", "mutant"), list(enumerate(WRONGS)), ids=str)
def test_a_mutant_is_rejected_and_named(place: int, mutant: Mutant) -> None:
    """Each with one of the seeds, for the time it takes."""
    seed = SEEDS[place % len(SEEDS)]
    report = check(mutant.exercise, mutant.obj, seed=seed)
    assert not report.passed
    assert report.points < report.max_points
    if mutant.named is not None:
        assert mutant.named in report.mistakes, str(report)
    if mutant.only is not None:
        failed = {v.check for v in report.verdicts if v.status in ("failed", "errored")}
        assert failed == {mutant.only}, str(report)


@pytest.mark.parametrize("name", CODED)
def test_every_check_is_the_only_one_to_kill_some_mutant(name: str) -> None:
    alone = {mutant.only for mutant in WRONGS if mutant.exercise == name}
    assert {one.name for one in CODED[name].checks} <= alone


@pytest.mark.parametrize("name", CODED)
def test_there_are_enough_right_writings_and_mutants(name: str) -> None:
    assert sum(right.exercise == name for right in RIGHTS) >= 3
    assert sum(mutant.exercise == name for mutant in WRONGS) >= 10


def test_nine_mutants_in_ten_are_named() -> None:
    named = sum(mutant.named is not None for mutant in WRONGS)
    assert named >= 0.9 * len(WRONGS), f"{named} of {len(WRONGS)}"


def test_each_mistake_of_the_catalogue_is_named_by_some_mutant() -> None:
    named = {(mutant.exercise, mutant.named) for mutant in WRONGS}
    silent = {(name, m.name) for name, one in CODED.items() for m in one.mistakes} - named
    assert not silent


@pytest.mark.parametrize("lazy", [one for one in WRONGS if one.obj.__name__ in LAZY], ids=str)
def test_a_lazy_answer_earns_less_than_a_fifth(lazy: Mutant) -> None:
    report = check(lazy.exercise, lazy.obj, seed=SEEDS[0])
    assert report.points < 0.2 * report.max_points, str(report)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda one: one.name)
def test_each_letter_of_the_lesson_gets_its_own_explanation(choice: Choice) -> None:
    before = LESSON.split(f"import {choice.name}\n")[0]
    options = re.findall(r"^- \*\*([a-z])\*\*", before[before.rindex("- **a**") :], re.MULTILINE)
    assert options == sorted(choice.explanations)
    said = set()
    for letter in choice.explanations:
        report = check(choice.name, letter)
        assert report.passed == (letter == choice.answer)
        said.add(report.findings[0].question if report.findings else report.verdicts[0].message)
    assert len(said) == len(choice.explanations) == 4


def test_the_right_letters_are_spread() -> None:
    assert len({choice.answer for choice in CHOICES}) >= 3


@pytest.mark.parametrize("number", NUMBERS, ids=lambda one: one.name)
def test_each_slip_of_a_number_is_named(number: Number) -> None:
    for slip in number.slips:
        assert check(number.name, slip.value).mistakes == (slip.name,)
