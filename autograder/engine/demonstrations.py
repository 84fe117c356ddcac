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
    return used | _added_to(tree), bound


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _added_to(tree: ast.AST) -> set[str]:
    """The global names that augmented assignments (`n += 1`) read: symtable counts them as assigned only.

    In a function these are the names that it declares global. A class body looks up among the globals what it lacks.
    """
    found: set[str] = set()
    waiting: list[tuple[ast.AST, frozenset[str] | None]] = [(tree, None)]  # None: every name is global here
    while waiting:
        node, declared = waiting.pop()
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found |= {node.target.id} if declared is None or node.target.id in declared else set()
        if isinstance(node, FUNCTIONS):
            declared = _globals_of(node)
        elif isinstance(node, ast.ClassDef):
            declared = None
        waiting += ((child, declared) for child in ast.iter_child_nodes(node))
    return found


def _globals_of(scope: ast.AST) -> frozenset[str]:
    """The names that a function declares global for itself, not for those within it."""
    names: list[str] = []
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Global):
            names += node.names
        elif not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)
    return frozenset(names)


def _used(table: symtable.SymbolTable) -> set[str]:
    """The names that a scope and those within it look up among the globals."""
    top = table.get_type() == "module"
    used = {
        each.get_name() for each in table.get_symbols() if each.is_referenced() and (top or each.is_global())
    }
    return used.union(*(_used(child) for child in table.get_children()))
