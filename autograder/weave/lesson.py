"""Read a lesson (a MyST Markdown notebook) into cells that still know their lines."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.weave.errors import WeaveError
from autograder.weave.solutions import bound_name

MAGIC = re.compile(r"^\s*[%!]")


@dataclass(frozen=True)
class LessonCell:
    """One cell of a lesson: its kind ("code" or "markdown"), text, first line in the file, and metadata."""

    kind: str
    source: str
    line: int
    metadata: dict[str, Any] = field(default_factory=dict)


def read_lesson(path: Path) -> tuple[LessonCell, ...]:
    """The cells of the lesson at `path`, in order.

    Raises: WeaveError if the file is missing, cannot be read as MyST Markdown, or holds no code cell.
    """
    from jupytext.myst import MystMetadataParsingError, myst_to_notebook

    if not path.is_file():
        raise WeaveError(path, None, "there is no such lesson; write it, or take its name out of ASSIGNMENTS")
    text = path.read_text(encoding="utf-8")
    try:
        notebook = myst_to_notebook(text, add_source_map=True)
    except MystMetadataParsingError as error:
        raise WeaveError(path, None, f"not a MyST Markdown notebook: {error}") from error
    lines = text.splitlines()
    starts = notebook.metadata["source_map"]
    cells = tuple(
        LessonCell(cell.cell_type, cell.source, _first_line(lines, start), _plain(cell.metadata))
        for cell, start in zip(notebook.cells, starts, strict=True)
    )
    for cell in cells:
        if cell.kind not in ("code", "markdown"):
            raise WeaveError(
                path, cell.line, f"a lesson holds code and Markdown cells only, and this one is {cell.kind}"
            )
    if not any(cell.kind == "code" for cell in cells):
        raise WeaveError(path, None, "no ```{code-cell} was found; is it a MyST Markdown notebook?")
    return cells


def solution_names(cell: LessonCell, path: Path, stem: str) -> tuple[str, ...]:
    """The names that a solution cell poses, the exercise's own last; () for any other cell.

    A solution cell holds one statement, `from solutions.<stem> import <name>`, and nothing else. Names before the last
    are what the exercise's solution is made of: `from solutions.gpu import kernel, function`.
    Raises: WeaveError if a cell imports solutions in any other way, or is not Python.
    """
    if cell.kind != "code":
        return ()
    tree = _parse(cell, path)
    imports = [node for node in ast.walk(tree) if _imports_solutions(node)]
    if not imports:
        return ()
    wanted = f"a solution cell holds one line, `from solutions.{stem} import <name>`, and nothing else"
    statement = imports[0]
    line = cell.line + getattr(statement, "lineno", 1) - 1
    if len(tree.body) != 1 or tree.body[0] is not statement or not isinstance(statement, ast.ImportFrom):
        raise WeaveError(path, line, f"this cell imports solutions beside other code; {wanted}")
    if statement.module != f"solutions.{stem}":
        raise WeaveError(path, line, f"this cell imports from {statement.module}; {wanted}")
    names = tuple(alias.name for alias in statement.names)
    if "*" in names or any(alias.asname for alias in statement.names):
        raise WeaveError(path, line, f"this cell does not import each name as itself; {wanted}")
    if len(set(names)) < len(names):
        raise WeaveError(path, line, f"this cell imports a name twice; {wanted}")
    return names


def imported_names(cell: LessonCell, path: Path) -> set[str] | None:
    """The names that a cell of imports binds, or None for a cell that holds anything else.

    Between imports it may set what one of them reads: `os.environ.setdefault(...)`.
    """
    body = _parse(cell, path).body if cell.kind == "code" else []
    if not body or not all(isinstance(node, ast.Import | ast.ImportFrom) or _sets(node) for node in body):
        return None
    if any(_imports_solutions(node) for node in body):
        return None
    return {
        bound_name(alias)
        for node in body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def _parse(cell: LessonCell, path: Path) -> ast.Module:
    """The cell as Python, its magic lines blanked."""
    source = "\n".join("pass" if MAGIC.match(line) else line for line in cell.source.split("\n"))
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise WeaveError(
            path, cell.line + (error.lineno or 1) - 1, f"this cell is not Python: {error.msg}"
        ) from error


def _sets(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and ast.unparse(node).startswith("os.environ.setdefault(")


def _imports_solutions(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] == "solutions"
    return isinstance(node, ast.Import) and any(name.name.split(".")[0] == "solutions" for name in node.names)


def _first_line(lines: list[str], start: int) -> int:
    """The 1-based line of the first text at or after the 0-based `start`, cell options skipped."""
    line = start
    while line < len(lines) and (not lines[line].strip() or lines[line].startswith(":")):
        line += 1
    return min(line, len(lines) - 1) + 1


def _plain(metadata: Any) -> dict[str, Any]:
    return {str(key): value for key, value in metadata.items()}
