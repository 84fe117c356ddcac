"""The rows of grades.csv: what each exercise of each submission earned, and why not more."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.utils import is_grade, is_solution

from autograder.engine.kernel import TIMED_OUT
from autograder.engine.outcome import Outcome
from autograder.grading import MIME_TYPE

COLUMNS = ("student", "assignment", "exercise", "score", "points", "mistakes", "reason")
NEEDS_A_PERSON = "needs a person"
NO_ANSWER = "no answer"
LONGEST = 300


@dataclass(frozen=True)
class Row:
    """One exercise of one submission. `score` is None until a person has graded an answer in words."""

    student: str
    assignment: str
    exercise: str
    score: float | None
    points: float
    mistakes: tuple[str, ...] = ()
    reason: str = ""

    def values(self) -> tuple[str, ...]:
        """The row as it stands in grades.csv."""
        score = "" if self.score is None else f"{self.score:g}"
        named = ";".join(mistake.replace(";", ",") for mistake in self.mistakes)
        return (
            self.student,
            self.assignment,
            self.exercise,
            score,
            f"{self.points:g}",
            named,
            _text(self.reason),
        )


def rows_of(outcome: Outcome, db_url: str, course_id: str, refused: str = "") -> list[Row]:
    """One row per exercise, in the notebook's order. `refused`: why nbgrader did not save it, if so."""
    grades = {} if refused else _grades(outcome, db_url, course_id)
    cells = {cell.metadata.nbgrader.grade_id: cell for cell in outcome.notebook.cells if _grade_id(cell)}
    rows = []
    for grade_id, cell in cells.items():
        if not is_grade(cell):
            continue
        exercise = grade_id.removeprefix("check-")
        score, by_hand, waits = grades.get(grade_id, (0.0, False, False))
        mistakes: tuple[str, ...] = ()
        if refused:
            reason = f"nbgrader could not save it: {refused}"
        elif not is_solution(cell):
            mistakes, reason = explain(cell, cells.get(exercise), exercise)
        elif waits:
            reason = NEEDS_A_PERSON
        else:
            reason = "" if by_hand else NO_ANSWER if outcome.ran else outcome.problem
        rows.append(
            Row(
                outcome.submission.student,
                outcome.submission.assignment,
                exercise,
                None if waits else score,
                float(cell.metadata.nbgrader.points),
                mistakes,
                reason,
            )
        )
    return rows


def explain(cell: NotebookNode, solution: NotebookNode | None, exercise: str) -> tuple[tuple[str, ...], str]:
    """The named mistakes that a grade cell reports, and in a few words why marks are missing."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors:
        return (), _error_reason(errors, solution, exercise)
    report = report_of(cell)
    if report is None or report.get("passed"):
        return (), ""
    return tuple(report.get("mistakes", ())), _first_complaint(report)


def report_of(cell: NotebookNode) -> dict[str, Any] | None:
    """The report that a grade cell shows, as the grader's `to_dict` wrote it."""
    for output in cell.outputs:
        found = output.get("data", {}).get(MIME_TYPE)
        if isinstance(found, dict):
            return found
    return None


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write grades.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(row.values() for row in rows)


def _text(reason: str) -> str:
    """A reason as one short line that no spreadsheet takes for a formula: students can choose its words."""
    line = " ".join(reason.split())[:LONGEST]
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def _error_reason(errors: list[NotebookNode], solution: NotebookNode | None, exercise: str) -> str:
    if any(error.ename == TIMED_OUT for error in errors):
        return f"{errors[-1].evalue}: is there a loop that never ends?"
    error = errors[0]
    text = f"{error.ename}: {error.evalue}" if error.evalue else error.ename
    if error.ename == "NotGraded":
        return str(error.evalue)
    if error.ename != "NameError" or exercise not in error.evalue:
        return text
    if solution is None:
        return f"{text}: the solution cell was deleted, and no other cell defines it"
    own = next((output for output in solution.outputs if output.output_type == "error"), None)
    if own is None:
        return f"{text}: the solution cell does not define it"
    return f"the solution cell failed: {own.ename}: {own.evalue}"


def _first_complaint(report: dict[str, Any]) -> str:
    """The first line of the first verdict that is not passed."""
    for verdict in report.get("verdicts", ()):
        if verdict.get("status") in ("failed", "errored") and verdict.get("message"):
            return str(verdict["message"]).strip().split("\n")[0]
    return ""


def _grades(outcome: Outcome, db_url: str, course_id: str) -> dict[str, tuple[float, bool, bool]]:
    """By grade id: the score, whether a person gave it, and whether a person still has to."""
    submission = outcome.submission
    with Gradebook(db_url, course_id) as gradebook:
        try:
            notebook = gradebook.find_submission_notebook(
                submission.path.stem, submission.assignment, submission.student
            )
        except MissingEntry:
            return {}
        return {
            grade.name: (
                float(grade.score),
                grade.manual_score is not None,
                grade.manual_score is None and grade.auto_score is None,
            )
            for grade in notebook.grades
        }


def _grade_id(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("grade_id"))
