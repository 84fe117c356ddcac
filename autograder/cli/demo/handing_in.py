"""Write the notebooks that the made-up students hand in."""

import ast
import copy
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.utils import is_grade, is_solution

from autograder.cli.demo.students import Student
from autograder.weave import Course

WORK = Path(__file__).parent / "work"


def hand_in(student: Student, source: NotebookNode, released: NotebookNode, path: Path) -> None:
    """Write the student's notebook to `path`."""
    text = nbformat.writes(filled(student, source, released))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text[: int(len(text) * student.cut)], encoding="utf-8")


def hand_in_class(course: Course, place: Path, stem: str, students: Iterable[tuple[str, Student]]) -> None:
    """Write the notebooks of an assignment, by the students' names, below `place`, which holds source/ and release/."""
    source, released = (
        nbformat.read(place / room / course.relative(stem), as_version=4) for room in ("source", "release")
    )
    for name, student in students:
        hand_in(student, source, released, place / "submitted" / name / course.relative(stem))


def filled(student: Student, source: NotebookNode, released: NotebookNode) -> NotebookNode:
    """The released notebook with the student's solutions in it."""
    right = {
        cell.metadata.nbgrader.grade_id: _unmarked(cell.source) for cell in source.cells if is_solution(cell)
    }
    own = {**definitions(student.work), **student.replaced}
    notebook = copy.deepcopy(released)
    notebook.cells = [
        cell for cell in notebook.cells if not (is_solution(cell) and _id(cell) in student.deleted)
    ]
    for cell in notebook.cells:
        if not is_solution(cell):
            continue
        if is_grade(cell):  # an answer in words
            cell.source = student.answer or cell.source
        elif _id(cell) in own:
            cell.source = own[_id(cell)]
        elif student.base == "right":
            old, new = student.edited.get(_id(cell), ("", ""))
            cell.source = right[_id(cell)].replace(old, new) if old else right[_id(cell)]
    return notebook


def definitions(work: str) -> dict[str, str]:
    """The top-level functions, classes and constants of a file in work/, by name, as text."""
    if not work:
        return {}
    text = (WORK / f"{work}.py").read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(text).body:
        segment = ast.get_source_segment(text, node) or ""
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = segment
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = segment
    return found


def _unmarked(source: str) -> str:
    return "\n".join(
        line for line in source.split("\n") if not line.strip().startswith(("### BEGIN", "### END"))
    )


def _id(cell: NotebookNode) -> str:
    return str(cell.metadata.nbgrader.grade_id)
