"""The engine as a step of `nbgrader autograde`, in the place of nbgrader's Execute."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.converters import NbGraderException
from nbgrader.preprocessors import NbGraderPreprocessor

from autograder.engine.ahead import Ahead
from autograder.engine.nursery import NurseryError
from autograder.engine.outcome import prepare
from autograder.engine.places import course_directory, released_notebook
from autograder.engine.pool import Standby, Task
from autograder.engine.sandbox import Sandbox
from autograder.engine.settle import settle_all
from autograder.engine.store import Store, Stored, key_of
from autograder.engine.submissions import Submission, find_submissions
from autograder.engine.text import from_text, to_text

__all__ = ["UNSAFE", "RunInJail"]

UNSAFE = "Graded without a sandbox: this submission could read and write whatever its grader can."


class RunInJail(NbGraderPreprocessor):  # type: ignore[misc]
    """Runs the rebuilt notebook through the engine, or takes the outputs of an earlier run of the same text.

    Where nbgrader has more submissions to come to, judges begin with those at once.
    """

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Outputs for every cell that runs. Raises: NbGraderException if this machine cannot run the engine."""
        sandbox, directory = Sandbox(config=self.config), course_directory(self)
        student, assignment = resources["nbgrader"]["student"], resources["nbgrader"]["assignment"]
        store = Store(Path(directory.root)) if directory is not None else None
        task, key = _task(nb, student, assignment, sandbox, store)
        if store is not None and (stored := store.find(student, assignment, key)) is not None:
            return from_text(stored.notebook), resources
        try:
            with _lock:
                found = self._ahead(sandbox, resources).take(f"{student} {key}")
                if found is None:
                    found = _standby(sandbox.jail).grade(task)
        except NurseryError as error:
            raise NbGraderException(f"{student}/{assignment} was not graded: {error}") from error
        if found.failure:
            raise NbGraderException(f"{student}/{assignment} was not graded: {found.failure}")
        graded = from_text(found.notebook)
        settle_all(graded)
        if store is not None:
            store.keep(student, assignment, Stored(key, to_text(graded), found.seed, found.problem, True))
        return graded, resources

    def _ahead(self, sandbox: Sandbox, resources: Any) -> Ahead:
        """The judges that work ahead on this assignment; with nothing to do where nbgrader was asked for one student."""
        directory, path = course_directory(self), released_notebook(self, resources)
        assignment = resources["nbgrader"]["assignment"]
        place = (str(directory.root) if directory is not None else "", assignment)
        if place not in _aheads:
            tasks: dict[str, Task] = {}
            if directory is not None and path is not None and directory.student_id == EVERYBODY:
                root, released = Path(directory.root), nbformat.read(path, as_version=4)
                store = Store(root)
                for number, submission in enumerate(_to_come(root, resources["nbgrader"], path.name)):
                    outcome = prepare(submission, released)
                    task, key = _task(outcome.notebook, submission.student, assignment, sandbox, store)
                    if outcome.ran and store.find(submission.student, assignment, key) is None:
                        tasks[f"{submission.student} {key}"] = replace(task, key=number)
            _aheads[place] = Ahead(tasks, sandbox.jail)
        return _aheads[place]


def _to_come(root: Path, now: Mapping[str, str], name: str) -> list[Submission]:
    """The submission that nbgrader is at, and those that it has not converted yet.

    One that was converted before and handed in again is run when its turn comes.
    """
    return [
        one
        for one in find_submissions(root, {now["assignment"]: name})
        if one.student == now["student"] or not (root / "autograded" / one.student / one.assignment).exists()
    ]


def _task(
    notebook: NotebookNode, student: str, assignment: str, sandbox: Sandbox, store: Store | None
) -> tuple[Task, str]:
    """What is to be run for a rebuilt notebook, and the hash that its result is filed under."""
    key = key_of(notebook, sandbox.limit(), sandbox.jail)
    seed = store.seed_for(student, assignment) if store is not None else None
    return Task(0, to_text(notebook), sandbox.limit(), seed, "" if sandbox.jail else UNSAFE), key


EVERYBODY = "*"
_lock = threading.Lock()
_standbys: dict[bool, Standby] = {}
_aheads: dict[tuple[str, str], Ahead] = {}


def _standby(jail: bool) -> Standby:
    """This process's zygote."""
    if jail not in _standbys:
        _standbys[jail] = Standby(jail)
        atexit.register(_standbys[jail].close)
    return _standbys[jail]
