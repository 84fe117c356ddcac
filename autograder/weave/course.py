"""Where a course keeps its lessons, solutions and notebooks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autograder.weave.errors import WeaveError

PACKAGE_PARENT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Course:
    """A course folder, its solutions, and its assignments in order, each with the points of its exercises."""

    root: Path
    solutions: Path
    assignments: Mapping[str, Mapping[str, float]]

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems of the assignments, in course order."""
        return tuple(self.assignments)

    def assignment_id(self, stem: str) -> str:
        """nbgrader's name of an assignment: its place in the course and its stem."""
        return f"{self.stems.index(stem) + 1:02d}_{stem}"

    def lesson(self, stem: str) -> Path:
        """The lesson, written by hand."""
        return self.root / "lessons" / f"{stem}.md"

    def solution(self, stem: str) -> Path:
        """The reference solutions, written by hand."""
        return self.solutions / f"{stem}.py"

    def relative(self, stem: str) -> Path:
        """Where the assignment's notebook lies inside `source`, `release` or a submission."""
        return Path(self.assignment_id(stem), f"{stem}.ipynb")

    def release(self, stem: str) -> Path:
        """The student's notebook, generated and committed."""
        return self.root / "release" / self.relative(stem)


def find_course(root: Path | None = None) -> Course:
    """The course at `root`, or the one that this package came with, or the one around the current folder.

    Raises: WeaveError if there is no folder `course/lessons` in any of these places.
    """
    from autograder.exercises import ASSIGNMENTS, in_assignment

    here = Path.cwd()
    places = (
        [root.resolve()] if root else [parent / "course" for parent in (PACKAGE_PARENT, here, *here.parents)]
    )
    for place in places:
        if (place / "lessons").is_dir():
            assignments = {
                stem: {exercise.name: exercise.points for exercise in in_assignment(stem)}
                for stem in ASSIGNMENTS
            }
            return Course(place, _solutions(place), assignments)
    raise WeaveError(
        places[0],
        None,
        "no course is here: a course holds a folder lessons/; run this inside a clone of the project",
    )


def _solutions(root: Path) -> Path:
    """The solutions beside the course, or else those beside this package."""
    beside = root.parent / "solutions"
    return beside if beside.is_dir() else PACKAGE_PARENT / "solutions"
