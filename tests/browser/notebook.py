"""A notebook in JupyterLab's window, as a student handles it: with mouse and keyboard."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.browser.pictures import FOLDER, take

HAS_RUN = re.compile(r"\[\d+\]:")
PAINTED = "image => image.complete && image.naturalWidth > 200"
PATIENCE = 90_000  # milliseconds: a busy machine imports torch slowly; only a failing test waits so long


class NotebookPage:
    """The window that shows a copy of the notebook file `path`; its cells are found by their ids."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.content = json.loads(path.read_text(encoding="utf-8"))["cells"]
        self.ids = [cell["id"] for cell in self.content]

    @property
    def cells(self) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell")

    def cell(self, cell_id: str) -> Locator:
        return self.cells.nth(self.ids.index(cell_id))

    def cell_with(self, content: Locator) -> Locator:
        return self.cells.filter(has=content)

    def report(self, name: str) -> Locator:
        """The report under the grade cell of an exercise."""
        return self.cell(f"check-{name}").locator(".attn-report")

    def wait_until_ready(self) -> None:
        """Wait for the cells and the kernel: a cell that is run too early makes JupyterLab ask for one."""
        expect(self.cells).to_have_count(len(self.ids), timeout=PATIENCE)
        status = self.page.locator("#jp-main-statusbar")
        expect(status).to_contain_text("Python 3 (ipykernel) | Idle", timeout=PATIENCE)

    def run_all(self) -> None:
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        last = self.page.locator(".jp-Notebook .jp-CodeCell").last
        expect(self._prompt(last)).to_have_text(HAS_RUN, timeout=PATIENCE)

    def expect_all_has_run_without_an_error(self) -> None:
        """Every cell has run, nothing went to stderr, and every grade cell shows its report."""
        expect(self.cells.locator(".jp-InputPrompt", has_text="[ ]")).to_have_count(0)
        for kind in ("stderr", "error"):
            found = self.cells.locator(f'[data-mime-type="application/vnd.jupyter.{kind}"]')
            expect(found).to_have_count(0)
        checks = [cell_id for cell_id in self.ids if cell_id.startswith("check-")]
        assert len(checks) > 10
        for cell_id in checks:
            expect(self.cell(cell_id).locator(".attn-report")).to_be_visible()

    def expect_pictures(self) -> int:
        """Every cell that plots shows a picture; how many there are."""
        plotting = [cell["id"] for cell in self.content if "plt.show()" in "".join(cell["source"])]
        for cell_id in plotting:
            picture = self.cell(cell_id).locator("img").first
            expect(picture).to_be_visible()
            assert picture.evaluate(PAINTED), cell_id
        return len(plotting)

    def expect_formulas(self) -> int:
        """Every formula is typeset; how many cells hold some."""
        prose = [cell for cell in self.content if cell["cell_type"] == "markdown"]
        with_formulas = [cell["id"] for cell in prose if "$" in "".join(cell["source"])]
        for cell_id in with_formulas:
            cell = self.cell(cell_id)
            expect(cell.locator("mjx-container").first).to_be_visible()
            expect(cell.locator(".jp-MarkdownOutput")).not_to_contain_text("$")
        expect(self.page.locator("mjx-merror, [data-mjx-error]")).to_have_count(0)
        return len(with_formulas)

    def write(self, cell_id: str, source: str) -> None:
        """Type `source` in place of what the cell holds."""
        self._editor(cell_id).click()
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.insert_text(source)
        typed = [line.rstrip("\n") for line in self._editor(cell_id).locator(".cm-line").all_inner_texts()]
        assert typed == source.split("\n")  # the editor may add brackets or indents of its own

    def run(self, cell_id: str) -> None:
        """Run one cell and wait until it is done."""
        prompt = self._prompt(self.cell(cell_id))
        before = prompt.inner_text()
        self._editor(cell_id).click()
        self.page.keyboard.press("ControlOrMeta+Enter")
        expect(prompt).not_to_have_text(before)
        expect(prompt).to_have_text(HAS_RUN, timeout=PATIENCE)

    def answer(self, name: str, source: str) -> Locator:
        """Answer an exercise, run the answer and its check; the report."""
        self.write(name, source)
        self.run(name)
        self.run(f"check-{name}")
        return self.report(name)

    def picture(self, name: str, *shown: Locator) -> None:
        """Save the notebook from the first to the last of what is shown, if pictures are wanted."""
        if FOLDER and self.page.locator("#jp-left-stack").is_visible():
            self.page.keyboard.press("ControlOrMeta+B")  # the file browser leaves too little room
        take(name, shown[0], shown[-1], self.page.locator("#jp-main-dock-panel"), room=140)

    def _editor(self, cell_id: str) -> Locator:
        return self.cell(cell_id).locator(".cm-content")

    @staticmethod
    def _prompt(cell: Locator) -> Locator:
        return cell.locator(".jp-InputPrompt")
