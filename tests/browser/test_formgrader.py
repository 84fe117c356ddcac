"""A graded class in nbgrader's formgrader and on its feedback pages, in a real browser without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

from nbgrader.api import Gradebook
from playwright.sync_api import expect

from autograder.cli import demo
from tests.browser import pictures
from tests.browser.notebook import PATIENCE
from tests.browser.server import ROOT, free_port, serving
from tests.browser.window import Window

ASSIGNMENT, STEM = "01_basic_attention", "basic_attention"
STUDENT, WRONG, MISTAKE = "goran", "AdditiveScores", "no tanh"


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, browser: object) -> Path:
    """A class of one student of the made-up class, graded by `attn grade`."""
    place = tmp_path_factory.mktemp("teacher") / "class"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "CLASS", tuple(student for student in demo.CLASS if student.name == STUDENT))
        demo.make_class(place)
    command = [sys.executable, "-m", "autograder.cli", "grade", str(place)]
    subprocess.run(command, check=True, cwd=ROOT)
    return place


@pytest.fixture(scope="module")
def address(graded: Path) -> Iterator[str]:
    """JupyterLab started in the class's folder, as `attn grade` advises."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={free_port()}"]
    with serving(command, graded, graded.parent / "home") as address:
        yield address


@pytest.fixture(scope="module")
def window(address: str, open_window: Callable[[], Window]) -> Window:
    """The page on which a person grades the submission."""
    window = open_window()
    page = window.page
    page.goto(address)  # which logs in: the formgrader takes no token
    page.goto(urljoin(address, f"/formgrader/gradebook/{ASSIGNMENT}/{STEM}"))
    page.get_by_role("link", name="Submission #1").click(timeout=PATIENCE)
    expect(page.locator(".attn-report").first).to_be_visible(timeout=PATIENCE)
    return window


def test_the_formgrader_opens_from_the_menu_and_lists_the_assignment(
    address: str, open_window: Callable[[], Window]
) -> None:
    page = open_window().page
    page.goto(address)
    page.get_by_role("menuitem", name="Nbgrader", exact=True).click(timeout=PATIENCE)
    page.get_by_role("menuitem", name="Formgrader", exact=True).click()
    listed = page.frame_locator("iframe").get_by_role("row").filter(has_text=ASSIGNMENT)
    expect(listed).to_be_visible(timeout=PATIENCE)


def test_the_grading_page_shows_points_and_named_mistakes(window: Window) -> None:
    report = window.page.locator(".attn-report", has_text=f"{WRONG}: not yet")
    expect(report).to_contain_text(f"Likely cause: {MISTAKE}.")
    points = window.page.locator(f'[id="check-{WRONG}"].score')
    expect(points).to_have_attribute("placeholder", re.compile(r"^[0-3](\.\d+)?$"))  # of 4.5
    expect(window.page.locator('.attn-report[data-passed="true"]').first).to_be_visible()


def test_a_person_marks_an_answer_in_words_by_its_rubric(window: Window, graded: Path) -> None:
    page = window.page
    rubric = page.locator(".cell", has_text="For the person who grades")
    expect(rubric.get_by_text("Rubric", exact=True)).to_be_visible()
    marks = page.locator('[id="what_is_attention"].score')
    marks.fill("2")
    with page.expect_response(lambda answer: answer.request.method == "PUT" and "/api/grade/" in answer.url):
        marks.press("Tab")
    answer = page.locator(".cell", has=marks)
    pictures.take("formgrader", answer, rubric, page.locator(".navbar-fixed-top"), room=60)
    with Gradebook(f"sqlite:///{graded / 'gradebook.db'}") as gradebook:
        assert gradebook.find_submission(ASSIGNMENT, STUDENT).written_score == 2


def test_formulas_are_drawn_without_a_script(window: Window) -> None:
    formulas = window.page.locator("math")
    assert formulas.count() > 50
    for formula in (formulas.first, formulas.last):
        expect(formula).to_be_visible()
    expect(window.page.locator("merror")).to_have_count(0)
    left = window.page.locator(".text_cell_render").evaluate_all(
        r"cells => cells.map(cell => cell.innerText).filter(text => /\$|\\frac|\\sqrt/.test(text))"
    )
    assert left == []


def test_the_grading_page_needs_no_network_and_reports_no_error(window: Window) -> None:
    assert window.strangers == []
    assert window.errors == []


def test_a_feedback_page_opens_from_its_file(graded: Path, open_window: Callable[[], Window]) -> None:
    (file,) = (graded / "feedback" / STUDENT / "01_basic_attention").glob("*.html")
    window = open_window()
    page = window.page
    page.goto(file.as_uri())
    expect(page.get_by_role("row").filter(has_text=WRONG).first).to_contain_text(MISTAKE)
    report = page.locator(".attn-report", has_text=f"{WRONG}: not yet")
    expect(report).to_contain_text(f"Likely cause: {MISTAKE}.")
    part = page.locator("section", has=report)
    pictures.take("feedback", part, part, page.locator("body"), room=0)
    assert window.strangers == []
    assert window.errors == []
