"""The public face: `check`, `grade`, `hint` and `inputs`."""

from __future__ import annotations

import contextlib
import operator
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from autograder.case import CASES_PER_SEED, Layer
from autograder.exercises import Exercise, find
from autograder.grading.follow import Failures
from autograder.grading.run import examine
from autograder.trees import mapped
from autograder.verdict import MIME_TYPE, Report

__all__ = ["check", "grade", "hint", "inputs", "show", "showing"]

PRACTICE_SEEDS, GRADING_SEEDS = 10_000, 2**31

_failures = Failures()


def check(name: str, obj: Any, *, case: int | None = None, seed: int | None = None) -> Report:
    """Check a student's object and say what is right, what is wrong, and what the mistake probably is.

    name: the exercise. obj: the student's function, class, letter or number. case: run one case again, by the number
    that a report printed. seed: repeat a whole run; without it each run draws fresh numbers.
    Raises: ValueError if there is no such exercise or case.
    """
    exercise = find(name)
    case, seed = _whole("case", case), _whole("seed", seed)
    if case is not None and not isinstance(exercise, Exercise):
        raise ValueError(f"case={case}: {exercise.name} is a question and has no cases. Leave case out.")
    if case is not None and seed is not None and case // CASES_PER_SEED != seed:
        raise ValueError(
            f"case={case} belongs to seed {case // CASES_PER_SEED}, not to seed={seed}. Give one of the two."
        )
    if case is not None:
        seed = case // CASES_PER_SEED
    if seed is None:
        seed = _fresh_seed()
    report = examine(exercise, obj, seed, case)
    return _failures.noted(report, obj, whole=case is None)


def _whole(what: str, value: Any) -> int | None:
    """A case or seed as an int. Raises: ValueError if it is neither a whole number from 0 nor None."""
    try:
        number = None if value is None else operator.index(value)
    except TypeError:
        number = -1
    if number is not None and (number < 0 or isinstance(value, bool)):
        raise ValueError(f"{what}={value!r}: a {what} is a whole number from 0, as a report prints it.")
    return number


def grade(name: str, obj: Any, *, seed: int | None = None) -> float:
    """Check a student's object, show the report, and return the points earned: a finite float, at most the maximum.

    Nothing is written to stderr, and nothing that the student's object returns is shown: nbgrader would give full
    marks for the one and none for the other.
    """
    stage = _stage.get()
    if seed is None:
        seed = _fresh_seed() if stage is None else stage.seed
    report = examine(find(name), obj, int(seed), patient=stage is not None)
    report = (_failures if stage is None else stage.failures).noted(report, obj)
    (show if stage is None else stage.show)(report)
    return round(float(report.points), 6)


def inputs(name: str, case: int) -> dict[str, Any]:
    """The arguments of one case, to look at what a report says of it.

    name: the exercise. case: the number that a report printed. For a function the arguments by name:
    `attention(**inputs("attention", 481200))` makes the call. For a class those of forward, and under "init" those of the
    constructor; its weights are drawn by the checks.
    Raises: ValueError if there is no such exercise or case, or the exercise is a question.
    """
    exercise = find(name)
    if not isinstance(exercise, Exercise):
        raise ValueError(f"{name} is a question: it has no cases.")
    drawn = exercise.case(case)
    given = {**drawn.inputs, "init": dict(drawn.init)} if drawn.init else dict(drawn.inputs)
    made: dict[str, Any] = mapped(given, lambda one: one.build() if isinstance(one, Layer) else one)
    return made


def _fresh_seed() -> int:
    """A short one for practice, so that case numbers are short; one that nobody guesses where nbgrader grades."""
    return secrets.randbelow(GRADING_SEEDS if os.environ.get("NBGRADER_EXECUTION") else PRACTICE_SEEDS)


@dataclass(frozen=True)
class _Stage:
    """Where a grading run wants its reports, the seed that it has drawn for the submission, and what failed there."""

    show: Callable[[Report], object]
    seed: int
    failures: Failures


_stage: ContextVar[_Stage | None] = ContextVar("_stage", default=None)


@contextlib.contextmanager
def showing(show: Callable[[Report], object], seed: int, failures: Failures | None = None) -> Iterator[None]:
    """Within the block `grade` hands its reports to `show`, and uses `seed` where its caller gives none.

    It sets no deadlines there: the calls into another process have their own. failures: what failed in the same notebook
    before.
    """
    token = _stage.set(_Stage(show, seed, failures or Failures()))
    try:
        yield
    finally:
        _stage.reset(token)


def show(report: Report) -> None:
    """Show a report: as HTML, text and JSON inside a notebook, as text elsewhere."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or not hasattr(shell, "kernel"):
        sys.stdout.write(f"{report}\n")
        return
    bundle = {"text/plain": str(report), "text/html": report._repr_html_(), MIME_TYPE: report.to_dict()}
    shell.display_pub.publish(bundle)


def hint(name: str) -> HintCard:
    """The three hints of an exercise, from a nudge to a near-answer, one a call and then again from the first.

    Raises: ValueError if there is no such exercise.
    """
    exercise = find(name)
    given, every = _hints_given.get(exercise.name, 0), len(exercise.hints)
    _hints_given[exercise.name] = given + 1
    again = (
        f"these were all {every} hints, so here is the first again. " if given and given % every == 0 else ""
    )
    step = given % every
    return HintCard(f"{exercise.name}, hint {step + 1} of {every}: {again}{exercise.hints[step]}")


_hints_given: dict[str, int] = {}


class HintCard(str):
    """A hint that shows itself without quotation marks."""

    def __repr__(self) -> str:
        return str(self)
