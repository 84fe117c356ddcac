"""Demonstrations are left out of a grading run, unless an answer rests on one."""

from __future__ import annotations

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from autograder.engine.demonstrations import SKIP, skip_idle
from autograder.weave.cells import solution_cell

DATA = "import torch\ntable = torch.zeros(3)"
DRAW = "def draw(query):\n    return table, query"
PICTURE = "draw(1)"
MAGIC = "%matplotlib inline"
DEMONSTRATIONS = [DATA, DRAW, PICTURE, MAGIC]


def run_of(*answers: str, demonstrations: list[str] | None = None) -> list[str]:
    """The demonstrations that run beside a student's `answers`."""
    cells = [new_code_cell(source) for source in demonstrations or DEMONSTRATIONS]
    cells += [solution_cell(f"f{index}", answer) for index, answer in enumerate(answers)]
    skip_idle(cells, DEMONSTRATIONS)
    return [
        cell.source
        for cell in cells
        if SKIP not in cell.metadata.get("tags", []) and cell.source not in answers
    ]


def test_demonstrations_that_nothing_uses_are_left_out() -> None:
    assert run_of("def f(x):\n    return x") == [MAGIC]


def test_an_argument_of_the_same_name_is_no_use() -> None:
    assert run_of("def f(table, draw):\n    return table + draw") == [MAGIC]


def test_a_demonstration_that_an_answer_uses_runs_with_all_that_it_rests_on() -> None:
    assert run_of("def f(x):\n    return draw(x)") == [DATA, DRAW, MAGIC]


def test_a_name_used_in_a_method_or_added_to_counts() -> None:
    assert run_of("class F:\n    def g(self):\n        return [table for _ in range(3)]") == [DATA, MAGIC]
    assert run_of("table += 1") == [DATA, MAGIC]


LOCAL = (
    "def f(x):\n    table = 0\n    table += x\n    return table",
    "def f(x):\n    for draw in x:\n        if draw:\n            draw += 1\n    return x",
    "class F:\n    def g(self, table):\n        table *= 2\n        return table",
    "x = " + "1+" * 900 + "1\ndef f(table):\n    table += 1",
    "async def f(table):\n    table += 1",
    "def f():\n    global other\n    other += 1\n    def g(table):\n        table += 1",
    "def f():\n    table = 0\n    def g():\n        nonlocal table\n        table += 1\n    return g",
)


@pytest.mark.parametrize("answer", LOCAL)
def test_a_local_name_that_is_added_to_is_no_use(answer: str) -> None:
    assert run_of(answer) == [MAGIC]


GLOBAL = (
    "def f(x):\n    global table\n    table += x",
    "def f(x):\n    if x:\n        global table\n    for _ in x:\n        table += x",
    "def f():\n    def g(x):\n        global table\n        table += x\n    return g",
    "class F:\n    table += 1",
    "if True:\n    for n in range(3):\n        table += n",
)


@pytest.mark.parametrize("answer", GLOBAL)
def test_a_global_name_that_is_added_to_is_a_use(answer: str) -> None:
    assert run_of(answer) == [DATA, MAGIC]


def test_a_changed_demonstration_runs() -> None:
    changed = PICTURE.replace("1", "2")
    assert run_of("f = 1", demonstrations=[DATA, DRAW, changed]) == [DATA, DRAW, changed]


def test_an_answer_that_is_not_python_keeps_nothing_awake() -> None:
    assert run_of("def f(:") == [MAGIC]


def test_prose_is_left_alone() -> None:
    cells = [new_markdown_cell(DATA)]
    skip_idle(cells, DEMONSTRATIONS)
    assert cells[0].metadata == {}
