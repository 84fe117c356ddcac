"""`attn check`: practice in a terminal."""

from typing import Any

import typer

from autograder.cli.errors import UserError, require_torch


def run_check(what: str, exercise: str | None, seed: int | None, case: int | None) -> int:
    """Check every exercise that `what` defines, or one; 1 if any fails, or a notebook leaves one undefined.

    Raises: UserError if the exercise does not exist or is not defined there.
    """
    require_torch()
    from autograder.exercises import ASSIGNMENTS, find, in_assignment
    from autograder.grading import check
    from autograder.practice import answers

    if case is not None and exercise is None:
        raise UserError("--case repeats one case of one exercise; say which: --exercise NAME")
    every = [each.name for stem in ASSIGNMENTS for each in in_assignment(stem)]
    try:
        wanted = [find(exercise).name] if exercise else every
    except ValueError as error:
        raise UserError(str(error)) from error
    found = answers(what)
    defined = [name for name in wanted if name in found.names]
    if not defined:
        problem = f"; {found.problems[0]}" if found.problems else ""
        expected = exercise or f"one or more of {', '.join(wanted)}"
        raise UserError(f"{what}: expected it to define {expected}, and it does not{problem}")
    reports: dict[str, Any] = {}
    for name in defined:
        try:
            reports[name] = check(name, found.names[name], seed=seed, case=case)
        except ValueError as error:
            raise UserError(str(error)) from error
        typer.echo(f"{reports[name]}\n")
    passed = [name for name, report in reports.items() if report.passed]
    earned = sum(report.points for report in reports.values())
    possible = sum(report.max_points for report in reports.values())
    typer.echo(f"{len(passed)} of {len(defined)} exercises pass, {earned:g} of {possible:g} points.")
    missing = [name for name in found.posed or wanted if name in wanted and name not in defined]
    if missing:
        typer.echo(f"Not defined: {', '.join(missing)}.")
    for problem in found.problems:
        typer.echo(f"Failed: {problem}")
    return 0 if len(passed) == len(defined) and not (missing and found.posed) else 1
