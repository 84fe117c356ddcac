"""One run of an exercise's checks on a student's object."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch

from autograder.case import CASES_PER_SEED
from autograder.checks import Check, Failure, Subject, Trial
from autograder.checks.deadline import OutOfTime, deadline
from autograder.checks.kernels import STRAY
from autograder.checks.objects import Remote
from autograder.exercises import AnyExercise, Exercise
from autograder.grading.child import Crashed, can_fork, in_child
from autograder.grading.naming import recognise
from autograder.grading.questions import examine_question
from autograder.grading.situated import OUT_OF_TIME, Situated
from autograder.kernels import device_note, quick_interpreter
from autograder.mistakes import Mistake
from autograder.verdict import Finding, Report, Verdict

__all__ = ["SECONDS_PER_CHECK", "examine"]

SECONDS_PER_CHECK = 10.0
PRINTED = 500
LONGEST_MESSAGE = 3000
SHARED = "wrong in certain situations"
OUTSIDE = "ended its process ({how}). Does a kernel read or write far outside its tensors? Is a mask missing?"


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Keep what student code prints and warns; none of it may reach the grade cell's own output."""
    printed = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            yield printed


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Cases are small: more threads gain nothing, and wait for each other where another process is busy. And one adds in
    the same order, and so to the same digits, on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def examine(
    exercise: AnyExercise, obj: Any, seed: int, case: int | None = None, *, patient: bool = False
) -> Report:
    """All verdicts on `obj`, or those of one case.

    patient: set no deadline, where the calls themselves have one. Raises: ValueError if the exercise has no such case.
    """
    if not isinstance(exercise, Exercise):
        return examine_question(exercise, obj, seed)
    if case is not None:
        exercise.case(case)  # an unknown case is the caller's mistake, not the student's
    if obj is None or obj is ...:
        return _unanswered(exercise, seed, "no answer yet: define it in the cell above and run that cell.")
    try:
        subject = exercise.subject(obj)
    except TypeError as error:
        return _unanswered(exercise, seed, str(error))
    if exercise.kernels and not isinstance(obj, Remote) and can_fork():
        try:
            return in_child(lambda: _examined(exercise, subject, seed, case, patient))
        except Crashed as crashed:
            return _unanswered(exercise, seed, OUTSIDE.format(how=crashed), mistake=STRAY)
    return _examined(exercise, subject, seed, case, patient)


def _examined(exercise: Exercise, subject: Subject, seed: int, case: int | None, patient: bool) -> Report:
    with _quiet() as printed, _one_thread(), quick_interpreter():
        run = _Run(exercise, subject, seed, case, None if patient else SECONDS_PER_CHECK)
        verdicts = run.counted()
        findings = run.findings(verdicts)
    text = printed.getvalue()
    clipped = text if len(text) <= PRINTED else text[:PRINTED] + " ... (cut)"
    notes = (device_note(),) if exercise.kernels else ()
    return Report(exercise.name, seed, verdicts, findings, printed=clipped, notes=notes)


def _unanswered(exercise: Exercise, seed: int, message: str, mistake: str | None = None) -> Report:
    """A report without points: the first check says why, the others were not looked at."""
    verdicts = [
        Verdict(
            c.name,
            c.claim,
            "errored" if place == 0 else "skipped",
            0.0,
            c.points,
            message if place == 0 else "",
            mistake=mistake if place == 0 else None,
        )
        for place, c in enumerate(exercise.every_check)
    ]
    return Report(exercise.name, seed, tuple(verdicts), _own_findings(verdicts[:1]))


class _Run:
    """One run of an exercise's checks: trials are made once and shared by the checks."""

    def __init__(
        self, exercise: Exercise, subject: Subject, seed: int, case: int | None, seconds: float | None
    ):
        self.exercise, self.subject, self.seed, self.case = exercise, subject, seed, case
        self.seconds = seconds
        self.places = {recipe.label: place for place, recipe in enumerate(exercise.recipes)}
        self.trials: dict[str, Trial] = {}
        self.passed: dict[str, bool] = {}
        self.hopeless = ""
        self.known: dict[int, tuple[tuple[Mistake, ...], frozenset[int]]] = {}
        space = exercise.situations
        self.situated = None if space is None else Situated(exercise, space, subject, seed, case, seconds)
        self.groups = () if space is None else tuple(group.name for group in space.groups)

    def number(self, label: str) -> int:
        return self.seed * CASES_PER_SEED + self.places[label]

    def trial(self, label: str) -> Trial:
        if label not in self.trials:
            case = self.exercise.case(self.number(label))
            self.trials[label] = Trial(self.exercise.target, self.subject, case)
        return self.trials[label]

    def verdicts(self) -> Iterator[Verdict]:
        for one in self.exercise.every_check:
            labels = [label for label in one.cases if self.case in (None, self.number(label))]
            group = self.situated is not None and one.name in self.groups and bool(self.situated.numbers)
            if not labels and not group:
                continue
            if self.hopeless:
                verdict = Verdict(one.name, one.claim, "skipped", 0.0, one.points, self.hopeless)
            elif missing := [name for name in one.prerequisites if not self.passed.get(name, True)]:
                verdict = (self._partly(one) if group else None) or Verdict(
                    one.name,
                    one.claim,
                    "skipped",
                    0.0,
                    one.points,
                    f'is looked at once "{missing[0]}" passes.',
                )
            else:
                verdict = self._grouped(one) if group else self._verdict(one, labels)
            self.passed[one.name] = verdict.status == "passed"
            yield verdict

    def counted(self) -> tuple[Verdict, ...]:
        """All verdicts; while a binding check fails, what passed after the first check does not count."""
        verdicts = tuple(self.verdicts())
        failed = {verdict.check for verdict in verdicts if verdict.status == "failed"}
        broken = [one.name for one in self.exercise.every_check if one.binding and one.name in failed]
        if not broken:
            return verdicts
        reason = f'counts once "{broken[0]}" passes.'
        return verdicts[:1] + tuple(
            replace(verdict, status="skipped", points=0.0, message=reason)
            if verdict.status == "passed"
            else verdict
            for verdict in verdicts[1:]
        )

    def _verdict(self, one: Check, labels: list[str]) -> Verdict:
        for label in labels:
            try:
                with deadline(self.seconds):
                    one.probe(self.trial(label))
            except Failure as failure:
                if "not written yet" in failure.message and not any(self.passed.values()):
                    self.hopeless = "is looked at once the code is written."
                return self._no(one, self.number(label), failure)
            except OutOfTime:
                self.hopeless = "is not looked at, because an earlier check ran out of time."
                return self._no(
                    one, self.number(label), Failure(OUT_OF_TIME, mistake="never finishes", errored=True)
                )
            except Exception as error:  # noqa: BLE001  a check stumbled over what the student's code returned
                message = f"the result could not be used: {type(error).__name__}: {str(error)[:300]}"
                return self._no(one, self.number(label), Failure(message, errored=True))
        return Verdict(one.name, one.claim, "passed", one.points, one.points)

    def _grouped(self, one: Check) -> Verdict:
        """The verdict on a group of situations."""
        situated = cast("Situated", self.situated)
        blame = situated.blame(one.name)
        if blame is None:
            return Verdict(one.name, one.claim, "passed", one.points, one.points)
        number, failure = blame.number, blame.failure
        if "not written yet" in failure.message and not any(self.passed.values()):
            self.hopeless = "is looked at once the code is written."
        elif situated.late:
            self.hopeless = "is not looked at, because an earlier check ran out of time or memory."
        return self._no(one, number, failure)

    def _partly(self, one: Check) -> Verdict | None:
        """Half the points of a group that is right but for the one mistake of the formula; None if it is not."""
        situated, (named, _) = cast("Situated", self.situated), self.recognised
        if len(named) != 1 or not situated.right_but_for(named[0], one.name):
            return None
        points = math.floor(2 * one.points) / 4  # quarters
        return Verdict(
            one.name, one.claim, "passed", points, one.points, f"right but for one mistake: {named[0].name}."
        )

    @property
    def recognised(self) -> tuple[tuple[Mistake, ...], frozenset[int]]:
        """The mistakes of the formula that explain what is wrong in the cases tried so far, and the numbers of those."""
        tried = len(self.trials)
        if tried not in self.known:
            self.known[tried] = self._recognised()
        return self.known[tried]

    def _recognised(self) -> tuple[tuple[Mistake, ...], frozenset[int]]:
        labels = [label for label in self.places if self.case in (None, self.number(label))]
        try:
            with deadline(self.seconds):
                trials = [self.trial(label) for label in labels if label in self.trials]
                trials += self.situated.to_be_named() if self.situated is not None else []
                return recognise(self.exercise, trials)
        except OutOfTime:
            return (), frozenset()

    def _no(self, one: Check, number: int, failure: Failure) -> Verdict:
        shown = self.exercise.case(number)
        name = self.exercise.name
        return Verdict(
            check=one.name,
            claim=one.claim,
            status="errored" if failure.errored else "failed",
            points=0.0,
            max_points=one.points,
            message=f"{name}: {_cut(failure.message)}",
            case=f'Case: {shown}.\nRun it again: check("{name}", {name}, case={number}). '
            f'Have its tensors: inputs("{name}", {number})',
            case_number=number,
            mistake=failure.mistake,
        )

    def findings(self, verdicts: tuple[Verdict, ...]) -> tuple[Finding, ...]:
        """The recognised mistakes: those of the formula first, then those that a check knows by itself.

        A check that failed on a case which a mistake of the formula explains has nothing to add.
        """
        bad = [verdict for verdict in verdicts if verdict.status in ("failed", "errored")]
        if not bad or self.hopeless:
            return _own_findings(bad)
        mistakes, explained = self.recognised
        named = tuple(Finding(one.name, one.question) for one in mistakes)
        names = {finding.name for finding in named}
        rest = [verdict for verdict in bad if verdict.case_number not in explained]
        own = tuple(finding for finding in _own_findings(rest) if finding.name not in names)
        return named + own if named or own else self._diagnosed() + self._shared()

    def _diagnosed(self) -> tuple[Finding, ...]:
        """Where no mistake is known: what is not as it must be, whatever the formula."""
        if self.situated is None or not self.situated.failures:
            return ()
        try:
            with deadline(self.seconds):
                failure = self.situated.diagnosed()
        except OutOfTime:
            failure = None
        return (Finding(str(failure.mistake), f"{self.exercise.name}: {failure.message}"),) if failure else ()

    def _shared(self) -> tuple[Finding, ...]:
        """Where no mistake is known: what the failing situations share."""
        statement = self.situated.statement if self.situated is not None else ""
        return (Finding(SHARED, statement, heading="What goes wrong together:"),) if statement else ()


def _cut(message: str) -> str:
    """A message may quote what the student's code returned."""
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]} ... (cut)"


def _own_findings(bad: list[Verdict]) -> tuple[Finding, ...]:
    names = dict.fromkeys(verdict.mistake for verdict in bad if verdict.mistake)
    return tuple(
        Finding(name, next(verdict.message for verdict in bad if verdict.mistake == name)) for name in names
    )
