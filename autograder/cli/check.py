"""`attn check`: practice in a terminal."""

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import typer

from autograder.cli.errors import UserError, require_torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autograder.practice import Answers


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
    assignments = [[each.name for each in in_assignment(stem)] for stem in ASSIGNMENTS]
    try:
        wanted = [find(exercise).name] if exercise else [name for names in assignments for name in names]
    except ValueError as error:
        raise UserError(str(error)) from error
    found = answers(what)
    defined = [name for name in wanted if name in found.names]
    if not defined:
        raise UserError(f"{what}: {_nothing_defined(found, wanted, exercise)}")
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
    begun = [name for names in assignments if not set(names).isdisjoint(defined) for name in names]
    missing = [name for name in found.posed or begun if name in wanted and name not in defined]
    if missing:
        typer.echo(f"Not defined: {', '.join(missing)}.")
    for problem in found.problems:
        typer.echo(f"Failed: {problem}")
    if found.in_words and exercise is None:
        typer.echo(_left_to_a_person(found.in_words))
    return 0 if len(passed) == len(defined) and not (missing and found.posed) else 1


def _nothing_defined(found: "Answers", wanted: list[str], exercise: str | None) -> str:
    """What was expected, and which of the names found may have been meant."""
    from autograder.exercises import LIST_ALL

    problem = f"; {found.problems[0]}" if found.problems else ""
    if exercise:
        return f"expected it to define {exercise}, and it does not{problem}"
    for name in found.names:
        if not name.startswith("_") and (near := get_close_matches(name, wanted, n=1, cutoff=ALIKE)):
            return f"defines no exercise; did you mean {near[0]!r} by {name!r}? {LIST_ALL}{problem}"
    return f"defines no exercise; expected names like {', '.join(wanted[:3])}: {LIST_ALL}{problem}"


ALIKE = 0.8
"""How like a name is to an exercise's from which on it may be a slip of the pen."""


def _left_to_a_person(points: "Mapping[str, float]") -> str:
    """Where to compare answers in words, which are not checked here."""
    from autograder.exercises import IN_WORDS

    stems = dict.fromkeys(IN_WORDS[name] for name in points if name in IN_WORDS)
    where = f"; model answers: {', '.join(f'course/lessons/{stem}.md' for stem in stems)}" if stems else ""
    told = ", ".join(f"{name} ({worth:g} points)" for name, worth in points.items())
    return f"Not checked, for a person to read: {told}{where}."
