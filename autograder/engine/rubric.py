"""Show the person who grades an answer in words what to grade it by."""

import copy
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution

from autograder.engine.places import source_notebook

RUBRIC = "rubric-"
"""What the ids of their cells begin with. A student's own cells have ids from `rebuild`."""

TITLE = "**For the person who grades: a model answer and its rubric**"


class ShowRubric(NbGraderPreprocessor):  # type: ignore[misc]
    """Put the model answer and rubric behind each free-text answer of the autograded copy.

    They are read from the teacher's notebook; the release and the submission never hold them.
    """

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Insert a plain Markdown cell behind each free-text answer."""
        path = source_notebook(self, resources)
        if path is None:
            self.log.warning("No source notebook was found: the rubrics are not shown")
            return nb, resources
        return with_rubrics(nb, nbformat.read(path, as_version=4)), resources


class HideRubric(NbGraderPreprocessor):  # type: ignore[misc]
    """Take the model answers and rubrics out of the pages that `nbgrader generate_feedback` makes for students."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Leave out the cells that ShowRubric and `attn grade` put in: their ids are no student's."""
        nb.cells = [cell for cell in nb.cells if not str(cell.get("id", "")).startswith(RUBRIC)]
        return nb, resources


def with_rubrics(notebook: NotebookNode, source: NotebookNode) -> NotebookNode:
    """A copy of `notebook` with the rubrics of the teacher's `source` behind the free-text answers."""
    rubrics = {cell.metadata.nbgrader.grade_id: cell.source for cell in source.cells if _is_free_text(cell)}
    shown = copy.copy(notebook)
    shown.cells = []
    for cell in notebook.cells:
        shown.cells.append(cell)
        grade_id = cell.metadata.nbgrader.grade_id if _is_free_text(cell) else ""
        if grade_id in rubrics:
            shown.cells.append(new_markdown_cell(f"{TITLE}\n\n{rubrics[grade_id]}", id=f"{RUBRIC}{grade_id}"))
    return shown


def _is_free_text(cell: NotebookNode) -> bool:
    return bool(cell.cell_type == "markdown" and is_grade(cell) and is_solution(cell))
