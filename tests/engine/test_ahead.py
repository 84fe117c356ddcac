"""Judges that work ahead of nbgrader: what they find is handed out by name, and what they cannot do is told."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from autograder.engine import ahead as ahead_module
from autograder.engine.ahead import Ahead
from autograder.engine.execute import _to_come
from autograder.engine.nursery import Limit, NurseryError
from autograder.engine.pool import Result, Task

NAME = "basic_attention.ipynb"


def tasks(*names: str) -> dict[str, Task]:
    return {name: Task(number, name, Limit()) for number, name in enumerate(names)}


def test_each_result_is_handed_out_once_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def run(coming: Iterable[Task], workers: int | None, jail: bool) -> Iterator[Result]:
        for task in reversed(list(coming)):
            yield Result(task.key, task.notebook.upper())
            assert gate.wait(30)

    monkeypatch.setattr(ahead_module, "run_all", run)
    ahead = Ahead(tasks("a", "b"), jail=False)
    last = ahead.take("b")
    assert last is not None
    assert last.notebook == "B"
    assert ahead.take("b") is None
    assert ahead.take("unknown") is None
    gate.set()
    first = ahead.take("a")
    assert first is not None
    assert first.notebook == "A"


def test_who_waits_is_told_that_the_engine_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(coming: Iterable[Task], workers: int | None, jail: bool) -> Iterator[Result]:
        yield Result(0, "fine")
        raise NurseryError("no jail here")

    monkeypatch.setattr(ahead_module, "run_all", run)
    ahead = Ahead(tasks("a", "b"), jail=True)
    assert ahead.take("a") == Result(0, "fine")
    with pytest.raises(NurseryError, match="no jail here"):
        ahead.take("b")


def test_nothing_is_begun_when_nbgrader_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    first = threading.Event()

    def run(coming: Iterable[Task], workers: int | None, jail: bool) -> Iterator[Result]:
        for task in coming:
            begun.append(task.key)
            first.set()
            assert left.wait(30)
            yield Result(task.key, "")

    left = threading.Event()
    monkeypatch.setattr(ahead_module, "run_all", run)
    ahead = Ahead(tasks("a", "b", "c"), jail=False)
    assert first.wait(30)
    ahead.over.set()
    left.set()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.name.startswith("Thread"):
            thread.join(30)
    assert begun == [0]


def test_what_has_been_converted_before_is_not_run_ahead(tmp_path: Path) -> None:
    for student in ("ann", "ben", "cem"):
        (tmp_path / "submitted" / student / "01_a").mkdir(parents=True)
    for student in ("ann", "ben"):  # nbgrader makes the folder of the one that it begins with
        (tmp_path / "autograded" / student / "01_a").mkdir(parents=True)
    found = _to_come(tmp_path, {"assignment": "01_a", "student": "ben"}, NAME)
    assert [one.student for one in found] == ["ben", "cem"]
