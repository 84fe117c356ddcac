"""`attn hint`: from a nudge to a near-answer."""

import typer

from autograder.cli.errors import UserError, require_torch


def run_hint(name: str | None, step: int) -> int:
    """Print hint number `step` of the exercise `name`; without one, the names that there are."""
    require_torch()
    from autograder.exercises import ASSIGNMENTS, find, in_assignment

    if name is None:
        for stem in ASSIGNMENTS:
            typer.echo(f"{stem}: {', '.join(exercise.name for exercise in in_assignment(stem))}")
        return 0
    try:
        hints = find(name).hints
    except ValueError as error:
        raise UserError(str(error)) from error
    if step > len(hints):
        raise UserError(f"{name} has {len(hints)} hints; --step {step} asks for one more")
    typer.echo(f"{name}, hint {step} of {len(hints)}: {hints[step - 1]}")
    if step < len(hints):
        typer.echo(f"The next one: attn hint {name} --step {step + 1}")
    return 0
