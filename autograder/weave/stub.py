"""What a student finds in place of a solution."""

import ast
from textwrap import dedent

from nbformat import NotebookNode
from nbgrader.preprocessors import ClearSolutions
from nbgrader.utils import is_solution


class ClearAnswers(ClearSolutions):  # type: ignore[misc]
    """nbgrader's ClearSolutions, but a question whose answer is one value keeps its name.

    `name = "c"` becomes `name = ...  # your answer`: Ellipsis means "not answered", and the cell runs.
    Functions and classes get nbgrader's own stub.
    """

    def _replace_solution_region(self, cell: NotebookNode, language: str) -> bool:
        name = self._answer_name(cell.source) if cell.cell_type == "code" and is_solution(cell) else None
        if name is None:
            return bool(super()._replace_solution_region(cell, language))
        cell.source = f"{name} = ...  # your answer"
        return True

    def _answer_name(self, source: str) -> str | None:
        """The name that the cell assigns, where it is nothing but one assignment between the markers."""
        lines = dedent(source).strip().split("\n")
        if self.begin_solution_delimeter not in lines[0] or self.end_solution_delimeter not in lines[-1]:
            return None
        body = ast.parse(source).body
        if len(body) != 1:
            return None
        if isinstance(body[0], ast.Assign) and isinstance(body[0].targets[0], ast.Name):
            return body[0].targets[0].id
        if isinstance(body[0], ast.AnnAssign) and isinstance(body[0].target, ast.Name):
            return body[0].target.id
        return None
