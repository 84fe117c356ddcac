"""`attn situations`: in which ways an exercise is tried, and which it leaves out, with the reason."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from autograder.cli.errors import UserError
from autograder.exercises import ASSIGNMENTS, Exercise, find, in_assignment

__all__ = ["run_situations"]


def run_situations(name: str | None) -> int:
    """Print the factors of one exercise, or a line for each of them. Raises: UserError if there is no such exercise."""
    console = Console(markup=False)
    if name is None:
        _every(console)
        return 0
    try:
        exercise = find(name)
    except ValueError as error:
        raise UserError(str(error)) from error
    space = exercise.situations if isinstance(exercise, Exercise) else None
    if space is None:
        raise UserError(f"{name} has no situations: its cases are written one by one, or it is a question.")
    table = Table(
        "factor",
        "levels, the ordinary one first",
        title=f"{name}: {space.places} situations, {space.pairs} pairs",
    )
    for factor, levels in space.levels.items():
        table.add_row(factor, ", ".join(levels))
    console.print(table)
    for left, reason in space.left_out.items():
        console.print(f"left out: {left}: {reason}", soft_wrap=True)
    return 0


def _every(console: Console) -> None:
    table = Table("exercise", "factors", "levels", "situations", "pairs", "left out")
    total = [0, 0]
    for stem in ASSIGNMENTS:
        for one in in_assignment(stem):
            space = one.situations if isinstance(one, Exercise) else None
            if space is not None:
                levels = sum(map(len, space.levels.values()))
                figures = (len(space.levels), levels, space.places, space.pairs, len(space.left_out))
                table.add_row(one.name, *map(str, figures))
                total = [total[0] + space.places, total[1] + space.pairs]
    table.add_section()
    table.add_row("all", "", "", *map(str, total), "")
    console.print(table)
