"""A class in which most submissions are broken: each fails alone, with its reason; the others are graded."""

from __future__ import annotations

import csv
import shutil
from html import unescape
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from autograder.cli.table import score, status
from autograder.engine.classroom import Graded, Plan, grade_class
from autograder.engine.nursery import Limit
from autograder.engine.submissions import Submission, UnreadableError, parse_notebook
from autograder.weave import Course, generate, settings
from tests.nbgrader.small_class import ASSIGNMENT, FILES, NAME, NOTEBOOKS, small_course, write_class

FULL = 3.0  # dot_scores
ABSENT = ("absent", "folder_only", "renamed", "readme_only", "other")
TIMEOUT = 5  # seconds: far more than any honest cell here needs, even on a busy machine


class Class:
    """The graded class, looked at from all sides."""

    def __init__(self, place: Path, course: Course, graded: list[Graded]):
        self.place, self.course, self.graded = place, course, graded

    def row(self, student: str, exercise: str) -> dict[str, str]:
        with (self.place / "grades.csv").open(newline="", encoding="utf-8") as file:
            found = [
                row
                for row in csv.DictReader(file)
                if (row["student"], row["exercise"]) == (student, exercise)
            ]
        assert len(found) == 1
        return found[0]

    def of(self, student: str) -> Graded:
        return next(one for one in self.graded if one.submission.student == student)

    def page(self, student: str) -> str:
        return (self.place / "feedback" / student / ASSIGNMENT / "basic_attention.html").read_text("utf-8")


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Class:
    place = tmp_path_factory.mktemp("class")
    course = small_course(tmp_path_factory.mktemp("course"))
    generate(course, place, gradebook=place / "gradebook.db")
    write_class(place, nbformat.read(place / "release" / ASSIGNMENT / NAME, as_version=4))
    found = grade_class(
        place, {ASSIGNMENT: NAME}, settings(course.root), Plan(Limit(request=TIMEOUT, cell=TIMEOUT))
    )
    return Class(place, course, found)


def test_every_student_is_in_the_csv_with_every_exercise(graded: Class) -> None:
    with (graded.place / "grades.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["student", "assignment", "exercise", "score", "points", "mistakes", "reason"]
    students = {*NOTEBOOKS, *FILES, *ABSENT}
    assert {row[0] for row in rows[1:]} == students
    assert [row[2] for row in rows[1:]] == ["dot_scores", "why_scale", "in_words"] * len(students)
    assert {row[1] for row in rows[1:]} == {ASSIGNMENT}


@pytest.mark.parametrize(
    "student",
    ["right", "no_grade_cell", "duplicated", "old_schema", "moved", "own_cell", "no_metadata"],
)
def test_a_right_answer_earns_full_marks_however_the_notebook_was_mangled(
    graded: Class, student: str
) -> None:
    assert graded.row(student, "dot_scores")["score"] == f"{FULL:g}"
    assert graded.row(student, "why_scale")["score"] == "1"
    assert graded.row(student, "dot_scores")["reason"] == ""


REASONS = [
    ("untouched", "dot_scores", "is not written yet"),
    ("untouched", "why_scale", "no answer yet"),
    ("untouched", "in_words", "no answer"),
    ("syntax", "dot_scores", "the solution cell failed: SyntaxError: expected ':' (line 1 of the cell)"),
    ("raising", "dot_scores", "the solution cell failed: ValueError: my own trouble"),
    ("loop", "dot_scores", "the solution cell failed: "),
    (
        "stubborn",
        "dot_scores",
        f"did not finish within {TIMEOUT} s and could not be interrupted",
    ),
    ("stubborn", "why_scale", "could not be interrupted"),
    ("killer", "dot_scores", "the process ended itself with exit status 3"),
    ("killer", "why_scale", "the process ended itself"),
    (
        "no_solution",
        "dot_scores",
        "is not defined: the solution cell was deleted, and no other cell defines it",
    ),
    ("neither", "dot_scores", "the solution cell was deleted"),
    ("neither", "in_words", "no answer"),
    ("empty", "dot_scores", "basic_attention.ipynb is empty"),
    ("empty", "in_words", "basic_attention.ipynb is empty"),
    ("broken", "dot_scores", "basic_attention.ipynb is broken JSON: "),
    ("list", "why_scale", "basic_attention.ipynb is not a notebook"),
    ("cellless", "why_scale", "basic_attention.ipynb is not a notebook"),
    ("absent", "dot_scores", f"nothing was handed in; expected submitted/absent/{ASSIGNMENT}/{NAME}"),
    ("folder_only", "dot_scores", "nothing was handed in"),
    ("renamed", "dot_scores", "found basic_attention (1).ipynb: rename it?"),
    ("readme_only", "dot_scores", "no basic_attention.ipynb was handed in; found readme.txt"),
    ("other", "dot_scores", "is the notebook of shared_attention, renamed; expected the one of 01_basic"),
]


@pytest.mark.parametrize(("student", "exercise", "reason"), REASONS)
def test_a_broken_submission_scores_zero_and_says_why(
    graded: Class, student: str, exercise: str, reason: str
) -> None:
    row = graded.row(student, exercise)
    assert reason in row["reason"]
    assert row["score"] == "0"


@pytest.mark.parametrize("student", ["syntax", "raising", "loop", "no_solution"])
def test_one_failing_cell_costs_its_own_exercise_and_no_other(graded: Class, student: str) -> None:
    assert graded.row(student, "why_scale")["score"] == "1"


def test_names_of_other_peoples_files_are_told_to_nobody(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "exam.ipynb").touch()
    (tmp_path / "submitted" / "spy").mkdir(parents=True)
    (tmp_path / "submitted" / "spy" / ASSIGNMENT).symlink_to(private)
    one = Submission("spy", ASSIGNMENT, tmp_path / "submitted" / "spy" / ASSIGNMENT / NAME)
    with pytest.raises(UnreadableError, match="nothing was handed in") as refused:
        one.read()
    assert "exam" not in str(refused.value)


def test_an_answer_in_words_waits_for_a_person(graded: Class) -> None:
    row = graded.row("right", "in_words")
    assert (row["score"], row["points"], row["reason"]) == ("", "2", "needs a person")


def test_edited_grade_cells_are_the_teachers_again(graded: Class) -> None:
    row = graded.row("cheated", "dot_scores")
    assert float(row["score"]) < FULL
    assert row["points"] == f"{FULL:g}"


def test_the_gradebook_holds_the_same_scores_as_the_csv(graded: Class) -> None:
    with Gradebook(f"sqlite:///{graded.place}/gradebook.db", "attention") as gradebook:
        for one in graded.graded:
            student = one.submission.student
            notebook = gradebook.find_submission_notebook("basic_attention", ASSIGNMENT, student)
            scores = {grade.name.removeprefix("check-"): grade for grade in notebook.grades}
            for row in one.rows:
                assert scores[row.exercise].max_score == row.points
                assert scores[row.exercise].needs_manual_grade == (row.score is None)
                assert scores[row.exercise].score == (row.score or 0.0)


def test_every_submission_has_a_feedback_page_that_says_what_happened(graded: Class) -> None:
    assert all(one.page for one in graded.graded)
    assert "This submission was not run:" in graded.page("broken")
    assert "is broken JSON" in graded.page("broken")
    assert (
        "the process ended itself with exit status 3, in the cell that begins with: import os"
        in graded.page("killer")
    )
    assert "my own trouble" in graded.page("raising")


@pytest.mark.parametrize("student", [*FILES, *ABSENT])
def test_a_submission_that_was_not_run_is_told_why_once(graded: Class, student: str) -> None:
    page, one = graded.page(student), graded.of(student)
    assert unescape(page).count(one.problem) == 1
    assert "was deleted" not in page
    assert "NotGraded" not in page
    assert page.count("0 / 3") == 1, "its marks stand in the table, and nowhere else"
    assert status(one) == one.problem


def test_broken_json_is_named_by_its_line(graded: Class) -> None:
    assert graded.of("broken").problem.endswith("at line 3")


def test_the_reason_of_broken_json_reads_as_a_sentence() -> None:
    with pytest.raises(UnreadableError, match=r"^x\.ipynb is broken JSON: Unterminated string at line 2$"):
        parse_notebook('{\n"cells', "x.ipynb")


def test_the_maximum_is_the_whole_notebooks_whatever_waits_for_a_person(graded: Class) -> None:
    right, untouched = graded.of("right"), graded.of("untouched")
    assert score(right) == "4 / 6"
    assert score(untouched) == "0 / 6"
    assert "of 6 points" in graded.page("right")
    assert status(right) == "1 answer in words to mark"
    assert "1 answer in words to mark" in status(graded.of("raising"))
    assert "to mark" not in status(untouched)


def test_pages_load_nothing_from_the_network_and_show_formulas(graded: Class) -> None:
    page = graded.page("right")
    assert "<math" in page
    for tag in ("<script", "<link", "@import"):
        assert not [line for line in page.split("\n") if tag in line and "http" in line]


def test_the_rubric_is_shown_behind_the_answer_and_only_in_the_graded_copy(graded: Class) -> None:
    path = graded.place / "autograded" / "right" / ASSIGNMENT / NAME
    cells = nbformat.read(path, as_version=4).cells
    index = next(i for i, cell in enumerate(cells) if cell.id == "in_words")
    assert cells[index].source == "Because the dot product grows with $D$."
    assert cells[index + 1].id == "rubric-in_words"
    assert "names the variance" in cells[index + 1].source
    assert "nbgrader" not in cells[index + 1].metadata
    for room in ("release", "submitted"):
        for notebook in (graded.place / room).rglob("*.ipynb"):
            assert "names the variance" not in notebook.read_text(encoding="utf-8")


def test_marks_given_by_hand_survive_a_second_grading(graded: Class, tmp_path: Path) -> None:
    place = tmp_path / "again"
    place.mkdir()
    shutil.copy(graded.place / "gradebook.db", place)
    shutil.copytree(graded.place / "submitted" / "right", place / "submitted" / "right")
    with Gradebook(f"sqlite:///{place}/gradebook.db", "attention") as gradebook:
        grade = gradebook.find_grade("in_words", "basic_attention", ASSIGNMENT, "right")
        grade.manual_score = 1.5
        gradebook.db.commit()
    generate(graded.course, place, gradebook=place / "gradebook.db")
    again = grade_class(place, {ASSIGNMENT: NAME}, settings(graded.course.root))
    row = again[0].rows[-1]
    assert (row.exercise, row.score, row.reason) == ("in_words", 1.5, "marked by a person")
    assert status(again[0]) == "in_words: marked by a person"
    with Gradebook(f"sqlite:///{place}/gradebook.db", "attention") as gradebook:
        gradebook.find_comment("in_words", "basic_attention", ASSIGNMENT, "right").manual_comment = "And\nD?"
        gradebook.db.commit()
    commented = grade_class(place, {ASSIGNMENT: NAME}, settings(graded.course.root))
    assert status(commented[0]) == "in_words: marked by a person: And D?"
    with Gradebook(f"sqlite:///{place}/gradebook.db", "attention") as gradebook:
        gradebook.find_grade("in_words", "basic_attention", ASSIGNMENT, "right").manual_score = 2
        gradebook.db.commit()
    full = grade_class(place, {ASSIGNMENT: NAME}, settings(graded.course.root))
    assert (full[0].rows[-1].reason, status(full[0])) == ("", "all right")
