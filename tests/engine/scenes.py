"""A small class to grade again and again: quick submissions of many kinds, and a look at all that grading leaves."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook

from autograder.engine.classroom import Graded, Plan, grade_class
from autograder.engine.isolation import isolation
from autograder.weave import Course, generate, settings
from tests.nbgrader.small_class import ASSIGNMENT, NAME, NOTEBOOKS, ROOT, answered, small_course

KINDS = ("right", "raising", "no_solution", "duplicated", "killer", "untouched", "syntax", "own_cell")
WRONG = "def dot_scores(query, key):\n    return query @ key.transpose(-2, -1) / 2"
JAIL = not isolation().problem
"""Whether these tests can have a jail; without one they run all the same, since this is about other things."""


@dataclass(frozen=True)
class Class:
    """A course and a folder with submissions."""

    course: Course
    place: Path

    def grade(self, **plan: object) -> list[Graded]:
        """Grade it in this process's way, with two judges."""
        chosen = Plan(**{"workers": 2, "jail": JAIL, **plan})
        return grade_class(self.place, {ASSIGNMENT: NAME}, settings(self.course.root), chosen)

    def copy(self, place: Path) -> Class:
        """The same class, with its secret and whatever has been graded, somewhere else."""
        shutil.copytree(self.place, place, ignore=shutil.ignore_patterns("lock"))
        return Class(self.course, place)

    @property
    def students(self) -> list[str]:
        return sorted(path.name for path in (self.place / "submitted").iterdir())

    def submission(self, student: str) -> Path:
        return self.place / "submitted" / student / ASSIGNMENT / NAME

    def page(self, student: str) -> str:
        return (self.place / "feedback" / student / ASSIGNMENT / NAME).with_suffix(".html").read_text("utf-8")


def small_class(tmp_path: Path, students: int) -> Class:
    """`students` submissions of every quick kind, and wrong ones with points to lose in between."""
    course = small_course(tmp_path)
    place = tmp_path / "class"
    generate(course, place, gradebook=place / "gradebook.db")
    released = nbformat.read(place / "release" / ASSIGNMENT / NAME, as_version=4)
    for number in range(students):
        kind = KINDS[number % len(KINDS)]
        notebook = (
            NOTEBOOKS[kind](released) if number % 3 else answered(released, dot_scores=f"{WRONG}  # {number}")
        )
        path = place / "submitted" / f"s{number:02d}" / ASSIGNMENT / NAME
        path.parent.mkdir(parents=True)
        path.write_text(nbformat.writes(notebook), encoding="utf-8")
    return Class(course, place)


Standing = dict[str, tuple[float, list[tuple[str, float | None, float | None, bool, str | None]]]]


def standing(place: Path) -> Standing:
    """All that the gradebook holds of each submission, without what is a matter of the clock."""
    found: Standing = {}
    with Gradebook(f"sqlite:///{place}/gradebook.db", "attention") as gradebook:
        for submission in gradebook.find_assignment(ASSIGNMENT).submissions:
            assert len(submission.notebooks) == 1
            notebook = submission.notebooks[0]
            comments = {comment.name: comment.auto_comment for comment in notebook.comments}
            found[submission.student_id] = (
                notebook.score,
                sorted(
                    (
                        grade.name,
                        grade.auto_score,
                        grade.manual_score,
                        bool(grade.needs_manual_grade),
                        comments.get(grade.name),
                    )
                    for grade in notebook.grades
                ),
            )
    return found


def results(place: Path) -> tuple[Standing, str, dict[str, str]]:
    """Gradebook, grades.csv and feedback pages of a class."""
    pages = {
        str(path.relative_to(place)): path.read_text(encoding="utf-8")
        for path in sorted((place / "feedback").rglob("*.html"))
    }
    return standing(place), (place / "grades.csv").read_text(encoding="utf-8"), pages


PATIENCE = 120
"""Seconds until a test gives up on something that must happen."""


def ended(pid: int) -> bool:
    """Wait until a process is no more; False if that takes too long."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], PATIENCE)[0])
    finally:
        os.close(handle)


def children(pid: int) -> list[int]:
    """The processes below `pid`, all generations."""
    try:
        own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*own, *(grandchild for child in own for grandchild in children(child))]


def attn(course: Course, *arguments: str | Path, **options: object) -> subprocess.Popen[str]:
    """`attn` on a small course, in a process of its own."""
    command = [sys.executable, "-m", "tests.engine.small_attn", str(course.root), *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": _hear_interrupts, **options}
    return subprocess.Popen(command, text=True, env=env, **given)  # type: ignore[call-overload,no-any-return]


def _hear_interrupts() -> None:
    """As from a terminal: a test that itself runs in the background may have been told to ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def sandbox() -> list[str]:
    """The option that a machine without a jail needs."""
    return [] if JAIL else ["--no-sandbox"]
