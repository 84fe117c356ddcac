"""Grade a class: run every submission, write one gradebook, pages and rows."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from autograder.engine.converters import save
from autograder.engine.kernel import stop_all
from autograder.engine.outcome import Outcome, run_submission
from autograder.engine.results import Row, rows_of, write_csv
from autograder.engine.submissions import Submission, find_submissions

DATABASE = "gradebook.db"


@dataclass(frozen=True)
class Graded:
    """One submission's rows, and its feedback page if nbgrader wrote one."""

    submission: Submission
    rows: tuple[Row, ...]
    page: Path | None
    problem: str = ""


def grade_class(
    root: Path,
    notebooks: Mapping[str, str],
    config: Config,
    timeout: int = 30,
    kernels: int | None = None,
    on_graded: Callable[[Graded, int, int], None] | None = None,
) -> list[Graded]:
    """Grade `root`/submitted and write gradebook.db, autograded/, feedback/ and grades.csv beside it.

    `root` must already hold source/ and release/, registered in its gradebook; `notebooks` maps assignments
    to notebook names. Several kernels run at once, and this thread alone writes the gradebook. `on_graded`
    hears of each submission as it is done: its result, how many are done, and how many there are.
    """
    submissions = find_submissions(root, notebooks)
    config.Execute.timeout = timeout
    course_id = str(config.CourseDirectory.course_id)
    config.pop("CourseDirectory", None)  # here the folder is `root`
    directory = CourseDirectory(root=str(root), db_url=f"sqlite:///{root / DATABASE}", course_id=course_id)
    done: list[Graded] = []
    for outcome in _run_all(submissions, root, timeout, kernels or default_kernels()):
        refused = save(outcome, directory, config)
        done.append(_graded(outcome, refused, directory, root))
        if on_graded:
            on_graded(done[-1], len(done), len(submissions))
    order = {submission: index for index, submission in enumerate(submissions)}
    done.sort(key=lambda graded: order[graded.submission])
    write_csv((row for graded in done for row in graded.rows), root / "grades.csv")
    return done


def default_kernels() -> int:
    """One kernel per core, at most eight: each holds its own copy of PyTorch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores))


def _run_all(submissions: list[Submission], root: Path, timeout: int, kernels: int) -> Iterator[Outcome]:
    """Outcomes as they come. An interrupt drops what has not begun and kills what has."""
    pool = ThreadPoolExecutor(kernels, thread_name_prefix="attn-kernel")
    try:
        waiting: list[Future[Outcome]] = [
            pool.submit(run_submission, one, root / "release" / one.assignment / one.path.name, timeout)
            for one in submissions
        ]
        for future in as_completed(waiting):
            yield future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        stop_all()
        raise
    finally:
        pool.shutdown(wait=True)


def _graded(outcome: Outcome, refused: str, directory: CourseDirectory, root: Path) -> Graded:
    submission = outcome.submission
    rows = tuple(rows_of(outcome, directory.db_url, directory.course_id, refused))
    page = root / "feedback" / submission.student / submission.assignment / f"{submission.path.stem}.html"
    return Graded(submission, rows, page if page.is_file() else None, outcome.problem or refused)
