"""The engine as a step of `nbgrader autograde`, in the place of nbgrader's Execute."""

from __future__ import annotations

import atexit
import threading
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.converters import NbGraderException
from nbgrader.preprocessors import NbGraderPreprocessor

from autograder.engine.nursery import NurseryError
from autograder.engine.places import course_directory
from autograder.engine.pool import Standby, Task
from autograder.engine.sandbox import Sandbox
from autograder.engine.settle import settle_all
from autograder.engine.store import Store, Stored, key_of

__all__ = ["UNSAFE", "RunInJail"]

UNSAFE = "Graded without a sandbox: this submission could read and write whatever its grader can."


class RunInJail(NbGraderPreprocessor):  # type: ignore[misc]
    """Runs the rebuilt notebook through the engine, or takes the outputs of an earlier run of the same text."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Outputs for every cell that runs. Raises: NbGraderException if this machine cannot run the engine."""
        sandbox, directory = Sandbox(config=self.config), course_directory(self)
        names = resources["nbgrader"]
        student, assignment = names["student"], names["assignment"]
        store = Store(Path(directory.root)) if directory is not None else None
        key = key_of(nb, sandbox.limit(), sandbox.jail)
        if store is not None and (stored := store.find(student, assignment, key)) is not None:
            return nbformat.reads(stored.notebook, as_version=4), resources
        seed = store.seed_for(student, assignment, key) if store is not None else None
        task = Task(0, nbformat.writes(nb), sandbox.limit(), seed, "" if sandbox.jail else UNSAFE)
        try:
            with _lock:
                found = _standby(sandbox.jail).grade(task)
        except NurseryError as error:
            raise NbGraderException(f"{student}/{assignment} was not graded: {error}") from error
        graded = nbformat.reads(found.notebook, as_version=4)
        settle_all(graded)
        if store is not None:
            store.keep(
                student, assignment, Stored(key, nbformat.writes(graded), found.seed, found.problem, True)
            )
        return graded, resources


_lock = threading.Lock()
_standbys: dict[bool, Standby] = {}


def _standby(jail: bool) -> Standby:
    """This process's zygote."""
    if jail not in _standbys:
        _standbys[jail] = Standby(jail)
        atexit.register(_standbys[jail].close)
    return _standbys[jail]
