"""Which of the teacher's own cells a student's cell needs: those that define a name it uses."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from nbformat import NotebookNode

__all__ = ["Lending"]


class Lending:
    """The teacher's cells (pictures, sliders, imports) are run on demand: most of them only show something.

    Before a student's cell, those of the cells above it run that define a name which the cell uses, and before them
    those that they use themselves. Each runs once.
    """

    def __init__(self, notebook: NotebookNode, lent: frozenset[str]):
        self.cells = notebook.cells
        self.lent = {i: _names(c.source) for i, c in enumerate(self.cells) if c.cell_type == "code" and c.source in lent}
        self.done: set[int] = set()

    def needed_by(self, index: int) -> list[str]:
        """Sources to run before the cell at `index`, in order."""
        order: list[int] = []
        self._collect(_names(self.cells[index].source)[1], index, order)
        return [self.cells[place].source for place in sorted(order)]

    def _collect(self, wanted: set[str], below: int, order: list[int]) -> None:
        for name in wanted:
            # All cells above that bind the name: the last may build on the ones before it.
            for place, (bound, used) in self.lent.items():
                if place < below and name in bound and place not in self.done:
                    self.done.add(place)
                    self._collect(used, place, order)
                    order.append(place)


def _names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell binds at its top level, and those that it uses anywhere; nothing if it does not parse."""
    try:
        tree = ast.parse("\n".join(line for line in source.split("\n") if not line.lstrip().startswith(("%", "!"))))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(), set()
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(dir(builtins))
    return set(_bound(tree.body)), used


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            yield statement.name
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in statement.names)
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id
