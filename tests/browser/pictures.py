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
SCALE = 1.25 if FOLDER else 1.0  # pixels of the picture for one of the page: sharp letters, 1200 pixels wide
TALL = 2400  # of the window, so that what is wanted fits


def take(name: str, first: Locator, last: Locator, frame: Locator | None = None) -> None:
    """From the top of `frame` (of `first`, if there is none) to the end of `last`, with `first` scrolled up."""
    if not FOLDER:
        return
    page = first.page
    before = page.viewport_size
    page.set_viewport_size({"width": 1000, "height": TALL})
    page.mouse.move(0, 0)
    first.evaluate("element => element.scrollIntoView({behavior: 'instant', block: 'start'})")
    last.wait_for()
    picture = Path(FOLDER, f"{name}.png")
    page.screenshot(path=picture, clip=_clip(frame or first, last), animations="disabled", caret="hide")
    if before:
        page.set_viewport_size(before)


def _clip(top: Locator, last: Locator) -> FloatRect:
    above, below = top.bounding_box(), last.bounding_box()
    assert above is not None
    assert below is not None
    return {
        "x": above["x"],
        "y": above["y"],
        "width": above["width"],
        "height": below["y"] + below["height"] + 8 - above["y"],
    }
