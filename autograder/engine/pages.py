"""Feedback pages: what a student wrote, what was found, what it earned. One page a submission, without the lesson."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import jinja2
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from nbgrader.utils import is_grade, is_solution

from autograder.engine.ledger import Entry
from autograder.engine.listing import listing, styles
from autograder.engine.mathml import words
from autograder.verdict import MIME_TYPE

__all__ = ["page"]

TEMPLATES = Path(__file__).parent / "templates"
NO_RESPONSE = "No response."
"""nbgrader's own comment on an answer that was left as released."""

BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


@dataclass(frozen=True)
class _Part:
    """One exercise of the page."""

    name: str
    points: str
    mistakes: str
    comment: str
    blocks: list[str]


def page(
    title: str,
    student: str,
    notebook: NotebookNode,
    entry: Entry,
    seed: int,
    notices: list[str],
    *,
    ran: bool = True,
) -> str:
    """The feedback on one submission as a page that loads nothing and runs nothing.

    notices: what befell the submission as a whole. ran: whether it was run; if not, there is nothing of each exercise to
    show but its marks. The student's texts are escaped; of their outputs only text and pictures are shown.
    """
    cells = {_id(cell): cell for cell in notebook.cells if _id(cell)}
    parts = [_part(grade_id, cell, cells, entry) for grade_id, cell in cells.items() if is_grade(cell)]
    added = [
        _code(cell) for cell in notebook.cells if not _id(cell) and cell.cell_type == "code" and cell.outputs
    ]
    return _template().render(
        title=title,
        student=student,
        entry=entry,
        waits=any(mark.waits for mark in entry.marks.values()),
        notices=notices,
        parts=parts,
        told=parts if ran else [part for part in parts if part.comment not in ("", NO_RESPONSE)],
        added=added,
        seed=seed,
        ran=ran,
        styles=styles(),
    )


def _part(grade_id: str, cell: NotebookNode, cells: dict[str, NotebookNode], entry: Entry) -> _Part:
    name = grade_id.removeprefix("check-")
    mark = entry.marks.get(grade_id)
    points = "" if mark is None else f"{'–' if mark.waits else f'{mark.score:g}'} / {mark.max_score:g}"
    if is_solution(cell):
        blocks, mistakes = [words(cell.source, cell.get("attachments", {}))], ""
    else:
        blocks = [_code(cells[name])] if name in cells else ["<p>The solution cell was deleted.</p>"]
        blocks += [_output(output) for output in cell.outputs if output.output_type != "execute_result"]
        reports = [output.data[MIME_TYPE] for output in cell.outputs if MIME_TYPE in output.get("data", {})]
        mistakes = "; ".join(mistake for report in reports for mistake in report.get("mistakes", ()))
    return _Part(name, points, mistakes, mark.comment if mark else "", blocks)


def _code(cell: NotebookNode) -> str:
    return listing(cell.source) + "".join(_output(output) for output in cell.outputs)


def _output(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return f"<pre>{escape(strip_ansi(output.text))}</pre>"
    if output.output_type == "error":
        return f"<pre class='problem'>{escape(strip_ansi(chr(10).join(output.traceback)))}</pre>"
    data: Any = output.get("data", {})
    if MIME_TYPE in data:
        return str(data.get("text/html", ""))  # the grader's own, escaped where it quotes the student
    picture = data.get("image/png", "")
    if picture and BASE64.fullmatch(picture):
        return f'<img alt="a picture" src="data:image/png;base64,{picture}">'
    return f"<pre>{escape(data.get('text/plain', ''))}</pre>"


def _id(cell: NotebookNode) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    # The template escapes by hand: its blocks are HTML that this module has made.
    return jinja2.Environment(loader=loader, autoescape=False, trim_blocks=True).get_template(
        "feedback.html.j2"
    )
