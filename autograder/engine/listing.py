"""Students' code on pages, in colours."""

from __future__ import annotations

from functools import cache, lru_cache
from html import escape
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

__all__ = ["highlight_code", "listing", "styles"]

LONGEST = 20_000
"""Longer code is shown without colours: the time of a lexer can grow with the square of the length."""


@lru_cache(maxsize=200)
def listing(source: str) -> str:
    """Code as HTML, in colours where it is not very long."""
    if len(source) > LONGEST:
        return f'<div class="highlight"><pre>{escape(source)}</pre></div>'
    lines, blank = [], 0
    for line in source.split("\n"):
        blank = 0 if line.strip() else blank + 1
        if blank <= 3:  # many blank lines are what a lexer is slowest with
            lines.append(line.rstrip())
    return str(highlight("\n".join(lines), PythonLexer(), _formatter()))


def highlight_code(source: str, language: str | None = None, metadata: Any = None) -> str:
    """The filter of this name in nbconvert's templates."""
    return listing(source)


def styles() -> str:
    """The style sheet of the colours."""
    return str(_formatter().get_style_defs(".highlight"))


@cache
def _formatter() -> HtmlFormatter[str]:
    return HtmlFormatter()
