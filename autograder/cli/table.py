"""The class at a glance: who earned what, and which mistakes were recognised."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from autograder.engine.classroom import Graded
    from autograder.engine.results import Row

SHOWN = 2  # reasons per student; grades.csv has all of them


def tables(graded: list["Graded"]) -> list[Table]:
    """One table per assignment."""
    by_assignment: dict[str, list[Graded]] = {}
    for one in graded:
        by_assignment.setdefault(one.submission.assignment, []).append(one)
    return [_table(assignment, found) for assignment, found in sorted(by_assignment.items())]


def _table(assignment: str, graded: list["Graded"]) -> Table:
    """One line per submission."""
    shown = Table(title=assignment, show_lines=True)
    shown.add_column("student", no_wrap=True)
    shown.add_column("score", justify="right", no_wrap=True)
    shown.add_column("named mistakes", ratio=2)
    shown.add_column("reason or status", ratio=3)
    for one in graded:
        cells = [one.submission.student, score(one), mistakes(one), status(one)]
        shown.add_row(*(Text(cell) for cell in cells))
    return shown


def score(graded: "Graded") -> str:
    """Points earned of points graded; answers that wait for a person count on neither side."""
    counted = [row for row in graded.rows if row.score is not None]
    return f"{sum(row.score or 0.0 for row in counted):g} / {sum(row.points for row in counted):g}"


def mistakes(graded: "Graded") -> str:
    """The likeliest mistake of each exercise; grades.csv and the feedback have them all."""
    found: dict[str, list[str]] = {}
    for row in graded.rows:
        if row.mistakes:
            found.setdefault(row.mistakes[0], []).append(row.exercise)
    return "\n".join(f"{mistake}: {_names(exercises)}" for mistake, exercises in found.items())


def status(graded: "Graded") -> str:
    """Why the submission did not run, or the first reasons for missing marks that no mistake's name gives."""
    if graded.problem:
        return graded.problem
    lost = [
        row for row in graded.rows if row.score is not None and row.score < row.points and not row.mistakes
    ]
    by_reason: dict[str, list[str]] = {}
    for row in lost:
        reason = row.reason.removeprefix(f"{row.exercise}: ")
        by_reason.setdefault(reason, []).append(row.exercise)
    lines = [f"{_names(names)}: {reason}" for reason, names in list(by_reason.items())[:SHOWN]]
    if len(by_reason) > SHOWN:
        lines.append(f"and {len(by_reason) - SHOWN} more reason(s), in grades.csv")
    if lines:
        return "\n".join(lines)
    return "see the named mistakes" if _lost_any(graded.rows) else "all right"


def summary(place: Path, graded: list["Graded"]) -> str:
    """Where the results lie, and what is left to do."""
    waiting = sum(row.score is None for one in graded for row in one.rows)
    pages = sum(one.page is not None for one in graded)
    lines = [
        f"Grades:    {place / 'grades.csv'}",
        f"Feedback:  {place / 'feedback'} ({pages} pages)",
    ]
    if waiting:
        lines.append(
            f"{waiting} answer(s) in words need a person: run `jupyter lab` in {place}, choose Nbgrader, "
            "Formgrader; then grade again, and grades.csv holds those marks too."
        )
    return "\n".join(lines)


def _names(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _lost_any(rows: tuple["Row", ...]) -> bool:
    return any(row.score is not None and row.score < row.points for row in rows)
