"""Leave every grade cell with one finite number or one error.

nbgrader gives full marks to a grade cell that shows no number (nothing at all, an object, nan, a negative
value), zero to one whose student code wrote a mere warning to stderr, and stops at a number above the
maximum. After this step none of these is left for it to see.
"""

import math
import re
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution

NOT_GRADED = "NotGraded"


def settle(cell: NotebookNode) -> None:
    """Settle the outputs of one grade cell, in place."""
    points = float(cell.metadata.nbgrader["points"])
    errors = [output for output in cell.outputs if output.output_type == "error"]
    results = [output for output in cell.outputs if output.output_type == "execute_result"]
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            output.name = "stdout"
    if errors:
        cell.outputs = [output for output in cell.outputs if output.output_type != "execute_result"]
        return
    number = _number(results[0]) if len(results) == 1 else None
    if number is None or not 0 <= number <= points:
        shown = results[0].data.get("text/plain", "")[:80] if results else "nothing"
        message = f"the grade cell ended in {shown}; expected a number from 0 to {points:g}"
        cell.outputs = [output for output in cell.outputs if output.output_type != "execute_result"]
        cell.outputs.append(refusal(message))


def settle_all(notebook: NotebookNode) -> None:
    """Settle all grade cells of a notebook that has run, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and is_grade(cell) and not is_solution(cell):
            settle(cell)


def refusal(message: str) -> NotebookNode:
    """An error output that scores zero and says why."""
    traceback = [f"{NOT_GRADED}: {message}"]
    output: NotebookNode = new_output("error", ename=NOT_GRADED, evalue=message, traceback=traceback)
    return output


def _number(output: NotebookNode) -> float | None:
    """The plain finite number that an output shows, or None."""
    text = output.data.get("text/plain", "")
    if not re.fullmatch(r"\d+(\.\d+)?(e[+-]?\d+)?", text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


class Settle(NbGraderPreprocessor):  # type: ignore[misc]
    """`settle` as the step between running the notebook and saving its grades."""

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        """Settle grade cells; leave all others."""
        if cell.cell_type == "code" and is_grade(cell) and not is_solution(cell):
            settle(cell)
        return cell, resources
