"""One submission on its way: read, rebuilt, run; and why it did not run where it did not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from nbgrader.utils import is_grade, is_solution

from autograder.engine.rebuild import given_id, rebuild
from autograder.engine.settle import refusal
from autograder.engine.submissions import Submission, UnreadableError
from autograder.exercises import ASSIGNMENTS, in_assignment

__all__ = ["Outcome", "prepare"]


@dataclass(frozen=True)
class Outcome:
    """`notebook` holds outputs once it has run; `problem` says why it did not run, or not to its end.

    seed is the one that its checks drew from; failure, what broke in the grader: then nothing is entered for it.
    """

    submission: Submission
    notebook: NotebookNode
    problem: str = ""
    ran: bool = True
    seed: int = 0
    failure: str = ""


def prepare(submission: Submission, teacher: NotebookNode) -> Outcome:
    """Read and rebuild one submission; one that cannot be read is final already, with the reason in its grade cells."""
    try:
        notebook = submission.read()
        if problem := _of_another(notebook, teacher, submission.path):
            raise UnreadableError(problem)
        return Outcome(submission, rebuild(teacher, notebook))
    except UnreadableError as error:
        return Outcome(submission, _unread(teacher, str(error)), str(error), ran=False)


def _of_another(notebook: NotebookNode, teacher: NotebookNode, path: Path) -> str:
    """Says that this is another assignment's notebook, if it holds that one's grade cells and none of the teacher's."""
    ids = {given_id(cell) for cell in notebook.cells}
    if ids & {given_id(cell) for cell in teacher.cells if is_grade(cell)}:
        return ""
    for stem in ASSIGNMENTS:
        if any(f"check-{exercise.name}" in ids for exercise in in_assignment(stem)):
            return f"{path.name} is the notebook of {stem}, renamed; expected the one of {path.parent.name}"
    return ""


def _unread(teacher: NotebookNode, reason: str) -> NotebookNode:
    """The released notebook, not run: each grade cell holds the reason, so that pages and scores show it."""
    notebook = rebuild(teacher, None)
    notebook.cells.insert(0, new_markdown_cell(f"**This submission was not run:** {reason}.", id="not-run"))
    for cell in notebook.cells:
        if cell.cell_type == "code" and is_grade(cell) and not is_solution(cell):
            cell.outputs = [refusal(reason)]
    return notebook
