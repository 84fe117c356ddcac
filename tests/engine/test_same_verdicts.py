"""A jailed solution gets, check by check, the verdicts that it gets here: right writings and mutants of every exercise."""

from __future__ import annotations

import ast
import linecache
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from autograder.engine.dialogue import Worker
from autograder.engine.nursery import Limit, Nursery
from autograder.engine.proxies import resolve
from autograder.exercises import ASSIGNMENTS, Exercise, find, in_assignment
from autograder.grading import examine
from autograder.verdict import Report
from tests.engine.scenes import JAIL
from tests.exercises import catalogue

SEED = 41
OURS = ("autograder", "solutions", "pytest", "__future__")
STUBS = """
def right(*_, **__):
    def keep(obj):  # what a function makes has no name of its own
        globals().setdefault(obj.__name__, obj)
        return obj
    return keep

mutant, OTHERWISE = right, set()
"""
MUTANTS_EACH, OF_KERNELS = 5, 2
RANDOM = "another result at every call"
"""Mutants of that name give other numbers there, and no two reports are alike."""
CODED = [one for stem in ASSIGNMENTS for one in in_assignment(stem) if isinstance(one, Exercise)]

for stem in ASSIGNMENTS:
    catalogue.load(stem)


@cache
def text_of(module: str) -> str:
    """A module of the catalogue as a student's notebook could hold it: nothing of this project in it."""
    tree = ast.parse(Path(str(sys.modules[module].__file__)).read_text(encoding="utf-8"))
    parts = [STUBS]
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tests.exercises."):
            if node.module != catalogue.__name__:
                parts.append(text_of(str(node.module)))
                parts += [f"{one.asname} = {one.name}" for one in node.names if one.asname]
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("solutions."):
            parts.append(Path(str(sys.modules[str(node.module)].__file__)).read_text(encoding="utf-8"))
        elif not isinstance(node, ast.ImportFrom) or not str(node.module).startswith(OURS):
            parts.append(ast.unparse(node))
    return "\n".join(parts)


@cache
def names_in(module: str) -> dict[str, Any]:
    """What that text defines; nothing if it needs more than itself."""
    names: dict[str, Any] = {"__name__": "__main__"}
    text, place = text_of(module), f"<{module}>"
    linecache.cache[place] = (len(text), None, text.splitlines(True), place)  # kernels are read, not only run
    try:
        exec(compile(text, place, "exec"), names)
    except (NameError, ImportError):
        return {}
    return names


def chosen() -> list[tuple[str, Any]]:
    """A right writing and a few mutants of each exercise, spread over its catalogue."""
    found: list[tuple[str, Any]] = []
    for exercise in CODED:
        right, wrong = (
            [
                one.obj
                for one in kind
                if one.exercise == exercise.name and usable(one.obj) and getattr(one, "named", "") != RANDOM
            ]
            for kind in (catalogue.RIGHT, catalogue.MUTANTS)
        )
        few = OF_KERNELS if exercise.kernels else MUTANTS_EACH
        step = max(1, len(wrong) // few)
        found += [(exercise.name, obj) for obj in (*right[:1], *wrong[::step][:few])]
    return found


def usable(obj: Any) -> bool:
    return getattr(obj, "__name__", "") in names_in(obj.__module__)


CHOSEN = chosen()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(jail=JAIL) as nursery:
        yield nursery


@pytest.fixture
def worker(nursery: Nursery) -> Iterator[Worker]:
    worker = nursery.worker(Limit())
    yield worker
    worker.close()


def told(report: Report) -> list[tuple[str, str, float, str, str | None]]:
    """All verdicts; of kernels without their numbers, since a wrong one may read memory that differs from run to run, and of
    draws without what was drawn: where a call is made twice, one generator serves both there."""
    numbers = NUMBER if find(report.exercise).kernels else DRAWN
    return [(v.check, v.status, v.points, numbers.sub("#", v.message), v.mistake) for v in report.verdicts]


DRAWN = re.compile(r"token \d+ was drawn (\d+ times|in [\d.]+% of)")
NUMBER = re.compile(r"-?(\d[\d.e+-]*|nan|inf)")


def test_every_exercise_is_among_them_with_mutants() -> None:
    for exercise in CODED:
        assert sum(name == exercise.name for name, _ in CHOSEN) > OF_KERNELS, exercise.name


@pytest.mark.parametrize(("name", "obj"), CHOSEN, ids=[f"{name}-{obj.__name__}" for name, obj in CHOSEN])
def test_a_solution_gets_the_same_verdicts_in_the_jail(worker: Worker, name: str, obj: Any) -> None:
    own = obj.__name__
    assert worker.ask("run", source=text_of(obj.__module__))["error"] is None
    wanted = examine(find(name), names_in(obj.__module__)[own], SEED, patient=True)
    found = examine(find(name), resolve(worker, own), SEED, patient=True)
    assert told(found) == told(wanted)
    assert found.mistakes == wanted.mistakes
