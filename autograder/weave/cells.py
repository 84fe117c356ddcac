"""The cells of a woven notebook, with all the metadata that nbgrader asks for.

nbgrader refuses or silently misgrades a cell that lacks one of the keys below, so each is always written.
Cell ids derive from grade ids and headings: a rebuild yields the same bytes, and a changed lesson a small
diff.
"""

import re
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

SETUP = "setup"
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


def check_id(name: str) -> str:
    """The grade id of the grade cell of the exercise `name`."""
    return f"check-{name}"


def solution_cell(name: str, source: str) -> NotebookNode:
    """The cell in which a student writes `name`."""
    return _cell("code", source, name, _nbgrader(name, solution=True))


def grade_cell(name: str, points: float) -> NotebookNode:
    """The locked cell that grades `name`; it ends in the float that nbgrader takes as the score.

    It imports what its report tells the student to run.
    """
    source = f'from autograder import check, grade, inputs\n\ngrade("{name}", {name}, seed=None)'
    return _cell(
        "code", source, check_id(name), _nbgrader(check_id(name), grade=True, locked=True, points=points)
    )


def answer_cell(name: str, source: str, points: float) -> NotebookNode:
    """The cell for an answer in words, graded by a person; `source` is the model answer and its rubric."""
    return _cell("markdown", source, name, _nbgrader(name, grade=True, solution=True, points=points))


def setup_cell(source: str) -> NotebookNode:
    """The read-only cell with the imports that the solutions need."""
    return _cell("code", source, SETUP, _nbgrader(SETUP, locked=True))


def plain_cell(kind: str, source: str, cell_id: str, metadata: dict[str, Any]) -> NotebookNode:
    """A cell of prose or code that goes to the student as it is."""
    cell: NotebookNode = new_code_cell(source) if kind == "code" else new_markdown_cell(source)
    cell.id = cell_id
    cell.metadata.update(metadata)
    return cell


def notebook(cells: list[NotebookNode]) -> NotebookNode:
    """A notebook of `cells` whose bytes depend on nothing else."""
    made: NotebookNode = new_notebook(cells=cells, metadata=NOTEBOOK_METADATA)
    made.nbformat_minor = 5
    return made


class PlainIds:
    """Ids for cells without a grade id: the last heading's slug and a count within it."""

    def __init__(self) -> None:
        self._slug = "start"
        self._counts: dict[str, int] = {}

    def next(self, kind: str, source: str) -> str:
        """The id of the next cell."""
        heading = re.search(r"^#{1,6}\s+(.+)$", source, re.MULTILINE) if kind == "markdown" else None
        if heading:
            self._slug = re.sub(r"[^a-z0-9]+", "-", heading.group(1).lower())[:40].strip("-") or "section"
        count = self._counts[self._slug] = self._counts.get(self._slug, 0) + 1
        return f"{self._slug}-{count}"


def _cell(kind: str, source: str, cell_id: str, nbgrader: dict[str, Any]) -> NotebookNode:
    return plain_cell(kind, source, cell_id, {"nbgrader": nbgrader})


def _nbgrader(
    grade_id: str,
    grade: bool = False,
    solution: bool = False,
    locked: bool = False,
    points: float | None = None,
) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "grade": grade,
        "grade_id": grade_id,
        "locked": locked,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return keys if points is None else keys | {"points": points}
