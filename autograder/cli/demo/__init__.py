"""`attn demo`: a made-up class, graded before your eyes."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from autograder.cli.demo.students import CLASS, Student
from autograder.cli.errors import UserError, require_torch

if TYPE_CHECKING:
    from autograder.cli.grade import Options

__all__ = ["CLASS", "Student", "make_class", "run_demo"]


def run_demo(folder: Path | None, keep: bool, options: "Options") -> int:
    """Make the class in `folder` (a temporary one by default), grade it, and print the table."""
    require_torch()
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder}: is not an empty folder; name a new one, so that nothing of yours is mixed with it"
        )
    from autograder.cli.grade import run_grade

    place = folder or Path(tempfile.mkdtemp(prefix="attn-demo-"))
    try:
        make_class(place)
        typer.echo(f"{_class()}: {place / 'submitted'}")
        for student in CLASS:
            typer.echo(f"  {student.name:6} {student.about}")
        return run_grade(place, options, None)
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def _class() -> str:
    """Who hands in what, in a line."""
    from autograder.exercises import ASSIGNMENTS

    handing_in = {stem: sum(student.hands_in(stem) for student in CLASS) for stem in ASSIGNMENTS}
    few = "".join(
        f"; {count} of them hand in {stem}" for stem, count in handing_in.items() if count < len(CLASS)
    )
    return f"A class of {len(CLASS)} made-up students, {sum(handing_in.values())} notebooks{few}"


def make_class(place: Path) -> None:
    """Write the submissions of the made-up class into `place`/submitted."""
    from autograder.cli.demo.handing_in import hand_in_class
    from autograder.weave import find_course, generate

    course = find_course()
    generate(course, place, course.stems, place / "gradebook.db")
    for stem in course.stems:
        hand_in_class(course, place, stem, [(one.name, one) for one in CLASS if one.hands_in(stem)])
