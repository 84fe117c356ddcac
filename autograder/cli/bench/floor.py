"""The floor under grading: a warm process that forks, and runs the same cells and checks directly.

No jail, no second process, no gradebook, no page: what any grader of these notebooks has to pay at least.

    python -m autograder.cli.bench.floor FOLDER      prints the seconds for each rebuilt notebook in it
    python -m autograder.cli.bench.floor --engine FOLDER      the same, through one judge and its jailed workers
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["main"]

SEED = 7


def _floor() -> Callable[[str], None]:
    import autograder.engine.warm  # noqa: F401  (as a judge is)
    from autograder.engine.worker.zygote import preload

    preload()
    gc.collect()
    gc.freeze()

    def grade(text: str) -> None:
        child = os.fork()
        if child == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what students print is not our result
                _run(text)
            except BaseException:  # noqa: BLE001  a child must not go on as its parent
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("the floor could not grade a notebook")

    return grade


def _run(text: str) -> None:
    """The cells of a rebuilt notebook, one after the other, in one namespace."""
    import torch

    from autograder.engine.demonstrations import SKIP
    from autograder.engine.text import from_text
    from autograder.grading import showing

    torch.set_num_threads(1)
    names: dict[str, Any] = {"__name__": "__main__"}
    execute: Callable[..., Any] = exec
    for cell in from_text(text).cells:
        if cell.cell_type != "code" or SKIP in cell.metadata.get("tags", ()):
            continue
        with (
            showing(_shown, SEED),
            contextlib.suppress(Exception),
        ):  # a student's mistake costs time, and no more
            execute(compile(cell.source, "<cell>", "exec"), names)


def _shown(report: Any) -> None:
    str(report), report._repr_html_(), report.to_dict()


def _engine() -> Callable[[str], None]:
    import autograder.engine.warm  # noqa: F401
    from autograder.engine.nursery import Limit, Nursery
    from autograder.engine.pool import Task, grade_task

    nursery = Nursery()
    nursery.wait_until_ready()

    def grade(text: str) -> None:
        grade_task(Task(0, text, Limit(), SEED), nursery)

    return grade


def main(arguments: list[str]) -> None:
    """Print one line of seconds for each notebook, in the order of their names, after one that is not counted."""
    *options, folder = arguments
    grade = _engine() if options == ["--engine"] else _floor()
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(folder).glob("*.ipynb"))]
    grade(texts[0])
    for text in texts:
        start = time.perf_counter()
        grade(text)
        print(f"{time.perf_counter() - start:.6f}", flush=True)  # noqa: T201  (its output is its result)


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # what is frozen cannot be taken apart at the end; Triton would complain about it
