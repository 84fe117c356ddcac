"""The class at a glance: who earned what, and which mistakes were recognised."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from autograder.engine.classroom import Graded
    from autograder.engine.results import Row

SHOWN = 2  # reasons of a student, and mistakes of an exercise; grades.csv has all of them


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
    shown.add_column("named mistakes", ratio=2, overflow="fold")  # a file's name is never cut
    shown.add_column("reason or status", ratio=3, overflow="fold")
    for one in graded:
        cells = [one.submission.student, score(one), mistakes(one), status(one)]
        shown.add_row(*(Text(cell) for cell in cells))
    return shown


def score(graded: "Graded") -> str:
    """Points earned so far, of all that the notebook has."""
    earned = sum(row.score or 0.0 for row in graded.rows)
    return f"{'–' if graded.page is None else f'{earned:g}'} / {sum(row.points for row in graded.rows):g}"


def mistakes(graded: "Graded") -> str:
    """The mistakes and the exercises that they were made in, of each exercise the likeliest; the rest is counted."""
    found: dict[str, list[str]] = {}
    for row in graded.rows:
        for mistake in row.mistakes[:SHOWN]:
            found.setdefault(mistake, []).append(row.exercise)
    lines = [f"{mistake}: {_names(exercises)}" for mistake, exercises in found.items()]
    more = sum(len(row.mistakes[SHOWN:]) for row in graded.rows)
    return "\n".join([*lines, f"and {more} more, in grades.csv"] if more else lines)


def status(graded: "Graded") -> str:
    """What keeps a submission from full marks: it did not run, or the first reasons that no mistake's name gives, or
    answers in words that nobody has marked yet."""
    lines = [graded.problem] if graded.problem else _reasons(graded.rows)
    if not lines and any(_lost(row) for row in graded.rows):
        lines = ["see the named mistakes"]
    if waiting := sum(row.waits for row in graded.rows):
        lines.append(f"{_answers(waiting)} to mark")
    return "\n".join(lines) or "all right"


def _reasons(rows: tuple["Row", ...]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        if _lost(row) and not row.mistakes:
            by_reason.setdefault(row.reason.removeprefix(f"{row.exercise}: "), []).append(row.exercise)
    lines = [f"{_names(names)}: {reason}" for reason, names in list(by_reason.items())[:SHOWN]]
    more = len(by_reason) - SHOWN
    return [*lines, f"and {more} more reason{'s' if more > 1 else ''}, in grades.csv"] if more > 0 else lines


def summary(place: Path, graded: list["Graded"]) -> str:
    """Where the results lie, and what is left to do."""
    waiting = sum(row.waits for one in graded for row in one.rows)
    pages = sum(one.page is not None for one in graded)
    lines = [
        f"Grades:    {place / 'grades.csv'}",
        f"Feedback:  {place / 'feedback'} ({pages} pages)",
    ]
    if waiting:
        lines.append(
            f"{_answers(waiting)} {'need' if waiting > 1 else 'needs'} a person: run `jupyter lab` in {place}, choose "
            "Nbgrader, Formgrader; then grade again, and grades.csv holds those marks too."
        )
    return "\n".join(lines)


def _answers(count: int) -> str:
    return f"{count} answer{'s' if count > 1 else ''} in words"


def _lost(row: "Row") -> bool:
    return row.score is not None and row.score < row.points


def _names(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
