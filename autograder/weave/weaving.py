"""Weave a lesson and its solutions into the teacher's notebook."""

from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.weave import cells
from autograder.weave.errors import WeaveError
from autograder.weave.lesson import LessonCell, imported_names, read_lesson, solution_names
from autograder.weave.rubric import answer_of
from autograder.weave.solutions import Solutions, read_solutions


def weave(lesson: Path, solutions: Path, points: Mapping[str, float]) -> NotebookNode:
    """The notebook with solutions, model answers and grade cells.

    The lesson's first code cell, if it holds imports only, becomes the read-only setup cell, completed by
    what the solutions need; otherwise a setup cell is put before it. `points` maps each exercise of the
    assignment to what it is worth; the lesson must pose each exactly once.
    Raises: WeaveError, naming file and line, where lesson, solutions and exercises do not fit together.
    """
    read = read_lesson(lesson)
    source = read_solutions(solutions)
    posed = _posed(read, lesson, source, points)
    ids = cells.PlainIds()
    woven: list[NotebookNode] = []
    first_code = next(cell for cell in read if cell.kind == "code")
    bound = imported_names(first_code, lesson)
    every = [name for names in posed.values() for name in names]
    setup = source.setup([name for name in every if name in source.definitions], bound or set())
    for cell in read:
        names = posed.get(cell.line)
        answer = answer_of(cell, lesson)
        if cell is first_code and (bound or setup):
            imports = [cell.source] * bool(bound) + [setup] * bool(setup)
            woven.append(cells.setup_cell("\n".join(imports)))
            if bound:
                continue
        if answer:
            woven.append(cells.answer_cell(answer[0], cell.source, answer[1]))
        elif names:
            text, name = _woven(names, source), names[-1]
            woven += [cells.solution_cell(name, text), cells.grade_cell(name, points[name])]
        else:
            woven.append(
                cells.plain_cell(cell.kind, cell.source, ids.next(cell.kind, cell.source), cell.metadata)
            )
    made = cells.notebook(woven)
    _refuse_equal_ids(made, lesson)
    nbformat.validate(made)
    return made


def to_bytes(notebook: NotebookNode) -> bytes:
    """The notebook as a file, its keys sorted by nbformat."""
    text: str = nbformat.writes(notebook)
    return (text.rstrip("\n") + "\n").encode()


def _woven(names: tuple[str, ...], source: Solutions) -> str:
    """The text of a solution cell: what the exercise is made of, and its own name last. Settings stay as they are."""
    before = [source.given(n) if source.is_setting(n) else source.woven(n) for n in names[:-1]]
    return "\n\n\n".join([*before, source.woven(names[-1])])


def _posed(
    read: tuple[LessonCell, ...], lesson: Path, source: Solutions, points: Mapping[str, float]
) -> dict[int, tuple[str, ...]]:
    """The line of each solution cell or free-text answer, and the names that it poses, its own last."""
    posed: dict[int, tuple[str, ...]] = {}
    lines: dict[str, int] = {}
    for cell in read:
        names = solution_names(cell, lesson, source.path.stem)
        answer = answer_of(cell, lesson)
        for name in names:
            if name not in source.definitions:
                raise WeaveError(
                    lesson,
                    cell.line,
                    f"{source.path.name} defines no {name}; write it there, or fix the name",
                )
        if names and names[-1] not in points:
            known = ", ".join(points)
            raise WeaveError(
                lesson,
                cell.line,
                f"{names[-1]} is no exercise of {source.path.stem}; its exercises are {known}",
            )
        for name in names[:-1]:
            if name in points:
                raise WeaveError(lesson, cell.line, f"{name} is an exercise; pose it in a cell of its own")
        for name in names or ((answer[0],) if answer else ()):
            if name in lines:
                raise WeaveError(
                    lesson, cell.line, f"{name} was posed before, at line {lines[name]}; pose it once"
                )
            if names:
                _refuse_unposed_names(name, cell, lesson, source, set(lines))
            lines[name] = cell.line
            posed[cell.line] = (*posed.get(cell.line, ()), name)
    for name in points:
        if name not in lines:
            raise WeaveError(
                lesson,
                None,
                f"the exercise {name} is never posed; "
                f"add a cell `from solutions.{source.path.stem} import {name}`",
            )
    return posed


def _refuse_unposed_names(
    name: str, cell: LessonCell, lesson: Path, source: Solutions, before: set[str]
) -> None:
    """A solution may use only what the student's notebook holds above it."""
    missing = sorted((source.names_used(name) & set(source.definitions)) - before - {name})
    if missing:
        raise WeaveError(
            lesson,
            cell.line,
            f"the solution {name} uses {missing[0]}, which the lesson does not pose above it; "
            f"pose {missing[0]} first, or write {name} without it",
        )


def _refuse_equal_ids(notebook: NotebookNode, lesson: Path) -> None:
    seen: set[str] = set()
    for cell in notebook.cells:
        if cell.id in seen:
            raise WeaveError(lesson, None, f"two cells get the id {cell.id}; change a heading or a name")
        seen.add(cell.id)
