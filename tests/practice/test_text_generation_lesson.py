"""The lesson on text generation as a notebook: no training while it is graded."""

from __future__ import annotations

import nbformat

from autograder.engine.demonstrations import SKIP
from autograder.engine.rebuild import rebuild
from autograder.weave.course import find_course
from autograder.weave.weaving import weave

STEM = "text_generation"


def test_grading_a_solved_notebook_trains_no_model() -> None:
    """Every demonstration is passed over: no answer uses a name that one binds."""
    course = find_course()
    released = nbformat.read(course.release(STEM), 4)
    solved = weave(course.lesson(STEM), course.solution(STEM), course.assignments[STEM])
    code = [cell for cell in rebuild(released, solved).cells if cell.cell_type == "code"]
    idle = [cell for cell in code if SKIP in cell.metadata.get("tags", ())]
    run = [cell for cell in code if cell not in idle and "nbgrader" not in cell.metadata]
    assert len(idle) > 20
    assert run == []
