"""The table that `attn grade` prints: what each submission earned, which mistakes were made, what is left to do."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from autograder.cli.table import mistakes, score, status, summary, tables
from autograder.engine.classroom import Graded
from autograder.engine.results import NEEDS_A_PERSON, Row
from autograder.engine.submissions import Submission


def graded(*rows: Row, page: Path | None = Path("page.html"), problem: str = "") -> Graded:
    return Graded(Submission("ann", "01_x", Path("x.ipynb")), rows, page, problem)


def row(exercise: str, score: float | None, *mistakes: str, reason: str = "", points: float = 4.0) -> Row:
    return Row("ann", "01_x", exercise, score, points, mistakes, reason)


WORDS = row("words", None, reason=NEEDS_A_PERSON)


def test_points_are_of_all_that_can_be_had_and_unread_answers_are_counted() -> None:
    one = graded(row("softmax", 4.0), WORDS)
    assert score(one) == "4 / 8"
    assert status(one) == "1 answer in words to mark"
    assert "1 answer in words needs a person" in summary(Path(), [one])
    assert "3 answers in words need a person" in summary(Path(), [one, graded(WORDS, WORDS)])


def test_only_full_marks_are_all_right() -> None:
    assert status(graded(row("softmax", 4.0))) == "all right"
    assert status(graded(row("softmax", 3.0, "not scaled"))) == "see the named mistakes"
    lost = graded(row("softmax", 3.0, "not scaled"), row("attention", 0.0, reason="attention: no"), WORDS)
    assert status(lost) == "attention: no\n1 answer in words to mark"


def test_every_mistake_of_an_exercise_is_named_or_counted() -> None:
    one = graded(row("softmax", 1.0, "overflows", "wrong axis"), row("attention", 1.0, "wrong axis"))
    assert mistakes(one) == "overflows: softmax\nwrong axis: softmax, attention"
    many = graded(row("softmax", 1.0, "a", "b", "c", "d"))
    assert mistakes(many) == "a: softmax\nb: softmax\nand 2 more, in grades.csv"


def test_a_long_word_is_wrapped_and_never_cut() -> None:
    name = "submitted/bruno/06_gpu_kernels/gpu_kernels_and_a_long_tail.ipynb"
    one = graded(row("softmax", 0.0, f"no_{name}"), problem=f"nothing was handed in; expected {name}")
    console = Console(width=70, file=io.StringIO())
    for table in tables([one]):
        console.print(table)
    printed = console.file.getvalue()
    assert "…" not in printed
    columns = [
        [line.split("│")[place].strip() for line in printed.splitlines() if "│" in line] for place in (3, 4)
    ]
    assert all(name in "".join(column) for column in columns)


def test_what_the_grader_could_not_grade_has_no_points_and_waits_for_nobody() -> None:
    one = graded(row("softmax", None, reason="not graded: lost"), page=None, problem="not graded: lost")
    assert score(one) == "– / 4"
    assert status(one) == "not graded: lost"
    assert "words" not in summary(Path(), [one])
