"""`attn regrade`: one submission again, with the seed on record."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.cli.errors import UserError, require_isolation, require_torch

if TYPE_CHECKING:
    from nbformat import NotebookNode


def run_regrade(folder: Path, student: str, assignment: str, sandbox: bool, root: Path | None) -> int:
    """Replay a submission and print its reports; nothing is written.

    Returns 0 if all verdicts are those on record, 1 if any differs or the submission is not the one that was graded.
    """
    require_torch()
    import nbformat
    import typer

    from autograder.engine.execute import UNSAFE
    from autograder.engine.nursery import NurseryError
    from autograder.engine.outcome import prepare
    from autograder.engine.pool import Standby, Task
    from autograder.engine.results import reports_of
    from autograder.engine.sandbox import Sandbox
    from autograder.engine.store import Store
    from autograder.engine.submissions import class_folder, find_submissions
    from autograder.engine.text import from_text, to_text
    from autograder.verdict import Report
    from autograder.weave import find_course, settings

    course = find_course(root)
    place = class_folder(folder)
    notebooks = {course.assignment_id(stem): f"{stem}.ipynb" for stem in course.stems}
    found = [
        one
        for one in find_submissions(place, notebooks)
        if (one.student, one.assignment) == (student, assignment)
    ]
    if not found:
        raise UserError(
            f"{place}: no submission of {student} for {assignment}; expected submitted/{student}/{assignment}"
        )
    stored = Store(place).find(student, assignment)
    if stored is None:
        raise UserError(f"{place}: {student}/{assignment} has not been graded yet; run: attn grade {place}")
    sandbox_settings = Sandbox(config=settings(course.root))
    jail = sandbox and sandbox_settings.jail
    require_isolation(jail)
    released = nbformat.read(place / "release" / assignment / found[0].path.name, as_version=4)
    outcome = prepare(found[0], released)
    if not outcome.ran:
        raise UserError(f"{found[0].path}: {outcome.problem}")
    text = to_text(outcome.notebook)
    task = Task(0, text, sandbox_settings.limit(), stored.seed, "" if jail else UNSAFE)
    try:
        with closing(Standby(jail)) as standby:
            result = standby.grade(task)
    except NurseryError as error:
        raise UserError(f"{student}/{assignment} could not be graded: {error}") from error
    graded = from_text(stored.notebook)
    before = reports_of(graded)
    after = reports_of(from_text(result.notebook))
    for report in after.values():
        typer.echo(str(Report.from_dict(report)))
    same = [name for name in before if before[name]["verdicts"] == after.get(name, {}).get("verdicts")]
    typer.echo(f"seed {stored.seed}: {len(same)} of {len(before)} exercises have the verdicts on record.")
    if result.problem:
        typer.echo(f"The run ended early: {result.problem}")
    changed = _changed(graded, outcome.notebook)
    if changed:
        typer.echo(f"The submission has changed since it was graded: {', '.join(changed)}.")
    return 0 if len(same) == len(before) == len(after) and not changed else 1


def _changed(before: NotebookNode, after: NotebookNode) -> list[str]:
    """The cells whose text is not the one that was graded, by id."""
    old, new = ({cell.id: cell.source for cell in notebook.cells} for notebook in (before, after))
    return [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
