"""Feedback pages: what was found and what it earned; nothing is loaded, nothing runs, nothing of a student's is HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from autograder.engine.ledger import Entry, Mark
from autograder.engine.pages import page
from autograder.grading import check
from autograder.verdict import MIME_TYPE

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
EVIL = "</pre></td><script>alert(1)</script><img src=x onerror=alert(2)><style>*{display:none}</style>"


def nbgrader(grade_id: str, **more: Any) -> dict[str, Any]:
    return {"nbgrader": {"grade_id": grade_id, "schema_version": 3, "locked": False, "task": False, **more}}


def notebook(
    source: str = "def softmax(scores): ...", answer: str = "Because.", outputs: Any = ()
) -> NotebookNode:
    made = new_notebook()
    grade = {"grade": True, "solution": False, "points": 6}
    made.cells = [
        new_markdown_cell("# The lesson", id="lesson"),
        new_code_cell(source, id="softmax", metadata=nbgrader("softmax", grade=False, solution=True)),
        new_code_cell(
            "grade(...)",
            id="check-softmax",
            metadata=nbgrader("check-softmax", **grade),
            outputs=list(outputs),
        ),
        new_markdown_cell(
            answer, id="words", metadata=nbgrader("words", grade=True, solution=True, points=2)
        ),
        new_code_cell("print('mine')", id="added-4", outputs=[new_output("stream", text="mine\n")]),
        new_code_cell("quiet = 1", id="added-5"),
    ]
    return made


def report_of(answer: Any = "d") -> NotebookNode:
    report = check("why_scale", answer, seed=1)
    data = {"text/plain": str(report), "text/html": report._repr_html_(), MIME_TYPE: report.to_dict()}
    return new_output("display_data", data)


def entry(**marks: Mark) -> Entry:
    given = {
        "check-softmax": Mark(4.5, 6.0, False, False, ""),
        "words": Mark(0.0, 2.0, False, True, ""),
        **marks,
    }
    return Entry(sum(mark.score for mark in given.values()), 8.0, 0.0, given)


class Tags(HTMLParser):
    """All tags of a page, with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def made(given: NotebookNode, **kwargs: Any) -> str:
    return page("01_x", "ada", given, kwargs.pop("entry", entry()), 17, kwargs.pop("notices", []))


def test_a_page_says_who_earned_what_and_by_which_seed() -> None:
    text = made(notebook(outputs=[report_of()]))
    assert "<b>ada</b>: 4.5 of 8 points" in text
    assert "answers in words are not graded yet" in text
    assert "4.5 / 6" in text
    assert "– / 2" in text
    assert "Seed of this submission: 17" in text


def test_a_page_shows_reports_and_names_mistakes_in_its_table() -> None:
    text = made(notebook(outputs=[report_of("a")]))
    assert "attn-report" in text
    assert "<td>answer a</td>" in text


def test_a_page_leaves_the_lesson_out_and_shows_the_students_own_cells() -> None:
    text = made(notebook())
    assert "The lesson" not in text
    assert "mine" in text
    assert "Cells of your own" in text
    assert "quiet" not in text, "a cell that shows nothing needs no place"


def test_a_persons_comment_and_a_deleted_solution_are_shown() -> None:
    given = notebook()
    given.cells = [cell for cell in given.cells if cell.id != "softmax"]
    text = made(given, entry=entry(words=Mark(1.5, 2.0, True, False, "Nearly: what of <b>the mask</b>?")))
    assert "The solution cell was deleted." in text
    assert "Nearly: what of &lt;b&gt;the mask&lt;/b&gt;?" in text
    assert "1.5 / 2" in text
    assert "not graded yet" not in text


def test_a_penalty_is_shown_and_taken_off() -> None:
    given = entry(words=Mark(1.5, 2.0, True, False, ""))
    text = made(notebook(), entry=Entry(6.0, 8.0, 2.0, given.marks))
    assert "4 of 8 points, 2 taken off for lateness" in text


def test_what_befell_the_submission_stands_on_top() -> None:
    text = made(notebook(), notices=[f"the process was killed {EVIL}"])
    assert text.index("the process was killed") < text.index("<table>")
    assert "<script" not in text


PLACES: dict[str, Any] = {
    "a solution": lambda: notebook(source=f"x = 1  # {EVIL}"),
    "a solution too long for colours": lambda: notebook(source=f"# {EVIL}\n" * 2000),
    "an answer": lambda: notebook(answer=EVIL),
    "an answer with a formula": lambda: notebook(
        answer=f"$\\text{{{EVIL}}}$ and $$<script>alert(3)</script>$$"
    ),
    "an answer with a link": lambda: notebook(
        answer="[here](javascript:alert(1)) ![x](http://evil/pixel.png)"
    ),
    "an answer too long": lambda: notebook(answer=EVIL * 1000),
    "printed text": lambda: notebook(outputs=[new_output("stream", text=EVIL)]),
    "an error": lambda: notebook(outputs=[new_output("error", ename=EVIL, evalue=EVIL, traceback=[EVIL])]),
    "shown text": lambda: notebook(outputs=[new_output("display_data", {"text/plain": EVIL})]),
    "shown HTML": lambda: notebook(
        outputs=[new_output("display_data", {"text/html": EVIL, "text/plain": "x"})]
    ),
    "a picture that is none": lambda: notebook(
        outputs=[new_output("display_data", {"image/png": f'"{EVIL}'})]
    ),
    "a report": lambda: notebook(outputs=[report_of(EVIL)]),
}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_a_student_writes_becomes_a_tag(place: str) -> None:
    text = made(PLACES[place]())
    quiet = {tag for tag, _ in Tags(made(notebook(outputs=[report_of()]))).found}
    for tag, attributes in Tags(text).found:
        assert tag in quiet | {"span", "math", "pre", "a", "img"} or tag.startswith("m"), tag
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for value in attributes.values():
            assert not re.match(r"\s*(javascript|vbscript|data:text)", value or "", re.IGNORECASE), attributes
    assert "img-src data:" in text, "so that a picture from elsewhere is not loaded"
    assert text.count("<style>") == made(notebook()).count("<style>")


def test_a_picture_is_shown_from_the_page_itself() -> None:
    text = made(notebook(outputs=[new_output("display_data", {"image/png": PNG, "text/plain": "<picture>"})]))
    assert f'src="data:image/png;base64,{PNG}"' in text


def test_a_page_may_load_and_run_nothing() -> None:
    text = made(notebook(answer="$x^2$", outputs=[report_of()]))
    assert "default-src 'none'" in text
    assert "<math" in text
    assert not [tag for tag, _ in Tags(text).found if tag in ("script", "link", "iframe", "object", "embed")]


@pytest.mark.parametrize(
    "answer",
    [
        "$x^2$ and **A**",
        "<div>$x^2$ and **A**</div>",
        "<script>alert(1)</script> $x^2$ **A**",
        "- <div>$x^2$ **A**",
        "> <p>$x^2$ **A**",
    ],
)
def test_formulas_and_emphasis_in_an_answer_are_drawn_whatever_html_is_around_them(answer: str) -> None:
    text = made(notebook(answer=answer))
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in text
    assert "<strong>A</strong>" in text
    blocks = [
        [tag for tag, _ in Tags(page).found if tag in ("div", "script")] for page in (text, made(notebook()))
    ]
    assert blocks[0] == blocks[1], "those of the code's listing"


def test_terminal_colours_of_a_traceback_are_left_out() -> None:
    outputs = [new_output("error", ename="E", evalue="v", traceback=["\x1b[31mred\x1b[0m words"])]
    assert "red words" in made(notebook(outputs=outputs))


def test_a_long_text_makes_a_page_hardly_longer_than_itself() -> None:
    source, answer = "x = 1\n" * 100_000, "word " * 100_000
    text = made(notebook(source=source, answer=answer))
    assert len(text) < 1.1 * (len(source) + len(answer)), "colouring it would make it ten times as long"
