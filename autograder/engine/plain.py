"""Text of a student's, made fit for files, terminals and pages."""

from __future__ import annotations

import re

__all__ = ["encodable", "plain"]

ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def encodable(text: str) -> str:
    """The text with ? for what UTF-8 cannot hold: half of a surrogate pair would break every file that it is in."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def plain(text: str, most: int) -> str:
    """At most `most` characters of a text, without terminal escapes and control characters; line breaks and tabs stay."""
    cut = text[:most].replace("\r\n", "\n").replace("\r", "\n")
    return encodable(CONTROLS.sub("", ESCAPES.sub("", cut)))
