"""A browser for the tests of this folder. Where there is none, each of them is skipped and says why."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import pictures

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.browser.window import Window

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--no-sandbox",  # containers run tests as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# Playwright keeps an event loop running in this thread, so it ends with this folder's last test.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Headless Chromium of the system; a new, empty profile."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser on PATH (one of {', '.join(NAMES)}); on Debian: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def open_window(browser: Browser) -> Callable[[], Window]:
    """Open a new window, with cookies and storage of its own."""

    from tests.browser.window import Window

    def open_window() -> Window:
        page = browser.new_page(device_scale_factor=pictures.SCALE, color_scheme="light")
        page.set_viewport_size({"width": 1200, "height": 900})
        return Window(page)

    return open_window


@pytest.fixture(scope="package")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's working copy."""
    return tmp_path_factory.mktemp("student") / "work"


@pytest.fixture(scope="package")
def address(work: Path, browser: Browser) -> Iterator[str]:
    """Where `attn lab` says that the first notebook is."""
    from tests.browser.server import free_port, serving

    command = [sys.executable, "-m", "autograder.cli", "lab", str(work)]
    command += ["--no-browser", "--port", str(free_port())]
    with serving(command, work.parent, work.parent / "home") as address:
        yield address
