"""What became of one submission: its notebook after the run, and why it did not run where it did not."""

from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from nbgrader.utils import is_grade, is_solution

from autograder.engine.kernel import run
from autograder.engine.rebuild import rebuild
from autograder.engine.settle import refusal
from autograder.engine.submissions import Submission, UnreadableError


@dataclass(frozen=True)
class Outcome:
    """`notebook` is ready to be saved; `problem` says why it did not run, or not to its end."""

    submission: Submission
    notebook: NotebookNode
    problem: str = ""
    ran: bool = True


def run_submission(submission: Submission, released: Path, timeout: int) -> Outcome:
    """Read, rebuild and run one submission. Whatever is in it, an outcome comes back."""
    teacher = nbformat.read(released, as_version=4)
    try:
        notebook = rebuild(teacher, submission.read())
    except UnreadableError as error:
        return Outcome(submission, _unread(teacher, str(error)), str(error), ran=False)
    problem = run(notebook, timeout, released.parent)
    return Outcome(submission, notebook, problem or "")


def _unread(teacher: NotebookNode, reason: str) -> NotebookNode:
    """The released notebook, not run: each grade cell holds the reason, so that pages and scores show it."""
    notebook = rebuild(teacher, None)
    notebook.cells.insert(0, new_markdown_cell(f"**This submission was not run:** {reason}.", id="not-run"))
    for cell in notebook.cells:
        if cell.cell_type == "code" and is_grade(cell) and not is_solution(cell):
            cell.outputs = [refusal(reason)]
    return notebook
