"""Notebooks as JSON text between the engine's own processes: compact, and not validated each time."""

from __future__ import annotations

import json

from nbformat import NotebookNode
from nbformat.v4 import reads_json

__all__ = ["from_text", "to_text"]


def to_text(notebook: NotebookNode) -> str:
    """A notebook that the engine has made as JSON; a valid .ipynb, in one line."""
    return json.dumps(notebook)


def from_text(text: str) -> NotebookNode:
    """The notebook in a valid .ipynb's text."""
    notebook: NotebookNode = reads_json(text)
    return notebook
