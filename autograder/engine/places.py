"""Where a step that nbgrader runs finds the notebooks of its course."""

from pathlib import Path
from typing import Any

from nbgrader.coursedir import CourseDirectory


def course_directory(step: Any) -> CourseDirectory | None:
    """The course directory of the converter that runs `step`: the step's parent's parent."""
    while step is not None:
        found = getattr(step, "coursedir", None)
        if isinstance(found, CourseDirectory):
            return found
        step = getattr(step, "parent", None)
    return None


def released_notebook(step: Any, resources: Any) -> Path | None:
    """The notebook as the students got it."""
    return _notebook(step, resources, "release_directory")


def source_notebook(step: Any, resources: Any) -> Path | None:
    """The teacher's notebook, with solutions and rubrics."""
    return _notebook(step, resources, "source_directory")


def submitted_notebook(step: Any, resources: Any) -> Path | None:
    """The notebook as the student handed it in."""
    return _notebook(step, resources, "submitted_directory", resources["nbgrader"]["student"])


def _notebook(step: Any, resources: Any, room: str, student: str = ".") -> Path | None:
    directory = course_directory(step)
    if directory is None:
        return None
    names = resources["nbgrader"]
    path = Path(
        directory.format_path(getattr(directory, room), student, names["assignment"]),
        f"{names['notebook']}.ipynb",
    )
    return path if path.is_file() else None
