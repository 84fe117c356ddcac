"""`attn grade`: a class, graded."""

import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.cli.errors import require_gpu_for_students, require_isolation, require_torch

if TYPE_CHECKING:
    from autograder.engine.classroom import Graded
    from autograder.engine.pool import Result, Task

CONFIG = "nbgrader_config.py"
Run = Callable[[Iterable["Task"], bool], Generator["Result", None, None]]
"""How tasks are run: with or without a jail."""


@dataclass(frozen=True)
class Options:
    """How to grade. workers None: one for each core; cell_seconds None: what nbgrader_config.py says; gpu: kernels must
    run on one."""

    workers: int | None = None
    sandbox: bool = True
    scheduler: str | None = None
    cell_seconds: float | None = None
    gpu: bool = False


def run_grade(folder: Path, options: Options, root: Path | None) -> int:
    """Grade DIR and print the table. Broken submissions are in it with a reason; they change no exit code."""
    from rich.console import Console

    from autograder.cli.table import summary, tables

    if options.gpu:
        require_gpu_for_students(sandbox=options.sandbox, scheduler=options.scheduler)
        os.environ["TRITON_INTERPRET"] = "0"  # for the judges and workers that come from this process
    place, graded = grade_folder(folder, options, root)
    console = Console(markup=False)
    for table in tables(graded):
        console.print(table)
    console.print(summary(place, graded), highlight=False, soft_wrap=True)
    return 0


def grade_folder(folder: Path, options: Options, root: Path | None = None) -> tuple[Path, list["Graded"]]:
    """Set up DIR (source/, release/, gradebook.db, nbgrader's settings) and grade what was handed in."""
    from autograder.engine.pool import Crew
    from autograder.engine.submissions import class_folder

    place = class_folder(folder)
    if options.scheduler is not None:
        from autograder.engine.cluster import run_on_cluster

        on_cluster = partial(run_on_cluster, address=options.scheduler)
        return place, _grade(place, options, root, lambda tasks, jail: on_cluster(tasks, jail=jail))
    with Crew(
        options.workers
    ) as crew:  # it imports torch while this process imports nbgrader, and torch as well
        require_torch()

        def run(tasks: Iterable["Task"], jail: bool) -> Generator["Result", None, None]:
            crew.jail = jail
            return crew.run(tasks)

        return place, _grade(place, options, root, run)


def _grade(place: Path, options: Options, root: Path | None, run: Run) -> list["Graded"]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from autograder.engine.classroom import Plan, grade_class
    from autograder.engine.ledger import gradebook_url
    from autograder.engine.sandbox import Sandbox
    from autograder.engine.store import Store, write_whole
    from autograder.engine.submissions import unknown_folders, work_to_grade
    from autograder.weave import find_course, generate, settings

    course = find_course(root)
    notebooks = {course.assignment_id(stem): f"{stem}.ipynb" for stem in course.stems}
    used = {submission.assignment for submission in work_to_grade(place, notebooks)}
    errors = Console(stderr=True, markup=False)
    for path in unknown_folders(place, notebooks):
        errors.print(
            f"{path}: is no assignment of this course, and is not graded; expected {', '.join(notebooks)}",
            highlight=False,
            soft_wrap=True,
        )
    config = settings(course.root)
    if options.cell_seconds is not None:
        config.Sandbox.cell_seconds = options.cell_seconds
    sandbox = Sandbox(config=config)
    plan = Plan(sandbox.limit(), options.workers, options.sandbox and sandbox.jail)
    if options.scheduler is None:
        require_isolation(plan.jail)
    stems = [stem for stem in course.stems if course.assignment_id(stem) in used]
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Store(place).alone(), Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("grading", total=None)
        generate(course, place, stems, gradebook_url(config, place))
        (place / "exchange").mkdir(exist_ok=True)  # the formgrader asks for it
        if not (place / CONFIG).exists():
            write_whole(place / CONFIG, (course.root / CONFIG).read_text(encoding="utf-8"))

        def show(graded: "Graded", done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, description=graded.submission.student)
            points = sum(row.score or 0.0 for row in graded.rows)
            progress.console.print(
                f"{graded.submission.student}/{graded.submission.assignment}: {points:g}",
                highlight=False,
            )

        return grade_class(place, notebooks, config, plan, show, lambda tasks: run(tasks, plan.jail))
