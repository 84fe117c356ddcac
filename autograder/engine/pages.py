"""Feedback pages: what a student wrote, what was found, what it earned. One page a submission, without the lesson."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from html import escape
from pathlib import Path
from typing import Any

import jinja2
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from nbgrader.utils import is_grade, is_solution
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from autograder.engine.ledger import Entry
from autograder.engine.mathml import MathMLRenderer
from autograder.grading import MIME_TYPE

__all__ = ["page"]

TEMPLATES = Path(__file__).parent / "templates"
LONGEST_CODE, LONGEST_TEXT = 20_000, 50_000
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
    title: str, student: str, notebook: NotebookNode, entry: Entry, seed: int, notices: list[str]
) -> str:
    """The feedback on one submission as a page that loads nothing and runs nothing.

    notices: what befell the submission as a whole. The student's texts are escaped; of their outputs only text and
    pictures are shown.
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
        added=added,
        seed=seed,
        styles=_formatter().get_style_defs(".highlight"),
    )


def _part(grade_id: str, cell: NotebookNode, cells: dict[str, NotebookNode], entry: Entry) -> _Part:
    name = grade_id.removeprefix("check-")
    mark = entry.marks.get(grade_id)
    points = "" if mark is None else f"{'–' if mark.waits else f'{mark.score:g}'} / {mark.max_score:g}"
    if is_solution(cell):
        blocks, mistakes = [_markdown(cell)], ""
    else:
        blocks = [_code(cells[name])] if name in cells else ["<p>The solution cell was deleted.</p>"]
        blocks += [_output(output) for output in cell.outputs if output.output_type != "execute_result"]
        reports = [output.data[MIME_TYPE] for output in cell.outputs if MIME_TYPE in output.get("data", {})]
        mistakes = "; ".join(mistake for report in reports for mistake in report.get("mistakes", ()))
    return _Part(name, points, mistakes, mark.comment if mark else "", blocks)


def _code(cell: NotebookNode) -> str:
    return _highlighted(cell.source) + "".join(_output(output) for output in cell.outputs)


@lru_cache(maxsize=200)
def _highlighted(source: str) -> str:
    """Code in colours; what is very long without, because the lexer's time grows with its square."""
    if len(source) > LONGEST_CODE:
        return f"<pre>{escape(source[:LONGEST_TEXT])}</pre>"
    lines, blank = [], 0
    for line in source.split("\n"):
        blank = 0 if line.strip() else blank + 1
        if blank <= 3:  # many blank lines are slowest of all
            lines.append(line.rstrip())
    return str(highlight("\n".join(lines), PythonLexer(), _formatter()))


@cache
def _formatter() -> HtmlFormatter[str]:
    return HtmlFormatter()


def _markdown(cell: NotebookNode) -> str:
    """An answer in words. HTML in it is shown as text."""
    from nbconvert.filters.markdown_mistune import MarkdownWithMath

    if len(cell.source) <= LONGEST_TEXT:
        with contextlib.suppress(
            Exception
        ):  # students write what they like, and a class must not stop over it
            return str(
                MarkdownWithMath(renderer=MathMLRenderer(cell.get("attachments", {}))).render(cell.source)
            )
    return f"<pre>{escape(cell.source[:LONGEST_TEXT])}</pre>"


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
