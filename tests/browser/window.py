"""A window of the browser that may reach this machine only, and what went wrong in it."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import Page

LOCAL = ("127.0.0.1", "localhost", None)  # None: data: and blob: have no host


class Window:
    """A page whose requests to other machines are refused.

    errors: what its scripts did not catch, or wrote to the console as an error.
    strangers: the addresses that were refused.
    """

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
