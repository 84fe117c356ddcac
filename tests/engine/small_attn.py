"""`attn`, but for a small course with two quick exercises: python -m tests.engine.small_attn COURSE grade DIR ..."""

from __future__ import annotations

import sys
from pathlib import Path

import autograder.weave
from autograder.cli import main
from autograder.exercises import find
from autograder.weave import Course
from tests.nbgrader.small_class import EXERCISES, ROOT


def patch(root: Path) -> None:
    """From here on the course is the small one in `root`."""
    course = Course(
        root, ROOT / "solutions", {"basic_attention": {name: find(name).points for name in EXERCISES}}
    )
    autograder.weave.find_course = lambda given=None: course


if __name__ == "__main__":
    patch(Path(sys.argv[1]))
    main(sys.argv[2:])
