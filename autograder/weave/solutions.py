"""Read reference solutions as text: nothing here imports or runs them.

A solution is shown to the student as its signature and docstring; nbgrader takes away what stands between
the two markers. So weaving a name means: copy its lines, and put the markers around what is to be solved.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from autograder.weave.errors import WeaveError

BEGIN = "### BEGIN SOLUTION"
END = "### END SOLUTION"

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class Solutions:
    """A solutions file: its lines, its imports, and its top-level definitions by name."""

    path: Path
    lines: tuple[str, ...]
    imports: tuple[ast.Import | ast.ImportFrom, ...]
    definitions: dict[str, Definition]

    def woven(self, name: str) -> str:
        """The text of `name`, its body between the solution markers."""
        node = self.definitions[name]
        if isinstance(node, ast.ClassDef):
            return self._woven_class(node)
        if isinstance(node, ast.FunctionDef):
            return "\n".join(self._woven_function(node))
        return "\n".join([BEGIN, *self._text(node.lineno, _end(node)), END])

    def given(self, name: str) -> str:
        """The text of `name` as it stands, with the comment above it: a setting that a student is handed."""
        node = self.definitions[name]
        first = _start(node)
        while first > 1 and self.lines[first - 2].startswith("#"):
            first -= 1
        return "\n".join(self._text(first, _end(node)))

    def is_setting(self, name: str) -> bool:
        """Whether `name` is a value, and neither a function nor a class."""
        return isinstance(self.definitions[name], ast.Assign | ast.AnnAssign)

    def names_used(self, name: str) -> set[str]:
        """Every name that the text of `name` mentions."""
        return {node.id for node in ast.walk(self.definitions[name]) if isinstance(node, ast.Name)}

    def setup(self, names: list[str], bound: set[str]) -> str:
        """The import lines that the solutions called `names` need beside the names already `bound`."""
        used: set[str] = set().union(*(self.names_used(name) for name in names)) - bound
        kept: list[str] = []
        plain: list[str] = []
        for node in self.imports:
            aliases = [alias for alias in node.names if bound_name(alias) in used]
            if not aliases:
                continue
            if isinstance(node, ast.Import):
                plain += [ast.unparse(ast.Import([alias])) for alias in aliases]
            else:
                kept.append(ast.unparse(ast.ImportFrom(node.module, aliases, node.level)))
        return "\n".join(plain + kept)

    def _woven_class(self, node: ast.ClassDef) -> str:
        body = node.body[1:] if _docstring_end(node) else node.body
        lines = self._text(_start(node), _start(body[0]) - 1 if body else _end(node))
        for index, method in enumerate(body):
            if not isinstance(method, ast.FunctionDef):
                raise WeaveError(
                    self.path, method.lineno, f"the class {node.name} may hold a docstring and methods only"
                )
            if index:
                lines += self._text(_end(body[index - 1]) + 1, _start(method) - 1)
            lines += self._woven_function(method)
        return "\n".join(lines)

    def _woven_function(self, node: ast.FunctionDef) -> list[str]:
        head_end = _docstring_end(node)
        body = node.body[1:] if head_end else node.body
        if body and _is_super_init(body[0]):
            head_end = _end(body[0])
            body = body[1:]
        if not body:
            return self._text(_start(node), _end(node))
        if not head_end:
            head_end = self._signature_end(node, body[0])
        indent = self.lines[body[0].lineno - 1][: body[0].col_offset]
        return [
            *self._text(_start(node), head_end),
            indent + BEGIN,
            *self._text(head_end + 1, _end(node)),
            indent + END,
        ]

    def _signature_end(self, node: ast.FunctionDef, first: ast.stmt) -> int:
        """The last line of the signature: comments above the first statement belong to the solution."""
        line = first.lineno - 1
        while line > node.lineno and (
            not self.lines[line - 1].strip() or self.lines[line - 1].lstrip().startswith("#")
        ):
            line -= 1
        if line < node.lineno or first.lineno == node.lineno:
            raise WeaveError(self.path, node.lineno, f"write the body of {node.name} on lines of its own")
        return line

    def _text(self, first: int, last: int) -> list[str]:
        return list(self.lines[first - 1 : last])


def read_solutions(path: Path) -> Solutions:
    """The solutions file at `path`, parsed and not run.

    Raises: WeaveError if it is missing, is not Python, or already holds a solution marker.
    """
    if not path.is_file():
        raise WeaveError(
            path, None, "there is no such solutions file; every lesson needs one of the same stem"
        )
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise WeaveError(path, error.lineno, f"not Python: {error.msg}") from error
    lines = tuple(text.splitlines())
    for number, line in enumerate(lines, start=1):
        if "BEGIN SOLUTION" in line or "END SOLUTION" in line:
            raise WeaveError(path, number, "holds a solution marker; weaving writes the markers, take it out")
    imports = tuple(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    definitions: dict[str, Definition] = {}
    for node in tree.body:
        name = _defined(node)
        if name and isinstance(node, Definition):
            if name in definitions:
                raise WeaveError(path, node.lineno, f"{name} is defined twice; keep one")
            definitions[name] = node
    return Solutions(path, lines, imports, definitions)


def _defined(node: ast.stmt) -> str | None:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        return node.target.id
    return None


def _docstring_end(node: ast.FunctionDef | ast.ClassDef) -> int:
    """The last line of the docstring, or 0 where there is none."""
    return _end(node.body[0]) if ast.get_docstring(node, clean=False) is not None else 0


def _is_super_init(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and ast.unparse(node).startswith("super().__init__(")


def _start(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def bound_name(alias: ast.alias) -> str:
    """The name that an import binds."""
    return alias.asname or alias.name.split(".")[0]
