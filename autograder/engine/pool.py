"""Judges in processes of their own, working through a class. Grading one submission is a pure function here.

A judge that dies, or whose zygote dies, is replaced, and its submission graded again: that is the machine's fault, and
never the student's. So is a worker that somebody kills, once; if the same submission is killed again, it is its own doing.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from autograder.engine.nursery import KILLED, Limit, Nursery, NurseryError
from autograder.engine.text import from_text, to_text

__all__ = ["TRIES", "Crew", "Result", "Standby", "Task", "default_workers", "grade_task", "run_all"]

TRIES = 6
"""A zygote takes seconds to start, in which it can be lost again; and a machine that cannot grade at all should say so."""

JUDGING = 120.0
"""Seconds that a judge may take for its own work, beyond what the limits give the submission."""


@dataclass(frozen=True)
class Task:
    """One submission to grade: the rebuilt notebook as JSON text, its limits, the seed of a run to
    replay, and a note for every report."""

    key: int
    notebook: str
    limit: Limit
    seed: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Result:
    """A graded submission: the notebook with outputs, the seed, why it ended early; or what broke in the grader."""

    key: int
    notebook: str
    seed: int = 0
    problem: str = ""
    failure: str = field(default="")


def default_workers() -> int:
    """One judge for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def grade_task(task: Task, nursery: Nursery) -> Result:
    """Grade one submission: its result depends on the task's notebook and the seed alone.

    Raises: NurseryError if this machine cannot run workers (any more); the submission has not been graded then.
    """
    from autograder.engine.judge import judge

    nursery.preload(task.notebook)
    for attempt in range(2):
        notebook = from_text(task.notebook)
        outcome = judge(notebook, nursery, task.limit, task.seed, task.note)
        if KILLED not in outcome.problem or attempt:
            break
    return Result(task.key, to_text(notebook), outcome.seed, outcome.problem)


class Standby:
    """A zygote that is started when it is first needed, and replaced when it is lost, for a judge in this process."""

    def __init__(self, jail: bool):
        self.jail = jail
        self.nursery: Nursery | None = None

    def grade(self, task: Task) -> Result:
        """`grade_task` with this zygote, or with a new one. Raises: NurseryError if that is lost time and again, too."""
        for attempt in range(TRIES):
            if self.nursery is None:
                self.nursery = Nursery(self.jail)
            try:
                return grade_task(task, self.nursery)
            except NurseryError:
                self.close()
                if attempt == TRIES - 1:
                    raise
        raise AssertionError("not reached")

    def close(self) -> None:
        """End the zygote, if there is one."""
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None


def _judge_process(connection: Any, control: socket.socket, jail: bool) -> None:
    """The life of a judge: a task in, a result out, until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us by hanging up
    with Nursery(jail, control) as nursery:
        while task := _next_task(connection):
            try:
                result = grade_task(task, nursery)
            except Exception as error:  # noqa: BLE001  the parent is told, and starts another judge
                reason = str(error) if isinstance(error, NurseryError) else f"{type(error).__name__}: {error}"
                result = Result(task.key, task.notebook, failure=reason)
            with contextlib.suppress(OSError):  # nobody listens: the next task will not come either
                connection.send(result)
            if result.failure:
                return


def _next_task(connection: Any) -> Task | None:
    """The next task, None once the parent has hung up."""
    try:
        task: Task = connection.recv()
    except (EOFError, OSError):
        return None
    return task


def _context() -> ForkServerContext:
    """Judges are forked from a clean process that has imported what they need; never from this one, which has threads."""
    return multiprocessing.get_context("forkserver")


class _Judge:
    """The parent's end of a judge."""

    def __init__(self, nursery: Nursery, jail: bool):
        context = _context()
        control = nursery.twin()
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_judge_process, args=(theirs, control, jail), daemon=True
        )
        self.process.start()
        theirs.close()
        control.close()
        self.task: Task | None = None
        self.due = math.inf

    def give(self, task: Task) -> bool:
        self.task, self.due = task, time.monotonic() + task.limit.submission + JUDGING
        try:
            self.connection.send(task)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.connection.close()
        if self.task is None:
            self.process.join(5)
        self.process.kill()  # what it is busy with is wanted no more
        self.process.join()


class Crew:
    """Judges, and the zygote that their zygotes come from. Use as a context manager.

    The zygote and the process that judges are forked from begin to import torch at once, in the background. Judges are
    made when there is something to grade.
    """

    def __init__(self, workers: int | None = None, jail: bool = True):
        self.workers, self.jail = workers or default_workers(), jail
        self.nursery = Nursery(jail)
        _context().set_forkserver_preload(["autograder.engine.warm"])
        multiprocessing.forkserver.ensure_running()
        self.judges: list[_Judge] = []

    def run(self, tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """Grade all tasks; results as they come, in whatever order.

        A task is taken from `tasks` shortly before a judge can begin with it. One that breaks its judge TRIES times
        comes back as a failure. Raises: nothing for what a submission does.
        """
        coming = iter(tasks)
        waiting = deque(islice(coming, 1))
        tries: dict[int, int] = {}
        for judge in self._idle_judges():
            if not waiting:
                break
            _feed(judge, waiting)
            waiting.extend(islice(coming, 1))
        while busy := [judge for judge in self.judges if judge.task]:
            for judge in _ready(busy):
                result, task = _take(judge)
                if result.failure:
                    tries[task.key] = tries.get(task.key, 0) + 1
                    if again := tries[task.key] < TRIES:
                        waiting.appendleft(task)
                    judge = self._replace(judge)
                _feed(judge, waiting)
                if not waiting:
                    waiting.extend(islice(coming, 1))
                if judge.task is None:
                    _feed(judge, waiting)
                if not result.failure or not again:
                    yield result

    def _idle_judges(self) -> Iterator[_Judge]:
        """As many judges as there are to be, each made when it is asked for."""
        for number in range(self.workers):
            if number == len(self.judges):
                self.judges.append(_Judge(self.nursery, self.jail))
            yield self.judges[number]

    def _replace(self, judge: _Judge) -> _Judge:
        """A new judge in the place of one that is no good any more; a new zygote, too, if that is gone."""
        judge.close()
        try:
            fresh = _Judge(self.nursery, self.jail)
        except NurseryError:
            self.nursery.close()
            self.nursery = Nursery(self.jail)
            fresh = _Judge(self.nursery, self.jail)
        self.judges[self.judges.index(judge)] = fresh
        return fresh

    def close(self) -> None:
        """End all that was started."""
        for judge in self.judges:
            judge.close()
        self.nursery.close()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def run_all(tasks: Iterable[Task], workers: int | None, jail: bool = True) -> Generator[Result, None, None]:
    """Grade all tasks with a crew of their own, if there are any."""
    coming = iter(tasks)
    for first in coming:
        with Crew(workers, jail) as crew:
            yield from crew.run(chain([first], coming))


def _ready(busy: list[_Judge]) -> list[_Judge]:
    """Those that have something to say, or have hung up: waited for. One that is overdue is made to hang up."""
    by_connection = {judge.connection: judge for judge in busy}
    while True:
        soonest = max(0.1, min(judge.due for judge in busy) - time.monotonic())
        if ready := multiprocessing.connection.wait(list(by_connection), soonest):
            return [by_connection[one] for one in ready]  # type: ignore[index]
        for judge in busy:
            if judge.due <= time.monotonic():
                judge.process.kill()


def _feed(judge: _Judge, waiting: deque[Task]) -> None:
    judge.task = None
    if waiting:
        judge.give(waiting.popleft())


def _take(judge: _Judge) -> tuple[Result, Task]:
    """What a judge has to say, and about which task."""
    task = judge.task
    if task is None:
        raise RuntimeError("a judge spoke without having been asked")
    try:
        result: Result = judge.connection.recv()
    except (EOFError, OSError):
        result = Result(task.key, task.notebook, failure="the process that graded it was killed")
    return result, task
