"""Run a lesson from top to bottom, its solutions in place: `python -m tests.lessons.run <stem>`. Ends with 1 at an error.

The cells are those of the teacher's notebook without the grade cells, whose checks are tested elsewhere. IPython's shell
runs them without a kernel; what a slider's function raises counts, too, although its cell goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from IPython.core.interactiveshell import InteractiveShell


class Shell(InteractiveShell):
    """An IPython shell that remembers that something was raised."""

    raised = False

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        """Show it as usual. (Sliders end here, too.)"""
        self.raised = True
        super().showtraceback(*args, **kwargs)

    showsyntaxerror = showtraceback  # (a cell that is no Python)


def cells(stem: str) -> list[str]:
    """The code of a lesson: what is given, and the solutions."""
    from autograder.weave import find_course
    from autograder.weave.weaving import weave

    course = find_course()
    notebook = weave(course.lesson(stem), course.solution(stem), course.assignments[stem])
    return [cell.source for cell in notebook.cells if cell.cell_type == "code" and not _grades(cell.metadata)]


def _grades(metadata: Any) -> bool:
    return bool(metadata.get("nbgrader", {}).get("grade"))


def run(sources: Iterable[str]) -> str | None:
    """Run cells in order. The source of the first that fails, or None."""
    shell = Shell.instance()
    for source in sources:
        shell.run_cell(source)
        if shell.raised:
            return source
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close("all")  # (a notebook closes what it has shown)
    return None


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"
    failed = run(cells(sys.argv[1]))
    sys.exit(f"This cell of {sys.argv[1]} failed:\n{failed}" if failed else 0)
