"""Judges at work on what nbgrader will come to next, while it converts one submission after the other."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import closing

from autograder.engine.nursery import NurseryError
from autograder.engine.pool import Result, Task, run_all

__all__ = ["Ahead"]


class Ahead:
    """Runs tasks in the background, in order; `take` hands out their results."""

    def __init__(self, tasks: Mapping[str, Task], jail: bool):
        self.results: dict[str, Future[Result]] = {name: Future() for name in tasks}
        self.keys = {task.key: name for name, task in tasks.items()}
        self.over = threading.Event()
        thread = threading.Thread(target=self._work, args=(list(tasks.values()), jail), daemon=True)
        thread.start()
        atexit.register(self._end, thread)

    def take(self, name: str) -> Result | None:
        """The result of a task, waited for; None if this task was not among them, or has been taken.

        Raises: NurseryError if this machine cannot run the engine.
        """
        future = self.results.pop(name, None)
        return future.result() if future is not None else None

    def _work(self, tasks: list[Task], jail: bool) -> None:
        waiting = dict(self.results)
        try:
            with closing(run_all(tasks, None, jail)) as results:
                for result in results:
                    waiting.pop(self.keys[result.key]).set_result(result)
                    if self.over.is_set():
                        return
        except BaseException as error:  # noqa: BLE001  whoever waits is told
            for future in waiting.values():
                future.set_exception(NurseryError(str(error)))

    def _end(self, thread: threading.Thread) -> None:
        """nbgrader has left: so may the judges, once they are done with what they have in hand."""
        self.over.set()
        thread.join()
