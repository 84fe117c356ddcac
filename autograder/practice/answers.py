"""Collect the answers of a notebook, a Python file or a module, by running it here and now.

This is for one's own work: no kernel, no sandbox. Grading other people's code is the engine's business.
"""

import contextlib
import importlib
import io
import json
import linecache
import os
import re
import runpy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

LINE_MAGIC = re.compile(r"^\s*[%!?]|^.*\?\s*$")
CELL_MAGIC = re.compile(r"^\s*%%(\w+)")
PYTHON_CELL_MAGICS = {"time", "timeit", "capture", "prun"}


class AnswersError(Exception):
    """The file or module cannot be run; the text names it and the way out."""

    for_the_user = True


@dataclass(frozen=True)
class Answers:
    """What running it defined, the cells that failed, the exercises that its grade cells ask for, and the points of the
    questions that are answered in words."""

    names: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    posed: tuple[str, ...] = ()
    in_words: Mapping[str, float] = field(default_factory=dict)


def answers(what: str) -> Answers:
    """Run a notebook, a .py file or an importable module, and return what it defines.

    Raises: AnswersError if there is no such file or module, or it is broken.
    """
    path = Path(what)
    if path.suffix == ".ipynb":
        return _from_notebook(path)
    if path.suffix == ".py":
        return _from_file(path)
    if path.exists():
        raise AnswersError(f"{what}: expected a notebook (.ipynb), a Python file (.py) or a module's name")
    return _from_module(what)


@contextlib.contextmanager
def _without_windows() -> Iterator[None]:
    """A block in which pictures open no window: they are for the notebook."""
    before = os.environ.get("MPLBACKEND")
    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        yield
    finally:
        if before is None:
            del os.environ["MPLBACKEND"]


def _from_notebook(path: Path) -> Answers:
    cells = _read_cells(path)
    names: dict[str, Any] = {"__name__": "__main__", "display": lambda *shown, **options: None}
    problems: list[str] = []
    with (
        _without_windows(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        _inside(path.parent),
    ):
        for number, cell in enumerate(cells, start=1):
            if cell.get("cell_type") != "code" or _is_grade_cell(cell):
                continue
            try:
                exec(_compiled(_plain_python(_source(cell)), f"<{path.name}, cell {number}>"), names)
            except (Exception, SystemExit) as error:  # noqa: BLE001  (as in a notebook, the next cell runs)
                problems.append(f"cell {number}: {_told(error)}")
    posed = tuple(_grade_id(cell).removeprefix("check-") for cell in cells if _is_grade_cell(cell))
    in_words = {_grade_id(cell): _points(cell) for cell in cells if _is_in_words(cell)}
    return Answers(names, tuple(problems), posed, in_words)


def _from_file(path: Path) -> Answers:
    if not path.is_file():
        raise AnswersError(f"{path}: there is no such file")
    try:
        with _inside(path.parent):
            return Answers(runpy.run_path(str(path.resolve())))
    except (Exception, SystemExit) as error:
        raise AnswersError(f"{path}: could not be run: {_told(error)}") from error


def _from_module(name: str) -> Answers:
    try:
        with _inside(Path()):
            return Answers(vars(importlib.import_module(name)))
    except (Exception, SystemExit) as error:
        raise AnswersError(
            f"{name}: no such file, and it cannot be imported as a module: {_told(error)}"
        ) from error


def _told(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}"


LONGEST = 300


def _read_cells(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise AnswersError(f"{path}: there is no such notebook")
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at").removesuffix(" starting")  # "Unterminated string starting at"
        raise AnswersError(
            f"{path}: broken JSON at line {error.lineno}: {reason}; save it again in Jupyter"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise AnswersError(f"{path}: cannot be read: {error}") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise AnswersError(f"{path}: is not a notebook of format 4; expected a list of cells")
    return cells


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def _is_grade_cell(cell: dict[str, Any]) -> bool:
    nbgrader = cell.get("metadata", {}).get("nbgrader", {})
    return bool(nbgrader.get("grade") and not nbgrader.get("solution"))


def _is_in_words(cell: dict[str, Any]) -> bool:
    nbgrader = cell.get("metadata", {}).get("nbgrader", {})
    return bool(nbgrader.get("grade") and nbgrader.get("solution"))


def _points(cell: dict[str, Any]) -> float:
    points = cell["metadata"]["nbgrader"].get("points")
    return float(points) if isinstance(points, (int, float)) else 0.0


def _grade_id(cell: dict[str, Any]) -> str:
    return str(cell["metadata"]["nbgrader"].get("grade_id", ""))


def _plain_python(source: str) -> str:
    """The cell without IPython's magic lines; a cell in another language becomes an empty one."""
    lines = source.split("\n")
    magic = CELL_MAGIC.match(lines[0])
    if magic and magic.group(1) not in PYTHON_CELL_MAGICS:
        return ""
    if magic:
        lines[0] = ""
    try:
        compile("\n".join(lines), "<cell>", "exec")
    except SyntaxError:
        return "\n".join(_blank_magic(line) for line in lines)
    return "\n".join(lines)


def _compiled(source: str, name: str) -> CodeType:
    """The cell's code; its lines are put where tracebacks and `inspect` look for them."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return compile(source, name, "exec")


def _blank_magic(line: str) -> str:
    if not LINE_MAGIC.match(line):
        return line
    return line[: len(line) - len(line.lstrip())] + "pass"


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Imports find what lies in `folder`, as they do in a notebook."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
