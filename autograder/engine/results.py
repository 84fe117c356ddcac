"""The rows of grades.csv: what each exercise of each submission earned, and why not more."""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.utils import is_grade, is_solution

from autograder.engine.ledger import Entry, Mark
from autograder.engine.outcome import Outcome
from autograder.engine.store import write_whole
from autograder.verdict import MIME_TYPE

COLUMNS = ("student", "assignment", "exercise", "score", "points", "mistakes", "reason")
TIMED_OUT = "CellTimeoutError"
NEEDS_A_PERSON = "needs a person"
NO_ANSWER = "no answer"
BY_HAND = "marked by a person"
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

    @property
    def waits(self) -> bool:
        """Whether a person has yet to mark it."""
        return self.score is None and self.reason == NEEDS_A_PERSON

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


def rows_of(outcome: Outcome, entry: Entry | None) -> list[Row]:
    """One row per exercise, in the notebook's order. `entry` is None where nothing could be entered."""
    cells = {cell.metadata.nbgrader.grade_id: cell for cell in outcome.notebook.cells if _grade_id(cell)}
    rows = []
    for grade_id, cell in cells.items():
        if not is_grade(cell):
            continue
        exercise = grade_id.removeprefix("check-")
        mark = entry.marks.get(grade_id) if entry else None
        mistakes: tuple[str, ...] = ()
        if mark is None:
            reason = f"not graded: {outcome.failure}"
        elif not is_solution(cell):
            mistakes, reason = explain(cell, cells.get(exercise), exercise)
            if mark.by_hand and not reason:
                reason = _of_a_person(mark)
        elif mark.waits:
            reason = NEEDS_A_PERSON
        else:
            reason = _of_a_person(mark) if mark.by_hand else NO_ANSWER if outcome.ran else outcome.problem
        rows.append(
            Row(
                outcome.submission.student,
                outcome.submission.assignment,
                exercise,
                None if mark is None or mark.waits else mark.score,
                float(cell.metadata.nbgrader.points),
                mistakes,
                reason,
            )
        )
    return rows


def _of_a_person(mark: Mark) -> str:
    """Why an answer that a person marked has no full marks, as far as that person said."""
    if mark.score >= mark.max_score:
        return ""
    said = " ".join(mark.comment.split())
    return f"{BY_HAND}: {said}" if said else BY_HAND


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


def reports_of(notebook: NotebookNode) -> dict[str, dict[str, Any]]:
    """The reports in a graded notebook, by exercise."""
    found = (report_of(cell) for cell in notebook.cells if cell.cell_type == "code")
    return {report["exercise"]: report for report in found if report is not None}


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write grades.csv, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(row.values() for row in rows)
    write_whole(path, text.getvalue())


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
    said = re.sub(r"\(\S+\.py, line (\d+)\)", r"(line \1 of the cell)", str(own.evalue))
    return f"the solution cell failed: {own.ename}: {said}"


def _first_complaint(report: dict[str, Any]) -> str:
    """The first line of the first verdict that is not passed."""
    for verdict in report.get("verdicts", ()):
        if verdict.get("status") in ("failed", "errored") and verdict.get("message"):
            return str(verdict["message"]).strip().split("\n")[0]
    return ""


def _grade_id(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("grade_id"))
