"""The notebook that is run is the teacher's; from the submission it takes source text and nothing else.

Grade cells come back as they were released, wherever the student moved, edited, copied or deleted them. No
metadata, tag, output or old schema of the student's survives, so none of them can stop or mislead nbgrader.
"""

import copy
from collections import defaultdict
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.converters import NbGraderException
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution

from autograder.engine.demonstrations import skip_idle
from autograder.engine.mathml import BASE64, PICTURES
from autograder.engine.places import released_notebook, submitted_notebook
from autograder.engine.plain import encodable
from autograder.engine.submissions import leads_out


def rebuild(released: NotebookNode, submitted: NotebookNode | None) -> NotebookNode:
    """The released notebook with the student's solutions and added cells in place.

    - A locked cell is the released one. A solution cell holds the student's text; it is left out where the
    student
      deleted it, since the student may define the same name in a cell of their own.
    - A copied cell (a grade id that occurs twice) runs like any added cell; the last one is the solution
    cell.
    - A deleted free-text answer comes back as released: unanswered, and visible to the person who grades.
    - The student's own cells stay behind the released cell that stood before them.
    - Demonstrations that no answer rests on are tagged not to be run.
    """
    known = [given_id(cell) for cell in released.cells if given_id(cell)]
    answers, added = _sort(submitted.cells if submitted else [], set(known))
    rebuilt = copy.deepcopy(released)
    rebuilt.cells = [_plain(cell) for cell in added[None]]
    for cell in released.cells:
        grade_id = given_id(cell)
        if not grade_id:
            continue
        kept = copy.deepcopy(cell)
        if is_solution(cell) and grade_id in answers:
            kept.source = encodable(answers[grade_id].source)
            _keep_attachments(answers[grade_id], kept)
        if not is_solution(cell) or is_grade(cell) or grade_id in answers:
            rebuilt.cells.append(kept)
        rebuilt.cells += [_plain(cell) for cell in added[grade_id]]
    _number(rebuilt)
    skip_idle(rebuilt.cells, [cell.source for cell in released.cells if not given_id(cell)])
    nbformat.validate(rebuilt)
    return rebuilt


class Rebuild(NbGraderPreprocessor):  # type: ignore[misc]
    """`rebuild` as the first sanitizing step of `nbgrader autograde`. Without a release there is no grading."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Replace the submission by the rebuilt notebook, where there is a release to rebuild from."""
        path, own = released_notebook(self, resources), submitted_notebook(self, resources)
        if own is not None and leads_out(own):
            raise NbGraderException(f"{own} is a link to something outside of what was handed in")
        if path is None:
            # As it is, it could hold grade cells of its own, and those run where the formulas and the gradebook are.
            raise NbGraderException(
                f"no released notebook of {resources['nbgrader']['assignment']} was found; "
                "run `nbgrader generate_assignment` first"
            )
        return rebuild(nbformat.read(path, as_version=4), nb), resources


def _sort(
    cells: list[NotebookNode], known: set[str]
) -> tuple[dict[str, NotebookNode], dict[str | None, list[NotebookNode]]]:
    """The last cell of each known grade id, and all other cells by the known cell before them."""
    last = {given_id(cell): index for index, cell in enumerate(cells)}
    answers: dict[str, NotebookNode] = {}
    added: dict[str | None, list[NotebookNode]] = defaultdict(list)
    before: str | None = None
    for index, cell in enumerate(cells):
        grade_id = given_id(cell)
        if grade_id in known and last[grade_id] == index:
            answers[grade_id] = cell
            before = grade_id
        elif grade_id not in known or is_solution(cell):
            added[before].append(cell)
    return answers, added


def given_id(cell: NotebookNode) -> str:
    """The grade id of a cell, whatever a student has made of its metadata; "" if it has none."""
    nbgrader = cell.metadata.get("nbgrader")
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return grade_id if isinstance(grade_id, str) else ""


def _plain(cell: NotebookNode) -> NotebookNode:
    """A cell of the student's own: kind and text."""
    if cell.cell_type == "code":
        code: NotebookNode = new_code_cell(encodable(cell.source))
        return code
    made: NotebookNode = new_markdown_cell(encodable(cell.source))
    _keep_attachments(cell, made)
    return made


def _keep_attachments(given: NotebookNode, kept: NotebookNode) -> None:
    """Pictures pasted into an answer belong to the answer."""
    if kept.cell_type != "markdown" or not isinstance(given.get("attachments"), dict):
        return
    pictures = {
        encodable(name): {
            kind: data
            for kind, data in bundle.items()
            if kind in PICTURES and isinstance(data, str) and BASE64.fullmatch(data)
        }
        for name, bundle in given.attachments.items()
        if isinstance(bundle, dict)
    }
    if found := {name: bundle for name, bundle in pictures.items() if bundle}:
        kept.attachments = NotebookNode(found)


def _number(notebook: NotebookNode) -> None:
    """Give added cells ids that no other cell has."""
    for index, cell in enumerate(notebook.cells):
        if not given_id(cell):
            cell.id = f"added-{index}"
