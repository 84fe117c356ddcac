"""A browser for the tests of this folder. Where there is none, each of them is skipped and says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.browser import pictures

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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
LOCAL = ("127.0.0.1", "localhost", None)  # None: data: and blob: have no host


class Window:
    """A page of the browser that may reach this machine only, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.strangers: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("request", lambda request: self._asked(request.url))
        page.route(lambda url: not _is_local(url), lambda route: route.abort())

    def _heard(self, kind: str, text: str) -> None:
        if kind == "error":
            self.errors.append(text)

    def _asked(self, url: str) -> None:
        if not _is_local(url):
            self.strangers.append(url)


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in LOCAL


# Playwright keeps an event loop running in this thread, so it ends with this folder's last test.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Headless Chromium of the system; a new, empty profile."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium on PATH (looked for {', '.join(NAMES)}): apt-get install chromium, or your system's way")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def open_window(browser: Browser) -> Callable[[], Window]:
    """Open a new window, with cookies and storage of its own."""

    def open_window() -> Window:
        size = {"width": 1200, "height": 900}
        return Window(browser.new_page(viewport=size, device_scale_factor=pictures.SCALE, color_scheme="light"))

    return open_window
