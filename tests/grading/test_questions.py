"""Questions with a letter or a number for an answer."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from autograder import check
from autograder.exercises import ASSIGNMENTS, Choice, Number, in_assignment

LESSONS = Path(__file__).parents[2] / "course/lessons"
QUESTIONS = [one for stem in ASSIGNMENTS for one in in_assignment(stem) if isinstance(one, (Choice, Number))]
CHOICES = [one for one in QUESTIONS if isinstance(one, Choice)]
NUMBERS = [one for one in QUESTIONS if isinstance(one, Number)]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda one: one.name)
def test_each_wrong_letter_gets_its_own_explanation(choice: Choice) -> None:
    said = set()
    for letter in choice.explanations:
        report = check(choice.name, letter)
        assert report.passed == (letter == choice.answer)
        said.add(report.findings[0].question if report.findings else report.verdicts[0].message)
    assert len(said) == len(choice.explanations) >= 4
    assert check(choice.name, f" ({choice.answer.upper()}) ").passed


def options(choice: Choice) -> dict[str, str]:
    """The options that the lesson offers, as a reader sees them: by letter, a formula's command counted as one sign."""
    lesson = (LESSONS / f"{choice.assignment}.md").read_text(encoding="utf-8")
    before = lesson.split(f"import {choice.name}\n")[0]
    offered = re.findall(r"^- \*\*([a-z])\*\* (.*)$", before[before.rindex("- **a**") :], re.MULTILINE)
    return {letter: re.sub(r"[${}`^_]", "", re.sub(r"\\[a-z]+", "x", text)) for letter, text in offered}


@pytest.mark.parametrize("choice", CHOICES, ids=lambda one: one.name)
def test_the_lesson_offers_just_the_letters_that_are_explained(choice: Choice) -> None:
    assert list(options(choice)) == sorted(choice.explanations)


@pytest.mark.parametrize("stem", [None, *ASSIGNMENTS])
@pytest.mark.parametrize("extreme", [max, min])
def test_the_length_of_an_option_does_not_give_the_answer_away(
    stem: str | None, extreme: Callable[[Iterable[int]], int]
) -> None:
    """By chance the longest of four options is right in a quarter of the questions; two in five is the most allowed."""
    asked = [choice for choice in CHOICES if stem in (None, choice.assignment)]
    lengths = [({letter: len(text) for letter, text in options(one).items()}, one.answer) for one in asked]
    hits = sum(length[answer] == extreme(length.values()) for length, answer in lengths)
    assert hits <= 0.4 * len(asked)


@pytest.mark.parametrize("stem", ASSIGNMENTS)
def test_exercises_come_in_the_order_in_which_the_notebook_sets_them(stem: str) -> None:
    lesson = (LESSONS / f"{stem}.md").read_text(encoding="utf-8")
    imports = re.findall(rf"^from solutions\.{stem} import (.+)$", lesson, re.MULTILINE)
    assert [one.name for one in in_assignment(stem)] == [names.split(", ")[-1] for names in imports]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda one: one.name)
@pytest.mark.parametrize("kind", [float, np.float64, torch.tensor])
def test_a_right_number_of_any_kind_passes_and_each_slip_is_named(number: Number, kind: type) -> None:
    assert check(number.name, kind(number.answer)).passed
    assert not check(number.name, kind(number.answer * (1 + 3 * number.tolerance + 1e-6))).passed
    for slip in number.slips:
        report = check(number.name, kind(slip.value))
        assert not report.passed
        assert report.mistakes == (slip.name,)
        assert "_" not in slip.name


@pytest.mark.parametrize("number", NUMBERS, ids=lambda one: one.name)
def test_a_whole_number_is_exact_and_any_other_says_what_is_near_enough(number: Number) -> None:
    if number.answer.is_integer():
        assert check(number.name, int(number.answer)).passed
        assert not check(number.name, int(number.answer) + 1).passed
        assert not check(number.name, number.answer + 0.6).passed
    else:
        assert "two decimals" in number.prompt
        assert check(number.name, round(number.answer, 2)).passed
        assert not check(number.name, round(number.answer, 1)).passed


def test_a_wrong_number_comes_back_as_it_was_given() -> None:
    for given in (14680065, 1234567.25, -3):
        assert f"{given} is not right." in str(check("attention_flops", given))
    assert "14680066 is not right." in str(check("attention_flops", torch.tensor(14680066.0)))
    assert "0.1 is not right." in str(check("attention_flops", np.float32(0.1)))


def test_a_wrong_letter_reads_as_an_explanation_and_not_as_a_mistakes_name() -> None:
    text, page = str(check("why_scale", "a")), check("why_scale", "a")._repr_html_()
    for shown in (text, page):
        assert "Why not a?" in shown
        assert "a is not right." in shown
        assert "Likely cause" not in shown


@pytest.mark.parametrize("number", NUMBERS, ids=lambda one: one.name)
@pytest.mark.parametrize("answer", [True, "64", float("nan"), float("inf"), [64], torch.zeros(3), 1 + 2j])
def test_what_is_no_number_is_no_answer(number: Number, answer: object) -> None:
    report = check(number.name, answer)
    assert not report.passed
    assert "expected a finite number" in str(report)


@pytest.mark.parametrize("around", ["'{}'", "`{}`", "[{}]", "{}:", "{}\n"])
def test_a_letter_may_stand_in_quotes_or_brackets(around: str) -> None:
    assert check("mask_placement", around.format("b")).passed
    assert not check("mask_placement", around.format("a")).passed


def test_a_number_that_wants_a_gradient_is_read_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check("score_variance", torch.tensor(64.0, requires_grad=True)).passed


@pytest.mark.parametrize("stem", ASSIGNMENTS)
def test_the_right_letters_are_spread(stem: str) -> None:
    assert len({choice.answer for choice in CHOICES if choice.assignment == stem}) >= 3
