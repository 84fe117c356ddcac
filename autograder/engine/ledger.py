"""Enter a graded submission into nbgrader's gradebook, in one transaction.

The same entries as nbgrader's SaveAutoGrades and AssignLatePenalties make, without a commit for each cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.api import (
    Comment,
    Grade,
    Gradebook,
    MissingEntry,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
)
from nbgrader.preprocessors import AssignLatePenalties
from nbgrader.utils import compute_checksum, determine_grade, is_grade, is_solution, parse_utc
from sqlalchemy.exc import DBAPIError
from traitlets.config import Config

__all__ = ["Entry", "Ledger", "LedgerError", "Mark", "gradebook_url"]

PATIENCE = 30.0
"""Seconds to wait for a gradebook that another program is writing to."""


class LedgerError(Exception):
    """The gradebook cannot be read or written; the text says which, and why."""

    for_the_user = True


def gradebook_url(config: Config, root: Path) -> str:
    """The address of a class's gradebook: what nbgrader_config.py names, or gradebook.db in `root`."""
    named = str(config.CourseDirectory.get("db_url", "") or "")
    return named or f"sqlite:///{(root / DATABASE).resolve()}?timeout={PATIENCE:g}"


DATABASE = "gradebook.db"


@dataclass(frozen=True)
class Mark:
    """What the gradebook says of one cell: marks, whether a person gave them or still has to, and the comment."""

    score: float
    max_score: float
    by_hand: bool
    waits: bool
    comment: str


@dataclass(frozen=True)
class Entry:
    """What the gradebook says of one submission: total, maximum, what was taken off for lateness, marks by grade id."""

    score: float
    max_score: float
    late_penalty: float
    marks: dict[str, Mark]


class Ledger:
    """One open gradebook for a whole run; only one process has one."""

    def __init__(self, url: str, course_id: str, config: Config):
        self.url = url
        with self._errors():
            self.gradebook = Gradebook(url, course_id)
        self.penalties = AssignLatePenalties(config=config)
        self.penalties.init_plugin()

    def enter(
        self, student: str, assignment: str, notebook_id: str, notebook: NotebookNode, folder: Path
    ) -> None:
        """Enter the grades that the outputs of `notebook` show. `folder` may hold nbgrader's timestamp.txt.

        A mark that a person has given stays; it is only flagged for another look.
        Raises: LedgerError if the gradebook cannot be written; then nothing of this submission is in it.
        """
        with self._errors(), self._transaction():
            submission = self._submission(student, assignment)
            stamp = folder / "timestamp.txt"
            if stamp.is_file() and (
                text := stamp.read_text(encoding="utf-8", errors="replace")[:100].strip()
            ):
                submission.timestamp = _parsed(text)
            page = next(one for one in submission.notebooks if one.name == notebook_id)
            _mark(page, {_id(cell): cell for cell in notebook.cells if _id(cell)})
            self.gradebook.db.flush()
            self._penalise(submission, page, student)

    def read(self, student: str, assignment: str, notebook_id: str) -> Entry:
        """What stands in the gradebook. Raises: MissingEntry if nothing has been entered."""
        page = self.gradebook.find_submission_notebook(notebook_id, assignment, student)
        comments = {comment.name: comment.comment or "" for comment in page.comments}
        marks = {
            grade.name: Mark(
                float(grade.score),
                float(grade.max_score),
                grade.manual_score is not None,
                grade.manual_score is None and grade.auto_score is None,
                comments.get(grade.name.removeprefix("check-"), ""),
            )
            for grade in page.grades
        }
        penalty = float(page.late_submission_penalty or 0.0)
        return Entry(float(page.score), float(page.max_score), penalty, marks)

    def close(self) -> None:
        """Close the gradebook."""
        self.gradebook.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say in one line what the database has to say in a page."""
        try:
            yield
        except DBAPIError as error:
            raise LedgerError(
                f"{self.url.partition('?')[0]}: the gradebook cannot be used ({error.orig}). What has been graded is kept: "
                "once this is mended, the same command goes on from there"
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            yield
            self.gradebook.db.commit()
        except BaseException:
            self.gradebook.db.rollback()
            raise

    def _submission(self, student: str, assignment: str) -> SubmittedAssignment:
        """The student's submission; a new one, with places for all marks, as nbgrader makes them, but not committed yet."""
        try:
            return self.gradebook.find_submission(assignment, student)
        except MissingEntry:
            pass
        db = self.gradebook.db
        with db.no_autoflush:
            made = SubmittedAssignment(
                assignment=self.gradebook.find_assignment(assignment),
                student=db.get(Student, student) or Student(id=student),
            )
            for notebook in made.assignment.notebooks:
                page = SubmittedNotebook(notebook=notebook, assignment=made)
                for cell in (*notebook.grade_cells, *notebook.task_cells):
                    Grade(cell_id=cell.id, notebook=page)
                for cell in (*notebook.solution_cells, *notebook.task_cells):
                    Comment(cell_id=cell.id, notebook=page)
            db.add(made)
            db.flush()
        db.expire(made)
        return made

    def _penalise(self, submission: SubmittedAssignment, page: SubmittedNotebook, student: str) -> None:
        page.late_submission_penalty = None
        if submission.total_seconds_late > 0:
            penalty = self.penalties.plugin_inst.late_submission_penalty(
                student, page.score, submission.total_seconds_late
            )
            if penalty is not None:
                page.late_submission_penalty = self.penalties._check_late_penalty(page, penalty)


def _mark(page: SubmittedNotebook, cells: dict[str, NotebookNode]) -> None:
    for grade in page.grades:
        cell = cells.get(grade.name)
        grade.auto_score = 0.0 if cell is None or not is_grade(cell) else determine_grade(cell)[0]
        grade.needs_manual_grade = grade.manual_score is not None or grade.auto_score is None
    for comment in page.comments:
        cell = cells.get(comment.name)
        unchanged = cell is not None and cell.metadata.nbgrader.get("checksum") == compute_checksum(cell)
        comment.auto_comment = "No response." if cell is None or (is_solution(cell) and unchanged) else None


def _id(cell: NotebookNode) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def _parsed(text: str) -> Any:
    try:
        return parse_utc(text)
    except (ValueError, OverflowError):
        return None  # nbgrader, too, takes an unreadable stamp for none
