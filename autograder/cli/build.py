"""`attn build`: from lessons and solutions to notebooks."""

from pathlib import Path

import typer

from autograder.cli.errors import require_torch


def run_build(root: Path | None, check: bool) -> int:
    """Rebuild the course's notebooks, or with `check` only compare: 1 if any differs from a rebuild."""
    require_torch()
    from autograder.weave import build, differences, find_course

    course = find_course(root)
    changed = differences(course) if check else build(course)
    names = [str(path.relative_to(course.root.parent)) for path in changed]
    if not names:
        typer.echo(f"{course.root / 'release'}: up to date ({len(course.stems)} assignment(s))")
    for name in names:
        typer.echo(f"{name}: {'differs from a rebuild' if check else 'rebuilt'}")
    if check and names:
        typer.echo("Run `attn build` and commit what it writes.")
    return 1 if check and names else 0
