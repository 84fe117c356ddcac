"""Formulas as MathML in feedback pages and the formgrader, so that they show without a network.

nbconvert's pages load MathJax from a CDN, and no setting of nbgrader's changes that. Browsers draw MathML
themselves. `nbgrader_config.py` puts this filter in place of nbconvert's, and an empty template in place of
MathJax's.
"""

import contextlib
import re
from collections.abc import Mapping
from html import escape, unescape
from typing import Any
from urllib.parse import unquote
from xml.etree.ElementTree import tostring

from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

__all__ = ["PICTURES", "MathMLRenderer", "markdown2html", "mathml", "words"]

PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What a picture pasted into an answer may be. Not SVG, which holds programs."""

LONGEST_TEXT, LONGEST_FORMULA = 50_000, 5_000
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+")


class MathMLRenderer(IPythonRenderer):
    """nbconvert's Markdown renderer, formulas turned into MathML, and nothing left that a browser would run.

    HTML is shown as text; links lead to no program. What is shown are students' notebooks, and who looks at them
    is logged in as the instructor.
    """

    def __init__(self, attachments: Mapping[str, Any] | None = None, path: str = ""):
        super().__init__(
            escape=True, allow_harmful_protocols=False, attachments=dict(attachments or {}), path=path
        )

    def block_math(self, body: str) -> str:
        """A formula on lines of its own."""
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        """A formula in a line of text."""
        return mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        """A LaTeX environment."""
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    def block_code(self, code: str, info: str | None = None) -> str:
        """Code without colours: in a language of the student's choice, some lexers take minutes.

        And diagrams as their text: nbconvert passes mermaid's on unescaped.
        """
        return f"<pre><code>{escape(code)}</code></pre>"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """A picture; one that was pasted comes from the cell's attachments, if it is there."""
        name = url.removeprefix("attachment:")
        if name != url:
            url = _data_url(self.attachments.get(name) or self.attachments.get(unquote(name)))
        if not url:
            return f"<em>(a picture that is not there: {escape(name)})</em>"
        return str(super().image(text, url, title))


@pass_context
def markdown2html(context: Context, source: str) -> str:
    """The filter of this name in nbconvert's templates."""
    cell: Any = context.get("cell", {})
    path = context.get("resources", {}).get("metadata", {}).get("path", "")
    return words(source, cell.get("attachments", {}), path)


def words(source: str, attachments: Mapping[str, Any], path: str = "") -> str:
    """Markdown of a student's as HTML; where it is very long, or breaks the renderer, the text itself."""
    if len(source) <= LONGEST_TEXT:
        # Students write what they like, and a class must not stop over it.
        with contextlib.suppress(Exception):
            return str(_markdown(MathMLRenderer(attachments, path)).render(source))
    return f"<pre>{escape(source)}</pre>"


def _markdown(renderer: MathMLRenderer) -> MarkdownWithMath:
    """Markdown without blocks of HTML: those would be shown as text with all the formulas and emphasis in them."""
    made = MarkdownWithMath(renderer=renderer)
    for rules in (made.block.rules, made.block.list_rules, made.block.block_quote_rules):
        while RAW_HTML in rules:
            rules.remove(RAW_HTML)
    return made


RAW_HTML = "raw_html"


def mathml(tex: str, display: str) -> str:
    """`tex` as MathML; where it cannot be translated, the TeX itself."""
    try:
        from latex2mathml.converter import convert_to_element

        if len(tex) > LONGEST_FORMULA:
            return f"<code>{escape(tex)}</code>"
        formula = convert_to_element(tex.strip(), display=display)
        for part in formula.iter():
            # latex2mathml writes symbols as references and students' words as they are; both are characters.
            part.text, part.tail = unescape(part.text or ""), unescape(part.tail or "")
            for name in {"href", "style", "class", "id"} & set(part.attrib):
                del part.attrib[name]
        return tostring(formula, encoding="unicode")
    except Exception:  # noqa: BLE001  (students write what they like, and a page must not fail over it)
        return f"<code>{escape(tex)}</code>"


def _data_url(bundle: Any) -> str:
    """A pasted picture as a URL, or "" if it is none."""
    for kind in PICTURES:
        data = bundle.get(kind) if isinstance(bundle, Mapping) else None
        if isinstance(data, str) and BASE64.fullmatch(data):
            return f"data:{kind};base64,{data}"
    return ""
