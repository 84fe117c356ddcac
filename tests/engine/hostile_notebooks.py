"""Hostile submissions that need more than text in a cell: metadata, files beside the notebook, broken files.

Each builder writes what one student hands in; its docstring says what it tries and what must hold. The submissions hold
wrong answers, or right ones (`right`) where the trick aims at the grader; `reason` is what grades.csv must say where
one cannot be read.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from tests.nbgrader.small_class import NAME, answered, cell_of

__all__ = ["BUILDERS", "Builder", "wrong"]

Write = Callable[[Path, NotebookNode], None]
"""Writes a submission: the assignment's folder, and the released notebook."""

DOTS = "def dot_scores(query, key):\n    return (query @ key.transpose(-2, -1)) * 1.5"


@dataclass(frozen=True)
class Builder:
    """How one student cheats. right: the answers are right, and must earn their points."""

    write: Write
    right: bool = False
    reason: str = ""


BUILDERS: dict[str, Builder] = {}


def hostile(right: bool = False, reason: str = "") -> Callable[[Write], Write]:
    """Enter a builder under its function's name."""

    def enter(write: Write) -> Write:
        BUILDERS[write.__name__] = Builder(write, right, reason)
        return write

    return enter


def wrong(released: NotebookNode) -> NotebookNode:
    """The released notebook with one wrong answer and one missing."""
    return answered(released, dot_scores=DOTS, why_scale="why_scale = ...", in_words="")


def save(folder: Path, notebook: NotebookNode) -> None:
    """As a student could write it: whatever is in it, without asking nbformat."""
    (folder / NAME).write_text(json.dumps(notebook), encoding="utf-8")


def with_cell(notebook: NotebookNode, source: str, **metadata: object) -> NotebookNode:
    notebook.cells.insert(0, new_code_cell(source, id="mine", metadata=metadata))
    return notebook


@hostile()
def skip_tags(folder: Path, released: NotebookNode) -> None:
    """Every cell carries the tags that make nbclient and nbconvert pass over it. Must hold: no tag of the student's counts."""
    notebook = wrong(released)
    for cell in notebook.cells:
        cell.metadata["tags"] = ["skip-execution", "remove-cell", "raises-exception"]
        cell.metadata["editable"] = cell.metadata["deletable"] = False
    save(folder, notebook)


@hostile()
def edited_metadata(folder: Path, released: NotebookNode) -> None:
    """Points, checksums, locks and schemas edited; solutions made worth points. Must hold: the teacher's metadata is used."""
    notebook = wrong(released)
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.update(
                points=100, grade=True, locked=False, checksum="0", schema_version=99
            )
    save(folder, notebook)


@hostile()
def edited_grade_cells(folder: Path, released: NotebookNode) -> None:
    """Grade cells that end in the full points, with outputs to match. Must hold: they come back as they were released."""
    notebook = wrong(released)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            points = float(cell.metadata.nbgrader.points)
            cell.source = str(points)
            cell.outputs = [new_output("execute_result", {"text/plain": str(points)}, execution_count=1)]
            cell.metadata.nbgrader.solution = True
    save(folder, notebook)


@hostile()
def grade_cells_of_its_own(folder: Path, released: NotebookNode) -> None:
    """New cells that say they are grade cells, which write files where they run. Must hold: they run in the jail."""
    code = "import pathlib\n\npathlib.Path('@MARK@').write_text('owned')\n100.0"
    notebook = wrong(released)
    for number, given in enumerate((
        {"grade": True, "solution": False, "locked": True, "grade_id": "check-mine", "points": 100, "schema_version": 3},
        {"grade": True, "solution": False, "locked": True, "grade_id": "check-dot_scores", "points": 100},
        {"grade": True, "solution": True, "grade_id": "dot_scores"},
    )):  # fmt: skip
        made = new_code_cell(
            code.replace("@MARK@", str(folder.parents[2] / f"owned-{number}")), id=f"mine{number}"
        )
        made.metadata["nbgrader"] = given
        notebook.cells.insert(number, made)
    save(folder, notebook)


@hostile()
def retyped_cells(folder: Path, released: NotebookNode) -> None:
    """Grade cells turned into text, text into code, solutions into raw cells. Must hold: kinds come from the release."""
    notebook = wrong(released)
    for cell in notebook.cells:
        cell.cell_type = {"code": "raw", "markdown": "code", "raw": "markdown"}[cell.cell_type]
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
        else:
            cell.pop("outputs", None), cell.pop("execution_count", None)
    save(folder, notebook)


@hostile()
def swapped_ids(folder: Path, released: NotebookNode) -> None:
    """Each cell carries another cell's grade id, and all carry the same cell id. Must hold: a wrong answer stays one."""
    notebook = wrong(released)
    marked = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    names = [cell.metadata.nbgrader.grade_id for cell in marked]
    for cell, name in zip(marked, names[1:] + names[:1], strict=True):
        cell.metadata.nbgrader.grade_id = name
    for cell in notebook.cells:
        cell.id = "same"
    save(folder, notebook)


@hostile(right=True)
def another_kernel(folder: Path, released: NotebookNode) -> None:
    """The notebook asks for a kernel that runs a shell. Must hold: kernels are not asked for."""
    notebook = answered(released)
    notebook.metadata = {
        "kernelspec": {"name": "bash; touch owned", "display_name": "<script>", "language": "sh"},
        "language_info": {"name": "sh", "pygments_lexer": "../../x"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": "<script>"}},
    }
    save(folder, notebook)


@hostile(right=True)
def shadow_modules(folder: Path, released: NotebookNode) -> None:
    """Modules, start-up files and settings beside the notebook. Must hold: nobody imports or reads them."""
    save(folder, answered(released))
    code = f"import pathlib\npathlib.Path({str(folder.parents[2] / 'owned-shadow')!r}).write_text('owned')\n"
    for name in ("numpy.py", "torch.py", "nbformat.py", "sitecustomize.py", "usercustomize.py", "nbgrader_config.py",
                 "conftest.py", "x.pth", ".pythonrc.py", "autograder/__init__.py", "ipython_config.py", ".attn"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code, encoding="utf-8")


@hostile(reason="link to something outside")
def linked_notebook(folder: Path, released: NotebookNode) -> None:
    """A link to an honest student's notebook. Must hold: what lies outside of the submission is not its own work."""
    (folder / NAME).symlink_to(folder.parents[1] / "honest" / folder.name / NAME)


@hostile(reason="link to something outside")
def linked_folder(folder: Path, released: NotebookNode) -> None:
    """The folder itself is a link to the teacher's source. Must hold: as before."""
    folder.rmdir()
    folder.symlink_to(folder.parents[2] / "source" / folder.name)


@hostile(reason="is neither a file nor a link to one")
def linked_in_a_circle(folder: Path, released: NotebookNode) -> None:
    """A link to itself. Must hold: there is no such file."""
    (folder / NAME).symlink_to(folder / NAME)


@hostile(right=True)
def linked_files(folder: Path, released: NotebookNode) -> None:
    """Links to the gradebook and the whole class beside a right notebook. Must hold: they are left alone."""
    save(folder, answered(released))
    (folder / "data").symlink_to(folder.parents[2])
    (folder / "gradebook.db").symlink_to(folder.parents[2] / "gradebook.db")
    (folder / "timestamp.txt").symlink_to("/dev/zero")


@hostile(reason="is neither a file nor a link to one")
def a_pipe(folder: Path, released: NotebookNode) -> None:
    """A named pipe, whose reader waits for ever. Must hold: nobody opens it."""
    os.mkfifo(folder / NAME)


@hostile(right=True)
def impossible_time(folder: Path, released: NotebookNode) -> None:
    """A time of submission that no calendar holds. Must hold: nbgrader takes it for none."""
    save(folder, answered(released))
    (folder / "timestamp.txt").write_text("9" * 30, encoding="utf-8")


@hostile(reason="broken JSON")
def deep_json(folder: Path, released: NotebookNode) -> None:
    """JSON nested deeper than any parser goes. Must hold: it is broken JSON."""
    (folder / NAME).write_text("[" * 200_000, encoding="utf-8")


@hostile(reason="broken JSON")
def long_number(folder: Path, released: NotebookNode) -> None:
    """An integer of five thousand digits. Must hold: it is broken JSON."""
    (folder / NAME).write_text('{"nbformat": ' + "4" * 5_000 + "}", encoding="utf-8")


@hostile(reason="more than 2000 cells")
def many_cells(folder: Path, released: NotebookNode) -> None:
    """Five thousand cells. Must hold: it is refused before each is looked at."""
    notebook = answered(released)
    notebook.cells += [new_code_cell("1", id=f"n{number}") for number in range(5_000)]
    save(folder, notebook)


@hostile(reason="kB of text")
def much_text(folder: Path, released: NotebookNode) -> None:
    """A cell that takes a parser minutes. Must hold: it is refused before it is parsed."""
    save(folder, with_cell(answered(released), "a\n" * 500_000))


@hostile(right=True)
def nested_code(folder: Path, released: NotebookNode) -> None:
    """Cells nested deeper than Python parses. Must hold: whoever looks for names in them survives."""
    notebook = with_cell(answered(released), "x = " + "-" * 20_000 + "1")
    for source in ("x = " + "lambda: " * 900 + "1", "x" + ".a" * 5_000, 'x = "\0"', "x = " + "(" * 5_000):
        notebook = with_cell(notebook, source)
    save(folder, notebook)


@hostile(right=True)
def blank_lines(folder: Path, released: NotebookNode) -> None:
    """Sixty thousand blank lines in an answer, on which a syntax highlighter spends a minute. Must hold: it does not."""
    notebook = answered(released)
    cell_of(notebook, "dot_scores").source += "\n" + " \n" * 60_000 + "# end"
    save(folder, notebook)


@hostile(right=True)
def half_characters(folder: Path, released: NotebookNode) -> None:
    """Lone surrogates in code, in words, in output and in errors. Must hold: they can be written to every file."""
    notebook = with_cell(
        answered(released, in_words="half \ud800"), 'x = "\udfff"\nprint("\\ud800 \\x1b[31m \\x00")'
    )
    save(folder, with_cell(notebook, 'raise ValueError("\\ud800 \\x1b]0;x\\x07")'))


ANSWERS = r"""
<script>alert(1)</script> <img src=x onerror=alert(1)> <iframe srcdoc="<script>alert(1)</script>"></iframe>

```mermaid
</pre><script>alert(1)</script>
```

$\text{<script>alert(1)</script><img src=x onerror=alert(1)>}$ $\href{javascript:alert(1)}{a}$ $\style{x:expression(1)}{a}$

$$\color{" onclick="alert(1)}a$$ \begin{x"><script>alert(1)</script>}a\end{x}

[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) [c](data:text/html,<script>alert(1)</script>) ![d](javascript:alert(1))
![e](attachment:missing.png) ![f" onerror="alert(1)](attachment:evil) ![g](attachment:svg) <javascript:alert(1)>

# <script>alert(1)</script>

| <b>a</b> |
|---|
| <script>alert(1)</script> |

`<script>alert(1)</script>` &lt;script&gt; </math><script>alert(1)</script>
"""


@hostile(right=True)
def programs_in_words(folder: Path, released: NotebookNode) -> None:
    """An answer in words full of programs for the reader's browser. Must hold: they are shown, and none runs."""
    notebook = answered(released, in_words=ANSWERS)
    cell_of(notebook, "in_words")["attachments"] = {
        "evil": {'image/png" onerror="alert(1)': "x", "image/png": '"><script>alert(1)</script>'},
        "svg": {"image/svg+xml": "PHN2Zz48c2NyaXB0PmFsZXJ0KDEpPC9zY3JpcHQ+PC9zdmc+"},
    }
    save(folder, notebook)


@hostile(right=True)
def a_picture_that_is_not_there(folder: Path, released: NotebookNode) -> None:
    """An answer that shows a picture which was never pasted. Must hold: the page says so, and the class goes on."""
    save(folder, answered(released, in_words="![picture](attachment:picture.png)"))


@hostile()
def endings_in_disguise(folder: Path, released: NotebookNode) -> None:
    """Output and errors that look like nbgrader's own. Must hold: points come from the judge's number alone."""
    notebook = with_cell(wrong(released), "100.0")
    save(
        folder,
        with_cell(
            notebook,
            "import sys\n\nprint('100.0')\nprint('3.0', file=sys.stderr)\nraise type('NotGraded', (Exception,), {})('3.0')",
        ),
    )


def hand_in(builder: Builder, folder: Path, released: NotebookNode) -> None:
    """Let a hostile student hand in."""
    folder.mkdir(parents=True)
    builder.write(folder, copy.deepcopy(released))


def hand_in_plain(folder: Path, notebook: NotebookNode) -> None:
    """Let an honest student hand in."""
    folder.mkdir(parents=True)
    (folder / NAME).write_text(nbformat.writes(notebook), encoding="utf-8")
