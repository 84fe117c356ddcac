"""Grade a class: judges run the submissions, and this process alone writes gradebook, pages and rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import MissingEntry
from traitlets.config import Config

from autograder.engine.execute import UNSAFE
from autograder.engine.ledger import Ledger, gradebook_url
from autograder.engine.nursery import Limit
from autograder.engine.outcome import Outcome, prepare
from autograder.engine.pages import page
from autograder.engine.pool import Result, Task, run_all
from autograder.engine.results import Row, rows_of, write_csv
from autograder.engine.rubric import with_rubrics
from autograder.engine.settle import settle_all
from autograder.engine.store import Store, Stored, key_of, write_whole
from autograder.engine.submissions import Submission, work_to_grade
from autograder.engine.text import from_text, to_text

__all__ = ["Graded", "Plan", "grade_class"]

Runner = Callable[[Iterable[Task]], Generator[Result, None, None]]


@dataclass(frozen=True)
class Graded:
    """One submission's rows, its feedback page, and what befell it as a whole ("" if nothing)."""

    submission: Submission
    rows: tuple[Row, ...]
    page: Path | None
    problem: str = ""
    fresh: bool = True


@dataclass(frozen=True)
class Plan:
    """How a class is to be graded. workers None: one for each core. jail False: without isolation, and said so."""

    limit: Limit = field(default_factory=Limit)
    workers: int | None = None
    jail: bool = True

    def run(self, tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """Results of the tasks, in whatever order, from judges on this machine."""
        return run_all(tasks, self.workers, self.jail)


def grade_class(
    root: Path,
    notebooks: Mapping[str, str],
    config: Config,
    plan: Plan | None = None,
    on_graded: Callable[[Graded, int, int], None] | None = None,
    run: Runner | None = None,
) -> list[Graded]:
    """Grade `root`/submitted and write gradebook.db, autograded/, feedback/ and grades.csv beside it.

    `root` must already hold source/ and release/, registered in its gradebook; `notebooks` maps assignments to
    notebook names. What has been graded before and has not changed is not graded again. `on_graded` hears of each
    submission as it is done: its result, how many are done, and how many there are. `run` takes the place of
    `plan.run`, to grade somewhere else. Raises: GradingError if nobody handed in any of these assignments.
    """
    plan = plan or Plan()
    submissions = work_to_grade(root, notebooks)
    done: list[Graded] = []
    with closing(
        Ledger(gradebook_url(config, root), str(config.CourseDirectory.course_id), config)
    ) as ledger:
        desk = _Desk(root, Store(root), ledger, plan)
        for graded in desk.grade(submissions, run or plan.run):
            done.append(graded)
            if on_graded:
                on_graded(graded, len(done), len(submissions))
    order = {submission: index for index, submission in enumerate(submissions)}
    done.sort(key=lambda graded: order[graded.submission])
    write_csv((row for graded in done for row in graded.rows), root / "grades.csv")
    return done


class _Desk:
    """Where results are entered, one after the other."""

    def __init__(self, root: Path, store: Store, ledger: Ledger, plan: Plan):
        self.root, self.store, self.ledger, self.plan = root, store, ledger, plan
        self.teachers: dict[Path, NotebookNode | None] = {}

    def grade(self, submissions: list[Submission], run: Runner) -> Iterator[Graded]:
        """Enter what is known, and what the judges find, as it comes."""
        known: deque[Graded] = deque()
        waiting: dict[int, tuple[Outcome, str]] = {}
        tasks = self._tasks(submissions, known, waiting)
        with closing(run(tasks)) as results:  # however this ends, the judges end with it
            for result in results:
                yield from _drained(known)
                outcome, key = waiting.pop(result.key)
                notebook = from_text(result.notebook)
                yield self._finish(
                    replace(
                        outcome,
                        notebook=notebook,
                        problem=result.problem,
                        seed=result.seed,
                        failure=result.failure,
                    ),
                    key,
                )
        yield from _drained(known)

    def _tasks(
        self,
        submissions: list[Submission],
        known: deque[Graded],
        waiting: dict[int, tuple[Outcome, str]],
    ) -> Iterator[Task]:
        """What is to be run, and so is `waiting`. What was graded before or cannot be run is entered on the way: `known`."""
        for number, submission in enumerate(submissions):
            outcome = prepare(submission, self._teacher(submission))
            key = key_of(outcome.notebook, self.plan.limit, self.plan.jail)
            stored = self.store.find(submission.student, submission.assignment, key)
            if stored is not None:
                notebook = from_text(stored.notebook)
                outcome = replace(outcome, notebook=notebook, problem=stored.problem, seed=stored.seed)
                known.append(self._enter(outcome, key, fresh=False))
            elif not outcome.ran:
                known.append(self._finish(outcome, key))
            else:
                seed = self.store.seed_for(submission.student, submission.assignment)
                waiting[number] = outcome, key
                note = "" if self.plan.jail else UNSAFE
                yield Task(number, to_text(outcome.notebook), self.plan.limit, seed, note)

    def _teacher(self, submission: Submission) -> NotebookNode:
        """The released notebook."""
        released = self._read("release", submission)
        if released is None:
            raise FileNotFoundError(
                f"{self.root / 'release' / submission.assignment}: has not been generated"
            )
        return released

    def _read(self, room: str, submission: Submission) -> NotebookNode | None:
        """The teacher's notebook in `room` for this assignment, read once; None where there is none."""
        path = self.root / room / submission.assignment / submission.path.name
        if path not in self.teachers:
            self.teachers[path] = nbformat.read(path, 4) if path.is_file() else None
        return self.teachers[path]

    def _finish(self, outcome: Outcome, key: str) -> Graded:
        """File a fresh result, and enter it. What broke in the grader is told, and neither filed nor entered."""
        if outcome.failure:
            rows = tuple(rows_of(outcome, None))
            return Graded(outcome.submission, rows, None, f"not graded: {outcome.failure}")
        settle_all(outcome.notebook)
        submission = outcome.submission
        text = to_text(outcome.notebook)
        self.store.keep(
            submission.student,
            submission.assignment,
            Stored(key, text, outcome.seed, outcome.problem, outcome.ran),
        )
        return self._enter(outcome, key, fresh=True)

    def _enter(self, outcome: Outcome, key: str, fresh: bool) -> Graded:
        """Enter a result where the gradebook does not hold it yet; write its copy and its page."""
        one = outcome.submission
        if self.store.entered(one.student, one.assignment) != key or not self._in_gradebook(one):
            self.ledger.enter(one.student, one.assignment, one.path.stem, outcome.notebook, one.path.parent)
            self._write_copy(outcome)
            self.store.enter(one.student, one.assignment, key)
        entry = self.ledger.read(one.student, one.assignment, one.path.stem)
        notice = outcome.problem if outcome.ran else f"This submission was not run: {outcome.problem}."
        notices = [notice] if outcome.problem else []
        text = page(
            one.assignment, one.student, outcome.notebook, entry, outcome.seed, notices, ran=outcome.ran
        )
        path = self.root / "feedback" / one.student / one.assignment / f"{one.path.stem}.html"
        write_whole(path, text)
        return Graded(one, tuple(rows_of(outcome, entry)), path, outcome.problem, fresh)

    def _in_gradebook(self, one: Submission) -> bool:
        try:
            self.ledger.read(one.student, one.assignment, one.path.stem)
        except MissingEntry:
            return False
        return True

    def _write_copy(self, outcome: Outcome) -> None:
        """The autograded copy that the formgrader shows, with the rubrics for the person who grades."""
        one = outcome.submission
        source = self._read("source", one)
        shown = outcome.notebook if source is None else with_rubrics(outcome.notebook, source)
        write_whole(self.root / "autograded" / one.student / one.assignment / one.path.name, to_text(shown))


def _drained(known: deque[Graded]) -> Iterator[Graded]:
    while known:
        yield known.popleft()
