"""Classes of any size to measure with: made-up students, right and wrong, none of whom waits for a clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autograder.cli.demo.handing_in import hand_in_class
from autograder.cli.demo.students import CLASS
from autograder.engine.store import write_whole
from autograder.weave import Course, find_course, generate

__all__ = ["MadeClass", "make"]

TIMELESS = tuple(student for student in CLASS if student.cut == 1.0 and student.work != "kofi")
"""Without the endless loop, which measures a time limit, and the damaged file, at which stock nbgrader stops."""

STOCK_SETTINGS = """\
c = get_config()
c.CourseDirectory.course_id = "attention"
c.CourseDirectory.root = {root!r}
"""


@dataclass(frozen=True)
class MadeClass:
    """A class in a folder: source/, release/, gradebook.db and submitted/ of one assignment."""

    course: Course
    place: Path
    stem: str

    @property
    def assignment(self) -> str:
        return self.course.assignment_id(self.stem)

    @property
    def notebooks(self) -> list[Path]:
        """What was handed in."""
        return sorted((self.place / "submitted").glob(f"*/{self.assignment}/{self.stem}.ipynb"))


def make(place: Path, stem: str, students: int, *, settings: str | None) -> MadeClass:
    """A class of `students` in `place`.

    settings: "stock" writes nbgrader_config.py with nothing but names in it, "course" copies the course's own, None
    leaves it out, as for `attn grade`.
    """
    course = find_course()
    generate(course, place, [stem], f"sqlite:///{place / 'gradebook.db'}")
    made_up = ((f"s{number:03d}", TIMELESS[number % len(TIMELESS)]) for number in range(students))
    hand_in_class(course, place, stem, made_up)
    if settings == "stock":
        write_whole(place / "nbgrader_config.py", STOCK_SETTINGS.format(root=str(place)))
    elif settings == "course":
        text = (course.root / "nbgrader_config.py").read_text(encoding="utf-8")
        write_whole(place / "nbgrader_config.py", text)
    return MadeClass(course, place, stem)
