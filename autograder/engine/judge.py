"""The judge: runs a rebuilt notebook, the student's cells in a jailed worker and the grade cells here, on proxies."""

from __future__ import annotations

import ast
import builtins
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output

from autograder.checks.deadline import OutOfTime
from autograder.engine.demonstrations import SKIP
from autograder.engine.dialogue import Stopped, Worker
from autograder.engine.nursery import Limit, Nursery, NurseryError
from autograder.engine.plain import plain
from autograder.engine.proxies import resolve
from autograder.exercises import Exercise, find
from autograder.grading import Failures, showing
from autograder.kernels import cross_compiling
from autograder.verdict import MIME_TYPE, Report

__all__ = ["Judgement", "compile_there", "judge"]

STOPPED = "Stopped"
LONGEST_ANSWER = 1 << 20
"""Characters of what a compiler says."""


@dataclass(frozen=True)
class Judgement:
    """How a submission fared: the seed that was drawn for it, and why the run ended early ("" if it did not)."""

    seed: int
    problem: str = ""


def judge(
    notebook: NotebookNode, nursery: Nursery, limit: Limit, seed: int | None = None, note: str = ""
) -> Judgement:
    """Run `notebook` and write outputs into its cells.

    notebook: as `rebuild` made it, its grade cells the teacher's; cells tagged as idle demonstrations are passed over.
    seed: of a run to be replayed; None draws one. note: a line that every report ends with.
    Raises: NurseryError if this machine cannot run a worker; nothing is written then.
    """
    seed = secrets.randbelow(2**31) if seed is None else seed
    if nursery.jail:
        os.environ["TRITON_INTERPRET"] = "1"  # as there: reports are to say where kernels ran
    worker, room = nursery.worker(limit), limit.output
    problem = ""
    ran: list[NotebookNode] = []
    failures = Failures()
    try:
        for cell in notebook.cells:
            if cell.cell_type != "code" or SKIP in cell.metadata.get("tags", ()):
                continue
            if is_grade_cell(cell):
                cell.outputs, kernels = _grade(cell, worker, seed, note, failures)
                if kernels and worker.crashed:  # a kernel has no memory protection: the other exercises go on
                    worker = _again(worker, ran)
            else:
                cell.outputs = _student(cell, worker, room)
                room -= sum(len(str(output)) for output in cell.outputs)
                ran.append(cell)
            if worker.lost:
                raise NurseryError(worker.lost)
            if worker.gone and not problem:
                problem = f"{worker.gone}, in the cell that begins with: {_first_line(cell)}"
    finally:
        worker.close()
    return Judgement(seed, problem)


def is_grade_cell(cell: NotebookNode) -> bool:
    """True for an autograded cell: code, worth points, and not the student's."""
    given = cell.metadata.get("nbgrader", {})
    return cell.cell_type == "code" and bool(given.get("grade")) and not given.get("solution")


def _first_line(cell: NotebookNode) -> str:
    return plain(next((line.strip() for line in cell.source.split("\n") if line.strip()), ""), 60)


def _student(cell: NotebookNode, worker: Worker, room: int) -> list[NotebookNode]:
    """Run a cell of the student's in the worker: its outputs, of about `room` bytes at most, and its error."""
    try:
        answer = worker.ask("run", source=cell.source, seconds=worker.limit.cell)
    except Stopped as stopped:
        return [_error(STOPPED, str(stopped))]
    outputs = list(_outputs(answer.get("outputs"), room))
    for error in (answer.get("error"), answer.get("raised")):
        if isinstance(error, dict):
            name, message = _text(error.get("name"), 80), _text(error.get("message"), 2000)
            if name == "OutOfTime":
                name, message = "CellTimeoutError", f"the cell was stopped after {worker.limit.cell:g} s"
            outputs.append(_error(name, message, _text(error.get("traceback"))))
    return outputs


def _outputs(given: Any, room: int) -> Iterator[NotebookNode]:
    """A worker's outputs as notebook outputs: text, or pictures; nothing that a browser would run."""
    for output in given[:60] if isinstance(given, list) else []:
        kind, text = (output.get("kind"), output.get("text")) if isinstance(output, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(text, str):
            continue
        room -= len(text)
        if room < 0:
            yield new_output(
                "stream",
                name="stdout",
                text="(the outputs of this submission are too large: the rest is left out)\n",
            )
            return
        if kind == "png" and len(text) <= LONGEST_PICTURE and set(text) <= BASE64:
            yield new_output("display_data", {"image/png": text, "text/plain": "<picture>"})
        elif kind in ("stream", "text"):
            yield new_output("stream", name="stdout", text=_text(text) + ("\n" if kind == "text" else ""))


BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n")
LONGEST_PICTURE = 1 << 20


def _text(value: Any, most: int = 20_000) -> str:
    return plain(value, most) if isinstance(value, str) else ""


def _error(name: str, message: str, traceback: str = "") -> NotebookNode:
    return new_output("error", ename=name, evalue=message, traceback=[traceback or f"{name}: {message}"])


def _again(worker: Worker, ran: list[NotebookNode]) -> Worker:
    """Another worker in place of one that is gone, in which the student's cells have been run again. Its time goes on."""
    fresh = worker.nursery.worker(worker.limit)
    fresh.until = worker.until
    for cell in ran:
        _student(cell, fresh, 0)
    return fresh


def _grade(
    cell: NotebookNode, worker: Worker, seed: int, note: str, failures: Failures
) -> tuple[list[NotebookNode], bool]:
    """Run a grade cell here, with the student's names as proxies: its report, and its last value as the points.

    With it goes whether the exercise is one on kernels.
    """
    reports: list[Report] = []
    notes = (note,) if note else ()
    names = _Names(worker)
    try:
        with (
            showing(
                lambda report: reports.append(replace(report, notes=report.notes + notes)), seed, failures
            ),
            cross_compiling(partial(compile_there, worker)),
        ):
            value = _evaluate(cell.source, names)
    except Stopped as stopped:
        return [_error(STOPPED, str(stopped))], False
    except (Exception, OutOfTime) as error:  # noqa: BLE001  a name is missing, or the grade cell itself is at fault
        return [*map(_shown, reports), _error(type(error).__name__, _text(str(error), 2000))], False
    finally:
        worker.retire()
    outputs = [_shown(report) for report in reports]
    if isinstance(value, float):
        outputs.append(new_output("execute_result", {"text/plain": repr(value)}, execution_count=None))
    exercises = [find(report.exercise) for report in reports]
    return outputs, any(isinstance(one, Exercise) and one.kernels for one in exercises)


def compile_there(worker: Worker, program: str, asked: str) -> str:
    """Run a compiler's program in a jail of its own, which no student code has seen: its output, "" if it failed."""
    compiler = worker.nursery.worker(worker.limit)
    try:
        answer = compiler.ask("compile", worker.limit.cell, program=program, asked=asked)
    except Stopped:
        return ""
    finally:
        compiler.close()
    return _text(answer.get("answer"), LONGEST_ANSWER)


def _shown(report: Report) -> NotebookNode:
    data = {"text/plain": str(report), "text/html": report._repr_html_(), MIME_TYPE: report.to_dict()}
    return new_output("display_data", data)


class _Names(dict[str, Any]):
    """The names of a grade cell: those it binds itself, and the student's, looked up in the worker when used."""

    def __init__(self, worker: Worker):
        super().__init__(__builtins__=builtins)
        self.worker = worker

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)  # Python looks there next
        self[name] = resolve(self.worker, name)
        return self[name]


def _evaluate(source: str, names: _Names) -> Any:
    """Execute a cell as a notebook does: the value of its last expression, or None."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    run: Callable[..., Any] = exec
    run(compile(tree, "<grade cell>", "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "<grade cell>", "eval"), names)  # type: ignore[attr-defined]
