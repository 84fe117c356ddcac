"""Every other lesson in a real browser, as released: it runs, its pictures and formulas show, its sliders move."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

from playwright.sync_api import expect

from tests.browser.notebook import PAINTED, NotebookPage
from tests.browser.server import ROOT
from tests.browser.window import Window

RELEASE = ROOT / "course" / "release"
FIRST, *NOTEBOOKS = sorted(path.relative_to(RELEASE).as_posix() for path in RELEASE.glob("*/*.ipynb"))


@pytest.fixture(scope="module", params=NOTEBOOKS)
def window(
    request: pytest.FixtureRequest, address: str, open_window: Callable[[], Window]
) -> Iterator[Window]:
    window = open_window()
    workspace = request.param.partition("/")[0]  # one of its own: JupyterLab would open the other tabs again
    window.page.goto(
        address.replace("/lab/tree/", f"/lab/workspaces/{workspace}/tree/").replace(FIRST, request.param)
    )
    window.notebook = request.param  # type: ignore[attr-defined]
    yield window
    window.page.close()


@pytest.fixture(scope="module")
def notebook(window: Window) -> NotebookPage:
    notebook = NotebookPage(window.page, RELEASE / window.notebook)  # type: ignore[attr-defined]
    notebook.wait_until_ready()
    notebook.run_all()
    return notebook


def test_the_notebook_runs_to_its_end_without_an_error(notebook: NotebookPage) -> None:
    notebook.expect_all_has_run_without_an_error()


def test_its_pictures_and_formulas_show(notebook: NotebookPage) -> None:
    assert notebook.expect_pictures() > 3
    assert notebook.expect_formulas() > 5


def test_its_sliders_change_a_picture(notebook: NotebookPage) -> None:
    widgets = notebook.page.locator(".widget-interact")
    assert widgets.count() > 0
    for number in range(widgets.count()):
        picture, handle = (
            widgets.nth(number).locator("img"),
            widgets.nth(number).locator(".noUi-handle").first,
        )
        before = picture.get_attribute("src") or ""
        last = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        handle.press("Home" if last else "End")
        expect(picture).not_to_have_attribute("src", before)
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate(PAINTED)


def test_the_page_needs_no_network_and_reports_no_error(notebook: NotebookPage, window: Window) -> None:
    expect(notebook.cells.first).to_be_visible()
    assert window.strangers == []
    assert window.errors == []
