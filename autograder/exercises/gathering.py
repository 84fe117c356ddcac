"""The exercises of an assignment: all that its modules define, in the order in which its lesson sets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from autograder.exercises.exercise import Choice, Exercise, Number

__all__ = ["gathered", "order"]

LESSONS = Path(__file__).parents[2] / "course" / "lessons"
KINDS = (Exercise, Choice, Number)


def gathered(package: str) -> tuple[Exercise | Choice | Number, ...]:
    """The exercises and questions that the modules of `package` define, alone or in tuples.

    What the lesson does not set comes last. Raises: ValueError if two have the same name.
    """
    stem = package.rpartition(".")[2]
    found: dict[str, Exercise | Choice | Number] = {}
    for module in _modules(import_module(package)):
        for one in _defined(module):
            if one.assignment == stem and found.setdefault(one.name, one) is not one:
                raise ValueError(f"{module.__name__}: there are two exercises called {one.name!r}")
    places = {name: place for place, name in enumerate(order(LESSONS / f"{stem}.md"))}
    return tuple(sorted(found.values(), key=lambda one: places.get(one.name, len(places))))


def order(lesson: Path) -> tuple[str, ...]:
    """The names that a lesson's solution cells import, in order; none where the lesson is not at hand."""
    if not lesson.is_file():
        return ()
    lines = re.findall(
        rf"^from solutions\.{lesson.stem} import (.+)$", lesson.read_text(encoding="utf-8"), re.MULTILINE
    )
    return tuple(line.split(",")[-1].split(" as ")[0].strip() for line in lines)


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for one in iter_modules(package.__path__):
        yield import_module(f"{package.__name__}.{one.name}")


def _defined(module: ModuleType) -> Iterator[Any]:
    for value in vars(module).values():
        if isinstance(value, KINDS):
            yield value
        elif isinstance(value, tuple):
            yield from (one for one in value if isinstance(one, KINDS))
