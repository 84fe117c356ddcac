"""Formulas as MathML in feedback pages and the formgrader, so that they show without a network.

nbconvert's pages load MathJax from a CDN, and no setting of nbgrader's changes that. Browsers draw MathML
themselves. `nbgrader_config.py` puts this filter in place of nbconvert's, and an empty template in place of
MathJax's.
"""

from html import escape
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


class MathMLRenderer(IPythonRenderer):
    """nbconvert's Markdown renderer, formulas turned into MathML."""

    def block_math(self, body: str) -> str:
        """A formula on lines of its own."""
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        """A formula in a line of text."""
        return mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        """A LaTeX environment."""
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


@pass_context
def markdown2html(context: Context, source: str) -> str:
    """The filter of this name in nbconvert's templates."""
    cell: Any = context.get("cell", {})
    path = context.get("resources", {}).get("metadata", {}).get("path", "")
    renderer = MathMLRenderer(escape=False, attachments=cell.get("attachments", {}), path=path)
    return str(MarkdownWithMath(renderer=renderer).render(source))


def mathml(tex: str, display: str) -> str:
    """`tex` as MathML; where it cannot be translated, the TeX itself."""
    try:
        from latex2mathml.converter import convert

        return str(convert(tex.strip(), display=display))
    except Exception:  # noqa: BLE001  (students write what they like, and a page must not fail over it)
        return f"<code>{escape(tex)}</code>"
