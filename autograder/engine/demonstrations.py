"""Leave out what need not run: the lesson's demonstrations, where no answer uses what they define.

Pictures and measurements take most of a notebook's time, and the student has seen them. A demonstration runs
if the student changed it, or if a cell that runs uses a name that it binds.
"""

import ast
import symtable
from collections.abc import Iterable

from nbformat import NotebookNode

SKIP = "skip-execution"  # nbclient passes over cells with this tag


def skip_idle(cells: list[NotebookNode], demonstrations: Iterable[str]) -> None:
    """Tag the code cells that are one of `demonstrations`, word for word, and bind no name that is used."""
    texts = set(demonstrations)
    code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    names = [_names(cell) for cell in code]
    idle = {n for n, cell in enumerate(code) if "nbgrader" not in cell.metadata and cell.source in texts}
    needed: set[str] = set().union(*(used for n, (used, _) in enumerate(names) if n not in idle))
    while woken := {n for n in idle if names[n][1] is None or needed & (names[n][1] or set())}:
        idle -= woken
        needed = needed.union(*(names[n][0] for n in woken))
    for n in idle:
        code[n].metadata["tags"] = [SKIP]


def _names(cell: NotebookNode) -> tuple[set[str], set[str] | None]:
    """The global names that a cell uses, and those that it binds: None if it is not plain Python."""
    try:
        tree = ast.parse(cell.source)
        table = symtable.symtable(cell.source, cell.id, "exec")
        used = _used(table)
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # the last two: nested beyond what Python parses
        return set(), None
    bound = {
        symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()
    }
    added_to = {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
    }
    return used | added_to, bound


def _used(table: symtable.SymbolTable) -> set[str]:
    """The names that a scope and those within it look up among the globals."""
    top = table.get_type() == "module"
    used = {
        each.get_name() for each in table.get_symbols() if each.is_referenced() and (top or each.is_global())
    }
    return used.union(*(_used(child) for child in table.get_children()))
