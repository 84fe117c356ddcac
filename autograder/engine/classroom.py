"""Grade a class: judges run the submissions, and this process alone writes gradebook, pages and rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
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
from autograder.engine.submissions import Submission, find_submissions

__all__ = ["Graded", "Plan", "grade_class"]

Runner = Callable[[list[Task]], Generator[Result, None, None]]


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

    def run(self, tasks: list[Task]) -> Generator[Result, None, None]:
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
    `plan.run`, to grade somewhere else.
    """
    plan = plan or Plan()
    submissions = find_submissions(root, notebooks)
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
        self.teachers: dict[str, NotebookNode] = {}

    def grade(self, submissions: list[Submission], run: Runner) -> Iterator[Graded]:
        """Enter what is known, then what the judges find."""
        tasks: list[Task] = []
        waiting: dict[int, tuple[Outcome, str]] = {}
        for number, submission in enumerate(submissions):
            outcome = prepare(submission, self._teacher(submission))
            key = key_of(outcome.notebook, self.plan.limit, self.plan.jail)
            stored = self.store.find(submission.student, submission.assignment, key)
            if stored is not None:
                known = replace(
                    outcome,
                    notebook=nbformat.reads(stored.notebook, 4),
                    problem=stored.problem,
                    seed=stored.seed,
                )
                yield self._enter(known, key, fresh=False)
            elif not outcome.ran:
                yield self._finish(outcome, key)
            else:
                seed = self.store.seed_for(submission.student, submission.assignment, key)
                text = nbformat.writes(outcome.notebook)
                tasks.append(Task(number, text, self.plan.limit, seed, "" if self.plan.jail else UNSAFE))
                waiting[number] = outcome, key
        with closing(run(tasks)) as results:  # however this ends, the judges end with it
            for result in results:
                outcome, key = waiting.pop(result.key)
                notebook = nbformat.reads(result.notebook, 4)
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

    def _teacher(self, submission: Submission) -> NotebookNode:
        """The released notebook, read once for each assignment."""
        if submission.assignment not in self.teachers:
            path = self.root / "release" / submission.assignment / submission.path.name
            self.teachers[submission.assignment] = nbformat.read(path, 4)
        return self.teachers[submission.assignment]

    def _finish(self, outcome: Outcome, key: str) -> Graded:
        """File a fresh result, and enter it. What broke in the grader is told, and neither filed nor entered."""
        if outcome.failure:
            rows = tuple(rows_of(outcome, None))
            return Graded(outcome.submission, rows, None, f"not graded: {outcome.failure}")
        settle_all(outcome.notebook)
        submission = outcome.submission
        text = nbformat.writes(outcome.notebook)
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
        notices = [outcome.problem if outcome.ran else f"This submission was not run: {outcome.problem}."]
        text = page(
            one.assignment,
            one.student,
            outcome.notebook,
            entry,
            outcome.seed,
            notices if outcome.problem else [],
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
        source = self.root / "source" / one.assignment / one.path.name
        shown = (
            with_rubrics(outcome.notebook, nbformat.read(source, 4)) if source.is_file() else outcome.notebook
        )
        write_whole(
            self.root / "autograded" / one.student / one.assignment / one.path.name, nbformat.writes(shown)
        )
