"""nbgrader's own commands work from a copy of course/ with nothing set up but what is committed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from tests.nbgrader.small_class import ASSIGNMENT, NAME, ROOT, answered, cell_of

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "NBGRADER"))},
    "PATH": "/usr/bin:/bin",  # an environment that nobody has activated
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
}


def nbgrader(course: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "nbgrader", *arguments]
    home = {"HOME": str(course.parent), "JUPYTER_CONFIG_DIR": str(course.parent / "jupyter")}
    run = subprocess.run(command, cwd=course, env={**ENVIRONMENT, **home}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone's course/, taken from release to feedback by nbgrader's commands alone."""
    place = tmp_path_factory.mktemp("clone")
    ignore = shutil.ignore_patterns(
        "source", "submitted", "autograded", "feedback", "exchange", "gradebook.db*"
    )
    shutil.copytree(ROOT / "course", place / "course", ignore=ignore)
    shutil.copytree(ROOT / "solutions", place / "solutions", ignore=shutil.ignore_patterns("__pycache__"))
    course = place / "course"
    nbgrader(course, "generate_assignment", ASSIGNMENT)
    nbgrader(course, "release_assignment", ASSIGNMENT)
    released = nbformat.read(course / "release" / ASSIGNMENT / NAME, as_version=4)
    handed_in = answered_all(released)
    path = course / "submitted" / "ada" / ASSIGNMENT / NAME
    path.parent.mkdir(parents=True)
    path.write_text(nbformat.writes(handed_in), encoding="utf-8")
    nbgrader(course, "autograde", ASSIGNMENT)
    nbgrader(course, "generate_feedback", ASSIGNMENT)
    return course


def answered_all(released: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Two right answers, one answer in words, all else untouched; demonstrations left out to save time."""
    made = answered(released)
    cell_of(made, "what_is_attention").source = "A weighted average."
    made.cells = [cell for cell in made.cells if "nbgrader" in cell.metadata]
    return made


def test_generate_assignment_weaves_the_source_and_rebuilds_the_same_release(course: Path) -> None:
    assert (course / "source" / ASSIGNMENT / NAME).is_file()
    committed = ROOT / "course" / "release" / ASSIGNMENT / NAME
    assert (course / "release" / ASSIGNMENT / NAME).read_bytes() == committed.read_bytes()


def test_release_goes_to_an_exchange_inside_the_course(course: Path) -> None:
    assert (course / "exchange" / "attention" / "outbound" / ASSIGNMENT / NAME).is_file()


def test_autograde_scores_right_answers_and_leaves_the_words_to_a_person(course: Path) -> None:
    with Gradebook(f"sqlite:///{course}/gradebook.db", "attention") as gradebook:
        notebook = gradebook.find_submission_notebook("basic_attention", ASSIGNMENT, "ada")
        grades = {
            grade.name: (grade.auto_score, grade.max_score, grade.needs_manual_grade)
            for grade in notebook.grades
        }
    assert grades["check-dot_scores"] == (3.0, 3.0, False)
    assert grades["check-why_scale"] == (1.0, 1.0, False)
    assert grades["check-attention"][0] == 0.0
    assert grades["what_is_attention"] == (None, 4.0, True)


def test_the_graded_copy_shows_the_rubric_to_the_person_who_grades(course: Path) -> None:
    cells = nbformat.read(course / "autograded" / "ada" / ASSIGNMENT / NAME, as_version=4).cells
    rubric = next(cell for cell in cells if cell.id == "rubric-what_is_attention")
    assert "**Rubric**" in rubric.source


def test_feedback_shows_the_reports(course: Path) -> None:
    page = (course / "feedback" / "ada" / ASSIGNMENT / "basic_attention.html").read_text(encoding="utf-8")
    assert "attn-report" in page
    assert "is not written yet" in page
    assert "cdnjs" not in page


def test_feedback_keeps_the_model_answer_and_its_rubric_from_students(course: Path) -> None:
    page = (course / "feedback" / "ada" / ASSIGNMENT / "basic_attention.html").read_text(encoding="utf-8")
    assert "A weighted average." in page
    assert "For the person who grades" not in page
    assert "Rubric" not in page


def test_nothing_was_written_that_git_would_see(course: Path) -> None:
    """The .gitignore of course/ covers all that nbgrader makes."""
    subprocess.run(["git", "init", "-q"], cwd=course, check=True)
    shown = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"],
        cwd=course,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert {name.split("/")[0] for name in shown} <= {
        ".gitignore",
        "lessons",
        "nbgrader_config.py",
        "release",
    }
