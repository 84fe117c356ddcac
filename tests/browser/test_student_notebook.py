"""The student's notebook in a real browser, in the working copy that `attn lab` makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

from playwright.sync_api import expect

from tests.browser.notebook import PAINTED, NotebookPage
from tests.browser.server import ROOT
from tests.browser.window import Window

NOTEBOOK = "01_basic_attention/basic_attention.ipynb"
RELEASED = ROOT / "course" / "release" / NOTEBOOK

LEAKING_SOFTMAX = """\
def masked_softmax(scores, attn_mask):
    return torch.softmax(scores, dim=-1) * attn_mask"""
RIGHT_SOFTMAX = """\
def masked_softmax(scores, attn_mask):
    lowest = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~attn_mask, lowest), dim=-1) * attn_mask"""

LEAKING_ATTENTION = """\
def attention(query, key, value, attn_mask=None, is_causal=False):
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError("query and key must share D, key and value S_k")
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    if is_causal:
        allowed = allowed.tril()
    if attn_mask is not None:
        allowed = allowed & attn_mask
    weights = torch.softmax(scores, dim=-1) * allowed
    return weights @ value, weights"""
RIGHT_ATTENTION = LEAKING_ATTENTION.replace(
    "    weights = torch.softmax(scores, dim=-1) * allowed",
    "    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)\n"
    "    weights = torch.softmax(scores, dim=-1) * allowed",
)


@pytest.fixture(scope="module")
def window(address: str, open_window: Callable[[], Window]) -> Window:
    window = open_window()
    window.page.goto(address)
    return window


@pytest.fixture(scope="module")
def notebook(window: Window) -> NotebookPage:
    """The notebook as `attn lab` opens it, all its cells run."""
    notebook = NotebookPage(window.page, RELEASED)
    notebook.wait_until_ready()
    notebook.run_all()
    return notebook


def test_attn_lab_opens_the_notebook_with_its_kernel(window: Window) -> None:
    NotebookPage(window.page, RELEASED).wait_until_ready()
    assert window.page.url.endswith(f"/lab/tree/{NOTEBOOK}")
    kernel = window.page.locator(".jp-NotebookPanel-toolbar .jp-KernelName")
    expect(kernel).to_contain_text("Python 3")


def test_a_fresh_notebook_runs_to_its_end_without_an_error(notebook: NotebookPage) -> None:
    notebook.expect_all_has_run_without_an_error()


def test_every_cell_that_plots_shows_a_picture(notebook: NotebookPage) -> None:
    assert notebook.expect_pictures() > 10


def test_every_formula_is_typeset(notebook: NotebookPage) -> None:
    assert notebook.expect_formulas() > 20


@pytest.mark.parametrize(
    ("name", "wrong", "mistake", "right"),
    [
        ("masked_softmax", LEAKING_SOFTMAX, "mask applied after the softmax", RIGHT_SOFTMAX),
        ("attention", LEAKING_ATTENTION, "mask applied after the softmax", RIGHT_ATTENTION),
    ],
    ids=["masked_softmax", "attention"],
)
def test_a_wrong_answer_is_told_its_mistake_and_the_right_one_turns_green(
    notebook: NotebookPage, name: str, wrong: str, mistake: str, right: str
) -> None:
    report = notebook.answer(name, wrong)
    expect(report).to_have_attribute("data-passed", "false")
    expect(report).to_contain_text(f"Likely cause: {mistake}.")
    expect(report).to_contain_text(f'check("{name}"')
    if name == "masked_softmax":
        notebook.picture("student-mistake", notebook.cell(name), notebook.cell(f"check-{name}"))
    report = notebook.answer(name, right)
    expect(report).to_have_attribute("data-passed", "true")
    expect(report).to_contain_text("all checks passed")
    expect(report).not_to_contain_text("Likely cause")
    if name == "masked_softmax":
        notebook.picture("student-passed", notebook.cell(name), notebook.cell(f"check-{name}"))


def test_a_choice_is_graded_where_it_is_answered(notebook: NotebookPage) -> None:
    report = notebook.answer("why_scale", 'why_scale = "a"')
    expect(report).to_have_attribute("data-passed", "false")
    report = notebook.answer("why_scale", 'why_scale = "c"')
    expect(report).to_have_attribute("data-passed", "true")


@pytest.mark.parametrize("argument", ["temperature", "D"])
def test_a_slider_changes_its_picture(notebook: NotebookPage, argument: str) -> None:
    widget = notebook.page.locator(".widget-interact", has=notebook.page.get_by_text(argument, exact=True))
    picture, readout = widget.locator("img"), widget.locator(".widget-readout")
    before, number = picture.get_attribute("src") or "", float(readout.inner_text())
    widget.locator(".noUi-handle").press("PageDown")
    expect(picture).to_be_visible()
    expect(picture).not_to_have_attribute("src", before)
    assert float(readout.inner_text()) < number
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate(PAINTED)
    if argument == "temperature":
        notebook.picture("slider", notebook.cell_with(widget))


def test_what_a_student_saves_lies_in_the_working_copy(notebook: NotebookPage, work: Path) -> None:
    released = RELEASED.read_bytes()
    notebook.write("softmax", "def softmax(scores, dim=-1):\n    return scores  # mine")
    with notebook.page.expect_response(
        lambda answer: answer.request.method == "PUT" and "/api/contents/" in answer.url
    ):
        notebook.page.keyboard.press("ControlOrMeta+S")
    saved = json.loads((work / NOTEBOOK).read_text(encoding="utf-8"))
    assert any("# mine" in "".join(cell["source"]) for cell in saved["cells"])
    assert RELEASED.read_bytes() == released


def test_the_page_needs_no_network_and_reports_no_error(notebook: NotebookPage, window: Window) -> None:
    expect(notebook.cells.first).to_be_visible()
    assert window.strangers == []
    assert window.errors == []
