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

from autograder.engine.judge import judge
from autograder.engine.nursery import Nursery, NurseryError
from autograder.engine.places import course_directory
from autograder.engine.sandbox import Sandbox
from autograder.engine.store import Store, Stored, digest

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
        key = digest(nbformat.writes(nb), repr(sandbox.limit()), str(sandbox.jail))
        if store is not None and (stored := store.find(student, assignment, key)) is not None:
            return nbformat.reads(stored.notebook, as_version=4), resources
        seed = store.seed_for(student, assignment, key) if store is not None else None
        try:
            with _lock:
                found = judge(nb, _nursery(sandbox.jail), sandbox.limit(), seed, "" if sandbox.jail else UNSAFE)
        except NurseryError as error:
            _forget_nursery()
            raise NbGraderException(f"{student}/{assignment} was not graded: {error}") from error
        if store is not None:
            text = nbformat.writes(nb)
            store.keep(student, assignment, Stored(key, text, found.seed, found.problem, True))
        return nb, resources


_lock = threading.Lock()
_nurseries: dict[bool, Nursery] = {}


def _nursery(jail: bool) -> Nursery:
    """The process's zygote, started when it is first needed."""
    if jail not in _nurseries:
        _nurseries[jail] = Nursery(jail)
    return _nurseries[jail]


@atexit.register
def _forget_nursery() -> None:
    while _nurseries:
        _nurseries.popitem()[1].close()
