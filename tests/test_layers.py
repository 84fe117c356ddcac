"""Layers go one way: each part imports only what stands left of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    {"verdict", "trees", "uses"},
    {"kernels"},
    {"case", "observation"},
    {"circumstance", "remembered"},
    {"oracle"},
    {"mistakes"},
    {"checks", "parity"},
    {"situations", "mistakes"},
    {"exercises"},
    {"grading"},
    {"weave", "engine", "practice"},
    {"cli"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
SOURCES = sorted((ROOT / "autograder").rglob("*.py"))


def part(path: Path) -> str:
    """The part of `autograder` that a file belongs to; "" for the package itself."""
    first = path.relative_to(ROOT / "autograder").parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The modules that a file imports anywhere in it, dotted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def parts_of_autograder(modules: set[str]) -> set[str]:
    return {m.split(".")[1] for m in modules if m.startswith("autograder.") and m.split(".")[1] in RANK}


def test_every_part_has_a_layer() -> None:
    assert {part(path) for path in SOURCES} - {""} == set(RANK)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_part_imports_only_what_stands_left_of_it(path: Path) -> None:
    own = part(path)
    if own == "":
        return  # the public face hands out names of several layers
    for other in parts_of_autograder(imported(path)):
        assert other == own or RANK[other] < RANK[own], f"{path} imports autograder.{other}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_autograder_never_imports_a_solution(path: Path) -> None:
    assert not {m for m in imported(path) if m.split(".")[0] == "solutions"}


@pytest.mark.parametrize("path", sorted((ROOT / "solutions").glob("*.py")), ids=lambda path: path.name)
def test_a_solution_imports_torch_and_little_else(path: Path) -> None:
    allowed = {"__future__", "collections", "math", "os", "torch", "jaxtyping", "triton"}
    assert {m.split(".")[0] for m in imported(path)} <= allowed


def test_a_check_loads_neither_nbgrader_nor_jupyter() -> None:
    code = (
        "import sys, torch\n"
        "from autograder import check\n"
        "assert check('softmax', lambda scores, dim=-1: scores).points < 1\n"
        "heavy = {'nbgrader', 'jupyter_client', 'jupyterlab', 'nbformat', 'nbconvert', 'IPython', 'dask',\n"
        "         'distributed', 'matplotlib', 'typer', 'rich'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"
