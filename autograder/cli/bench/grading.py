"""`attn bench grading`: a class graded by this project's engine, through nbgrader with it, and by stock nbgrader."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from rich.console import Console
from rich.table import Table

from autograder.cli.bench.machine import machine
from autograder.cli.bench.made_class import MadeClass, make
from autograder.cli.bench.timing import JUDGE, ZYGOTE, Run, watch
from autograder.engine.rebuild import rebuild
from autograder.engine.store import write_whole
from autograder.engine.text import to_text

__all__ = ["GROWTH", "Measured", "run_bench_grading"]

GROWTH = (10, 40, 160, 640)
REPEATS = 2
"""Floor and engine are measured in turn so often, and the quicker time of each notebook counts."""


@dataclass
class Measured:
    """One benchmark. Seconds are wall clock; a class's are for the whole command, start-up and exit included."""

    stem: str
    students: int
    stock_students: int
    machine: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    first_graded: float = 0.0
    floor_per_submission: float = 0.0
    engine_per_submission: float = 0.0
    growth: list[dict[str, float]] = field(default_factory=list)

    def per_submission(self, who: str) -> float:
        """Seconds a submission, of the whole command."""
        return self.seconds[who] / (self.stock_students if who.startswith("stock") else self.students)

    def ratios(self) -> dict[str, float]:
        """The figures that the targets are about."""
        stock = self.per_submission("stock")
        return {
            "speedup_vs_nbgrader": stock / self.per_submission("attn"),
            "speedup_nbgrader_front": stock / self.per_submission("front"),
            "ratio_to_floor": self.engine_per_submission / self.floor_per_submission,
        }

    def to_dict(self) -> dict[str, Any]:
        """All figures, ratios included, for JSON."""
        return {**asdict(self), **self.ratios()}


def run_bench_grading(
    stem: str, students: int, stock: int | None, growth: bool, target: Path | None, picture: Path | None
) -> int:
    """Measure, print a table, and write JSON and a picture where asked."""
    console = Console(markup=False)
    measured = Measured(stem, students, min(stock or students, students), machine())
    with tempfile.TemporaryDirectory(prefix="attn-bench-") as scratch:
        for step in _steps(measured, Path(scratch), growth):
            console.print(step, highlight=False)
    console.print(_table(measured))
    if target is not None:
        write_whole(target, json.dumps(measured.to_dict(), indent=2) + "\n")
    if picture is not None:
        from autograder.cli.bench.picture import draw

        draw(measured.to_dict(), picture)
    return 0


def _steps(measured: Measured, scratch: Path, growth: bool) -> Iterable[str]:
    """Measure one thing after the other; a line about each."""
    made = make(scratch / "attn", measured.stem, measured.students, settings=None)
    run = _grade(made)
    measured.seconds["attn"], measured.first_graded = run.seconds, _graded_at(run)[0]
    yield f"attn grade: {run.seconds:.1f} s, the first submission after {measured.first_graded:.1f} s"

    folder = scratch / "rebuilt"
    _rebuild(made, folder)
    floor, engine = _floor_and_engine(folder)
    measured.floor_per_submission, measured.engine_per_submission = floor, engine
    yield f"a submission: floor {floor:.3f} s, engine {engine:.3f} s"

    made = make(scratch / "front", measured.stem, measured.students, settings="course")
    measured.seconds["front"] = _nbgrader("autograde", made).seconds
    yield f"nbgrader autograde, this course's settings: {measured.seconds['front']:.1f} s"

    made = make(scratch / "stock", measured.stem, measured.stock_students, settings="stock")
    measured.seconds["stock"] = _nbgrader("autograde", made).seconds
    yield f"stock nbgrader autograde, {measured.stock_students} submissions: {measured.seconds['stock']:.1f} s"
    measured.seconds["stock_feedback"] = _nbgrader("generate_feedback", made).seconds
    yield f"stock nbgrader generate_feedback: {measured.seconds['stock_feedback']:.1f} s"

    for students in GROWTH if growth else ():
        made = make(scratch / f"growth-{students}", measured.stem, students, settings=None)
        measured.growth.append(_growth(students, _grade(made, memory=True)))
        yield "growth: " + ", ".join(f"{name} {value:.4g}" for name, value in measured.growth[-1].items())


def _grade(made: MadeClass, memory: bool = False) -> Run:
    return watch(
        [sys.executable, "-m", "autograder.cli", "grade", str(made.place)], made.place, memory=memory
    )


def _nbgrader(command: str, made: MadeClass) -> Run:
    return watch([sys.executable, "-m", "nbgrader", command, made.assignment], made.place)


def _graded_at(run: Run) -> list[float]:
    """When each submission was done: `attn grade` prints a line for it."""
    return [second for second, text in run.lines if text.startswith("s") and "/" in text.split(":")[0]]


def _rebuild(made: MadeClass, folder: Path) -> None:
    """The notebooks as the judges get them."""
    folder.mkdir()
    released = nbformat.read(made.place / "release" / made.course.relative(made.stem), as_version=4)
    for path in made.notebooks:
        submitted = nbformat.read(path, as_version=4)
        name = path.parent.parent.name
        write_whole(folder / f"{name}.ipynb", to_text(rebuild(released, submitted)))


def _floor_and_engine(folder: Path) -> tuple[float, float]:
    """Mean seconds a submission of the floor and of one judge."""
    command = [sys.executable, "-m", "autograder.cli.bench.floor"]
    times: dict[bool, list[list[float]]] = {False: [], True: []}
    for _ in range(REPEATS):
        for engine, found in times.items():
            run = watch([*command, *(["--engine"] if engine else []), str(folder)], folder)
            found.append([float(text) for _, text in run.lines])
    floor, engine_ = (
        sum(map(min, zip(*found, strict=True))) / len(found[0]) for found in (times[False], times[True])
    )
    return floor, engine_


def _growth(students: int, run: Run) -> dict[str, float]:
    """Seconds a submission once grading has begun, and the memory of a judge and a zygote early and late, in MiB."""
    graded = _graded_at(run)
    found = {
        "students": float(students),
        "seconds": run.seconds,
        "seconds_per_submission": (graded[-1] - graded[0]) / (len(graded) - 1),
    }
    for kind in (JUDGE, ZYGOTE):
        during = [held for second, held in run.memory.get(kind, ()) if second >= graded[0]]
        quarter = max(1, len(during) // 4)
        for name, part in (("early", during[:quarter]), ("late", during[-quarter:])):
            found[f"{kind}_{name}_mib"] = max(part, default=0) / (1 << 20)
    return found


def _table(measured: Measured) -> Table:
    ratios = measured.ratios()
    table = Table(
        title=f"{measured.students} submissions of {measured.stem}, {measured.machine['cores']} cores"
    )
    for heading in ("graded by", "seconds", "a submission", "against stock"):
        table.add_column(heading, justify="left" if heading == "graded by" else "right")
    for who, name, ratio in (
        ("stock", "stock nbgrader autograde", "1"),
        (
            "front",
            "nbgrader autograde with this course's settings",
            f"{ratios['speedup_nbgrader_front']:.1f}",
        ),
        ("attn", "attn grade, feedback pages included", f"{ratios['speedup_vs_nbgrader']:.1f}"),
    ):
        table.add_row(name, f"{measured.seconds[who]:.1f}", f"{measured.per_submission(who):.3f}", ratio)
    table.caption = (
        f"a submission in one judge {measured.engine_per_submission:.3f} s, the floor {measured.floor_per_submission:.3f} s: "
        f"{ratios['ratio_to_floor']:.2f} times; first submission graded after {measured.first_graded:.1f} s"
    )
    return table
