"""A small assignment with real exercises, and submissions of every broken kind."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from autograder.exercises import find
from autograder.weave.course import Course

ROOT = Path(__file__).parents[2]
EXERCISES = ("dot_scores", "why_scale")
ASSIGNMENT, NAME = "01_basic_attention", "basic_attention.ipynb"
RIGHT = {
    "dot_scores": "def dot_scores(query, key):\n    return query @ key.transpose(-2, -1)",
    "why_scale": 'why_scale = "c"',
    "in_words": "Because the dot product grows with $D$.",
}

LESSON = """\
---
jupytext:
  text_representation:
    format_name: myst
---

# Small

```{code-cell} ipython3
from solutions.basic_attention import dot_scores
```

```{code-cell} ipython3
from solutions.basic_attention import why_scale
```

Why? Say it in words, with $D$.

+++ {"attn": {"answer": "in_words", "points": 2}}

Because of the variance.

**Rubric**

- 2 points: names the variance $D$
"""


def small_course(place: Path) -> Course:
    """The assignment in `place`, with this project's solutions and settings."""
    root = place / "course"
    (root / "lessons").mkdir(parents=True)
    (root / "lessons" / "basic_attention.md").write_text(LESSON, encoding="utf-8")
    shutil.copyfile(ROOT / "course" / "nbgrader_config.py", root / "nbgrader_config.py")
    points = {name: find(name).points for name in EXERCISES}
    return Course(root, ROOT / "solutions", {"basic_attention": points})


def answered(released: NotebookNode, **replaced: str) -> NotebookNode:
    """The released notebook with right answers, some replaced."""
    notebook = copy.deepcopy(released)
    for cell in notebook.cells:
        if cell.id in RIGHT:
            cell.source = {**RIGHT, **replaced}[cell.id]
    return notebook


def without(notebook: NotebookNode, *ids: str) -> NotebookNode:
    notebook.cells = [cell for cell in notebook.cells if cell.id not in ids]
    return notebook


def cell_of(notebook: NotebookNode, cell_id: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if cell.id == cell_id)


def _duplicated(released: NotebookNode) -> NotebookNode:
    """Each solution cell copied, the wrong copy first; each grade cell copied too."""
    notebook = answered(released)
    cells = []
    for cell in notebook.cells:
        if cell.id in RIGHT or cell.id.startswith("check-"):
            twin = copy.deepcopy(cell)
            twin.id = f"{cell.id}-twin"
            if cell.id == "dot_scores":
                twin.source = "def dot_scores(query, key):\n    return query"
            cells.append(twin)
        cells.append(cell)
    notebook.cells = cells
    return notebook


def _old_schema(released: NotebookNode) -> NotebookNode:
    notebook = answered(released)
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.schema_version = 1
            cell.metadata.nbgrader.pop("task")
    return notebook


def _cheated(released: NotebookNode) -> NotebookNode:
    """Grade cells rewritten, retagged and worth a hundred points."""
    notebook = answered(released, dot_scores="def dot_scores(query, key):\n    return query")
    for cell in notebook.cells:
        if cell.id.startswith("check-"):
            cell.source = "100.0"
            cell.metadata.nbgrader.points = 100
            cell.metadata.tags = ["skip-execution"]
    return notebook


def _moved(released: NotebookNode) -> NotebookNode:
    """The solution cell below its grade cell, and the setup cell deleted."""
    notebook = without(answered(released), "setup")
    cells = {cell.id: cell for cell in notebook.cells}
    notebook.cells.remove(cells["dot_scores"])
    notebook.cells.append(cells["dot_scores"])
    return notebook


def _own_cell(released: NotebookNode) -> NotebookNode:
    """The solution cell deleted, the function defined in a cell of the student's own."""
    notebook = without(answered(released), "dot_scores")
    notebook.cells.insert(2, new_code_cell(RIGHT["dot_scores"], id="mine"))
    return notebook


def _no_metadata(released: NotebookNode) -> NotebookNode:
    """All of nbgrader's metadata lost, as some editors do."""
    notebook = answered(released)
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


LOOP = "def dot_scores(query, key):\n    while True:\n        pass"
STUBBORN = (
    "import time\nwhile True:\n    try:\n        while True:\n            time.sleep(0.01)\n"
    "    except BaseException:\n        pass"
)

NOTEBOOKS: dict[str, Callable[[NotebookNode], NotebookNode]] = {
    "right": answered,
    "untouched": copy.deepcopy,
    "syntax": lambda released: answered(released, dot_scores="def dot_scores(query, key)\n    return 1"),
    "raising": lambda released: answered(released, dot_scores="raise ValueError('my own trouble')"),
    "loop": lambda released: answered(released, dot_scores="while True:\n    pass"),
    "stubborn": lambda released: answered(released, dot_scores=STUBBORN),
    "killer": lambda released: answered(released, dot_scores="import os\n\nos._exit(3)"),
    "no_solution": lambda released: without(answered(released), "dot_scores"),
    "no_grade_cell": lambda released: without(answered(released), "check-dot_scores"),
    "neither": lambda released: without(answered(released), "dot_scores", "check-dot_scores", "in_words"),
    "duplicated": _duplicated,
    "old_schema": _old_schema,
    "cheated": _cheated,
    "moved": _moved,
    "own_cell": _own_cell,
    "no_metadata": _no_metadata,
}

FILES = {
    "empty": "",
    "broken": '{"cells": [\n  {"cell_type": "code",\n',
    "list": "[1, 2, 3]",
    "cellless": json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"source": []}]}),
}


def of_another_assignment(released: NotebookNode) -> NotebookNode:
    """What a notebook of shared_attention looks like: its grade cells, and none of this assignment's."""
    notebook = copy.deepcopy(released)
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.grade_id = {
                "dot_scores": "grouped_query_attention",
                "check-dot_scores": "check-grouped_query_attention",
            }.get(cell.id, f"other-{cell.id}")
    return notebook


def write_class(place: Path, released: NotebookNode) -> None:
    """One student per kind of submission in `place`/submitted, and five who handed in no such file."""
    submitted = place / "submitted"
    for student, make in NOTEBOOKS.items():
        path = submitted / student / ASSIGNMENT / NAME
        path.parent.mkdir(parents=True)
        path.write_text(nbformat.writes(make(released)), encoding="utf-8")
    for student, text in FILES.items():
        path = submitted / student / ASSIGNMENT / NAME
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    (submitted / "absent").mkdir()
    (submitted / "folder_only" / ASSIGNMENT).mkdir(parents=True)
    renamed = submitted / "renamed" / ASSIGNMENT / "basic_attention (1).ipynb"
    renamed.parent.mkdir(parents=True)
    renamed.write_text(nbformat.writes(answered(released)), encoding="utf-8")
    readme = submitted / "readme_only" / ASSIGNMENT / "readme.txt"
    readme.parent.mkdir(parents=True)
    readme.write_text("I was ill.", encoding="utf-8")
    (readme.parent / "timestamp.txt").write_text("2026-01-01 00:00:00 UTC", encoding="utf-8")
    other = submitted / "other" / ASSIGNMENT / NAME
    other.parent.mkdir(parents=True)
    other.write_text(nbformat.writes(of_another_assignment(released)), encoding="utf-8")
