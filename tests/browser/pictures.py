"""Pictures for the documentation, of what a test has just seen.

    ATTN_PICTURES=docs/pictures pytest tests/browser

takes them again. Without that variable no picture is taken; the tests are the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Locator

FOLDER = os.environ.get("ATTN_PICTURES", "")
SCALE = 1.25 if FOLDER else 1.0  # pixels of the picture for one of the page's: letters stay sharp
WIDTH = 1000  # of the window, in the page's pixels
MARGIN = 4


def take(name: str, first: Locator, last: Locator, frame: Locator, room: int) -> None:
    """Save what lies from `first` to `last`, under the top of `frame`, if pictures are wanted.

    room: how much of the window's height the frame takes, in the page's pixels.
    """
    if not FOLDER:
        return
    page = first.page
    before = page.viewport_size
    page.set_viewport_size({"width": WIDTH, "height": 1000})
    page.mouse.move(0, 0)
    page.wait_for_function("() => !window.jQuery || jQuery(':animated').length === 0")
    height = _end(last) - _box(first)["y"] + room
    page.set_viewport_size({"width": WIDTH, "height": round(height)})
    overlaps = frame.locator(first).count() == 0  # a bar that stays in place while the page scrolls under it
    first.evaluate("(element, room) => { element.style.scrollMarginTop = room }", f"{room * overlaps}px")
    first.evaluate("element => element.scrollIntoView({behavior: 'instant'})")
    top = _box(frame)
    clip: FloatRect = {**top, "height": _end(last) + MARGIN - top["y"]}
    page.screenshot(path=Path(FOLDER, f"{name}.png"), clip=clip, animations="disabled", caret="hide")
    if before:
        page.set_viewport_size(before)


def _box(shown: Locator) -> FloatRect:
    box = shown.bounding_box()
    assert box is not None, f"{shown} is not visible"
    return box


def _end(shown: Locator) -> float:
    return _box(shown)["y"] + _box(shown)["height"]
