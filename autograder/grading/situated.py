"""An exercise's situations in one run: each tried once, and from what fails and what passes the verdict on each group."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from autograder.case import CASES_PER_SEED, Case
from autograder.checks import Failure, Probe, Subject, Target, Trial
from autograder.checks.deadline import OutOfTime, deadline
from autograder.exercises import Exercise
from autograder.mistakes import Mistake
from autograder.observation import Observation
from autograder.oracle import Quantity, Rounder
from autograder.situations import Cause, Row, Situations, causes, hold, told

__all__ = ["OUT_OF_TIME", "Blame", "Situated"]

OUT_OF_TIME = "did not finish in time and was stopped. Is there a loop that never ends?"
NEVER_ENDS = "never finishes"
MOST_NAMED = 12
"""So many failing and so many right cases are looked at for a mistake's name."""
LONGEST = 10.0
"""Seconds after which code that is wrong in the ordinary situation is tried no further: other exercises need time, too."""
MOST_EXCUSED = 24
"""So many situations are looked at for what is right but for a mistake."""

HALF = (torch.float16, torch.bfloat16)
IMPRECISE = "less precise than its dtype"
CUT_OFF, WRONG_GRADIENT = "gradient is cut off", "wrong gradient"
STATE = ("keeps state between calls", "Is something remembered from an earlier call?")
NAMES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("axes", ""): ("fixed number of leading axes", "Are axes counted from the end, as in transpose(-2, -1)?"),
    ("state", "beside a second object"): ("objects share what they hold", "Does something belong to the class, not to self?"),
    ("state", ""): STATE,
    ("layout", "far apart in memory"): ("offsets in 32 bits", "Is one factor of row * stride turned into tl.int64?"),
    ("layout", ""): ("depends on the memory layout of its inputs", "Is there a view where reshape is meant?"),
    ("device", ""): ("makes a tensor on the CPU", "Is device=... left out?"),
    ("dropout", ""): ("dropout acts in eval mode", "Does dropout look at self.training, as nn.Dropout does?"),
    ("mode", ""): ("depends on train() or eval()", "Does anything but dropout ask for self.training?"),
    ("dtype", "float64"): (IMPRECISE, "Is a part computed in another dtype?"),
    ("default dtype", ""): ("depends on the default dtype", "Is a tensor made without dtype=...?"),
    ("gradient", "activation checkpointing"): ("another result when it is computed again", "What has changed by then?"),
    ("gradient", "no_grad"): ("depends on whether gradients are on", "Does it ask for requires_grad or is_grad_enabled?"),
    ("gradient", "inference_mode"): ("depends on whether gradients are on", "Does it ask for requires_grad or is_grad_enabled?"),
}  # fmt: skip
"""What it is called where just that level goes wrong, and the question to ask; "" stands for any level of the factor."""


@dataclass(frozen=True)
class Blame:
    """A failing case, and what is said of it."""

    number: int
    failure: Failure


class Situated:
    """The situations of one run, tried when the first of their groups is asked for."""

    def __init__(
        self,
        exercise: Exercise,
        space: Situations,
        subject: Subject,
        seed: int,
        case: int | None,
        seconds: float | None,
    ):
        self.exercise, self.space, self.subject, self.seconds = exercise, space, subject, seconds
        first = seed * CASES_PER_SEED + len(exercise.recipes)
        every = range(first, first + space.places)
        self.numbers = [number for number in every if case in (None, number)]
        self.rows = [space.row(seed, number - first) for number in self.numbers]
        self.trials: dict[int, Trial] = {}
        self.failures: dict[int, Failure] = {}
        self.seen: set[int] = set()
        self.late = False
        self.excused: list[tuple[Row, bool]] | None = None

    @property
    def ordinary(self) -> dict[str, str]:
        """The ordinary level of each factor."""
        return {name: levels[0] for name, levels in self.space.levels.items()}

    def try_all(self) -> None:
        """Try every situation, in order; code that does not end, or has no memory left, is tried no further."""
        if self.seen:
            return
        since = time.monotonic()
        for number in self.numbers:
            if self.numbers[0] in self.failures and number not in self._telling_of_names:
                continue  # what is wrong in the ordinary situation is named from a few others like it
            self.seen.add(number)
            failure = self._tried(self.exercise.case(number))
            if failure is None:
                continue
            self.failures[number] = failure
            spent = time.monotonic() - since > LONGEST or failure.kind == "MemoryError"
            self.late = failure.mistake == NEVER_ENDS or (spent and self.numbers[0] in self.failures)
            if self.late or "not written yet" in failure.message:
                return

    def _tried(self, case: Case) -> Failure | None:
        """What is wrong in one case; the trial of a number's first case is kept for finding names."""
        try:
            with deadline(self.seconds):
                trial = Trial(self.exercise.target, self.subject, case)
                self.trials.setdefault(case.number, trial)
                hold(self.space, trial)
        except Failure as failure:
            return failure
        except OutOfTime:
            return Failure(OUT_OF_TIME, mistake=NEVER_ENDS, errored=True)
        except Exception as error:  # noqa: BLE001  a check stumbled over what the student's code returned
            return Failure(
                f"the result could not be used: {type(error).__name__}: {str(error)[:300]}", errored=True
            )
        return None

    @cached_property
    def _telling_of_names(self) -> set[int]:
        """A few situations to find a mistake's name with: as many levels as can be, and scores that hide none."""
        plain = [(n, row) for n, row in zip(self.numbers, self.rows, strict=True) if self._plain(row)]
        chosen, met = {self.numbers[0]}, set(self.rows[0].items())

        def gain(pair: tuple[int, Row]) -> tuple[int, bool]:
            return len(pair[1].items() - met), pair[1].get("scores") == self.ordinary.get("scores")

        while plain and len(chosen) <= MOST_NAMED:
            best = max(plain, key=gain)
            plain.remove(best)
            chosen.add(best[0])
            met |= best[1].items()
        return chosen

    def blame(self, group: str) -> Blame | None:
        """Why a group loses its points; None if it keeps them.

        The group of the ordinary situation loses them if that fails; another one if a cause of failures has a level of its
        factors, or a failing case that no cause explains departs in one of them.
        """
        self.try_all()
        if not self.failures:
            return None
        factors = next(one for one in self.space.groups if one.name == group).factors
        if not factors:
            plain = [n for n, row in self._failing if not self.space.departures(row)]
            return self._blame(plain, ()) if plain else None
        for cause in self.causes:
            if any(self.space.group(name) == group for name, level in cause if level != self.ordinary[name]):
                return self._blame([n for n, row in self._failing if _holds(row, cause)], cause)
        rest = [pair for pair in self._failing if not any(_holds(pair[1], cause) for cause in self.causes)]
        mine = [n for n, row in rest if group in map(self.space.group, self.space.departures(row))]
        return self._blame(mine, ()) if mine else None

    def _blame(self, numbers: list[int], cause: Cause) -> Blame:
        """The smallest of these failing cases, and what they are called if they have one name.

        What is less precise in some float64 cases may be plainly wrong in others of them, which have no name. A gradient that
        is cut off is a wrong one where another path remains.
        """
        every = [self.failures[number].mistake for number in numbers]
        names = set(every)
        if ("dtype", "float64") in cause and 2 * every.count(IMPRECISE) > len(every):
            names -= {None}
        if 2 * every.count(CUT_OFF) > len(every):
            names -= {WRONG_GRADIENT}
        failure = self.failures[numbers[0]]
        name = names.pop() if len(names) == 1 else None
        special = [one for one in self._telling(cause) if one[1] != self.ordinary[one[0]]]
        # A level that goes wrong with some others only, or besides what explains more, is not what is wrong.
        first = bool(special) and cause == self.causes[0]
        told = self._told(special[0]) if first and len(special) == 1 else None
        if name is None and told is not None:
            name, question = told
            return Blame(numbers[0], replaced(failure, f"{failure.message} {question}", name))
        return Blame(numbers[0], replaced(failure, failure.message, name))

    def _told(self, level: tuple[str, str]) -> tuple[str, str] | None:
        """What it is called where that level goes wrong, and the question; None if others of its factor that have no name do."""
        if level in self.space.names:
            return self.space.names[level]
        factor, plain = level[0], self.ordinary[level[0]]
        wrong = {one for cause in self.causes for one in cause if one[0] == factor and one[1] != plain}
        names = {**NAMES, **self.space.names}
        if len(wrong) > 1 and (factor, "") in names:
            return names[factor, ""]  # several levels go wrong: none of them is what is wrong
        told = [names.get(one, names.get((factor, ""))) for one in (level, *wrong)]
        return told[0] if all(told) else None

    def _telling(self, cause: Cause) -> Cause:
        """A cause without the levels that its others force, as dropout above zero in eval mode forces that mode."""
        levels = dict(cause)
        return tuple(one for one in cause if self.space.allows({**levels, one[0]: self.ordinary[one[0]]}))

    @cached_property
    def _failing(self) -> list[tuple[int, Row]]:
        """Failing cases with their rows, those that depart least first, and of these the smallest."""
        failing = [(n, row) for n, row in zip(self.numbers, self.rows, strict=True) if n in self.failures]
        return sorted(failing, key=lambda pair: (len(self.space.departures(pair[1])), self._size(pair[0])))

    def _size(self, number: int) -> int:
        return self.trials[number].size if number in self.trials else 0

    @cached_property
    def causes(self) -> tuple[Cause, ...]:
        """What goes wrong, as levels that do so together."""
        if self.late or self.numbers[0] in self.failures:
            return ()
        done = [(n, row) for n, row in zip(self.numbers, self.rows, strict=True) if n in self.seen]

        def fails(place: int, row: Row) -> bool:
            return (
                self.space.allows(row) and self._tried(self.exercise.case_in(row, done[place][0])) is not None
            )

        return causes([row for _, row in done], [n in self.failures for n, _ in done], self.ordinary, fails)

    @property
    def statement(self) -> str:
        """The smallest statement that explains the failures; "" if they share nothing that tells them from the rest."""
        return told(
            tuple(map(self._telling, self.causes)), len(self.failures), len(self.seen) - len(self.failures)
        )

    def to_be_named(self) -> list[Trial]:
        """The cases to look for a mistake's name with: the smallest of those that fail, and of those that are right.

        Of these, too, some that are like failing ones, and the plainest of each other level of what is blamed.
        What is merely less precise comes last: there a mistake gives nearly what is right.
        """
        trials = sorted(self.trials.items(), key=lambda pair: (self._imprecise(pair[0]), pair[1].size))
        failing, right = (
            [pair for pair in trials if (pair[0] in self.failures) is bad] for bad in (True, False)
        )
        blamed = {one for cause in self.causes for one in cause if one[1] != self.ordinary[one[0]]}
        near = sorted(right, key=lambda pair: -len(blamed & set(pair[1].case.situation.items())))
        rows = {n: trial.case.situation for n, trial in right}
        plain = sorted(right, key=lambda pair: -len(self.space.departures(rows[pair[0]])))
        beside = {(factor, rows[pair[0]][factor]): pair for pair in plain for factor, _ in blamed}
        chosen = dict(
            [*failing[:MOST_NAMED], *near[: MOST_NAMED // 2], *beside.values(), *right[:MOST_NAMED]]
        )
        return list(chosen.values())[: 2 * MOST_NAMED]

    def _imprecise(self, number: int) -> bool:
        return number in self.failures and self.failures[number].mistake == IMPRECISE

    def right_but_for(self, mistake: Mistake, group: str) -> bool:
        """Whether a group is right if the formula is taken with this mistake in it; never for an answer that does no work."""
        if self.ignores:
            return False
        factors = next(one for one in self.space.groups if one.name == group).factors
        tried = self._but_for(mistake.formula)
        mine = [good for row, good in tried if any(name in factors for name in self.space.departures(row))]
        return bool(mine) and all(mine)

    @cached_property
    def ignores(self) -> bool:
        """Whether the answer does no work: it gives back an input, or the same where one changes that the formula heeds."""
        trial = self.trials.get(self.numbers[0])
        if trial is None:
            return True
        heeded = [name for name in trial.differentiable if name in trial.case.inputs]
        try:
            with deadline(self.seconds):
                if not heeded:  # numbers and flags: is it the same in every case?
                    return len({str(one.named(one.run(one.fresh()))) for one in self.to_be_named()}) == 1
                before, exact = trial.named(trial.run(trial.fresh())), trial.expect()
                if all(
                    any(torch.equal(one, trial.inputs[name]) for name in heeded) for one in before.values()
                ):
                    return True
                for name in heeded:
                    change = {name: trial.inputs[name].flip(-1) * 0.5 + 0.25}
                    after, other = trial.named(trial.run(trial.fresh(**change))), trial.expect(**change)
                    moves = any(not torch.equal(exact[n].value, other[n].value) for n in exact)
                    if moves and all(torch.equal(before[n], after[n]) for n in before):
                        return True
        except (Failure, OutOfTime, RuntimeError):
            return True
        return False

    def _but_for(self, wrong: Callable[..., Mapping[str, Tensor]]) -> list[tuple[Row, bool]]:
        """Plain situations, and whether the student's code does there what this formula does."""
        if self.excused is None:

            def formula(round: Rounder | None = None, **given: Any) -> Mapping[str, Quantity]:
                right, made = self.exercise.target.formula(**given), wrong(**given)
                return {
                    n: replace(q, value=made[n], magnitude=made[n].abs() + q.magnitude)
                    for n, q in right.items()
                }

            target = replace(self.exercise.target, formula=formula)
            plain = [(n, row) for n, row in zip(self.numbers, self.rows, strict=True) if self._plain(row)]
            self.excused = [(row, self._holds_for(target, n)) for n, row in plain[:MOST_EXCUSED]]
        return self.excused

    def _holds_for(self, target: Target, number: int) -> bool:
        try:
            with deadline(self.seconds):
                case = replace(
                    self.exercise.case(number), results=None
                )  # another formula's results are others
                hold(self.space, Trial(target, self.subject, case))
        except (Failure, OutOfTime, RuntimeError, ValueError, IndexError, KeyError):
            return False  # the mistake's formula may not be made for such inputs
        return True

    def _plain(self, row: Row) -> bool:
        return row.get("dtype", "float32") in ("float32", "float64") and self.space.is_small(row)

    def _formula(self, trial: Trial) -> Trial:
        case = replace(trial.case, inputs=trial.inputs, adjust=None)
        return Trial(trial.target, _Formula(trial.target), case)

    def diagnosed(self) -> Failure | None:
        """What the exercise's diagnoses say of a failing case, of the plainest that they know a mistake's name for."""
        for number, _ in self._failing[:MOST_NAMED]:
            trial = self.trials.get(number)
            if trial is None or trial.dtype in HALF:
                continue  # rounding in half precision looks like many things
            for wanted, probes in self.exercise.diagnoses.items():
                if wanted and trial.inputs.get(wanted) is None:
                    continue
                for probe in probes:
                    if (failure := self._against(probe, trial)) is not None:
                        return failure
        return None

    def _against(self, probe: Probe, trial: Trial) -> Failure | None:
        """What a probe says against the student's code by a mistake's name, and not against the case."""
        failure = _said(probe, trial)
        if failure is None or not failure.mistake or _said(probe, self._formula(trial)) is not None:
            return None
        # What has an effect in the ordinary situation has none elsewhere for another reason.
        ordinary = self.numbers[0] in self.failures
        return failure if ordinary or not failure.mistake.endswith("has no effect") else None


class _Formula:
    """The formula as if it were a student's code: what a probe says against it, it says against the case."""

    def __init__(self, target: Target):
        self.target = target

    def prepare(self, case: Case) -> dict[str, Tensor]:
        """No weights: the case has them among its inputs."""
        return {}

    def call(self, case: Case, inputs: Mapping[str, Any]) -> Any:
        """The formula's results in the inputs' dtype."""
        exact = {
            n: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in inputs.items()
        }
        dtype = next(
            (v.dtype for v in inputs.values() if isinstance(v, Tensor) and v.is_floating_point()), None
        )
        found = self.target.formula(**exact)
        values = tuple(found[name].value.to(dtype) if name in found else None for name in self.target.outputs)
        return values if len(values) > 1 else values[0]

    def observe(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """Nobody watches a formula."""
        raise NotImplementedError("a formula is not watched")


def _said(probe: Probe, trial: Trial) -> Failure | None:
    """What a probe says against the student's code; None if nothing, or if it cannot be tried on this case."""
    try:
        probe(trial)
    except Failure as failure:
        return failure
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError):
        return None  # made for other inputs than these
    return None


def _holds(row: Row, cause: Cause) -> bool:
    return all(row[name] == level for name, level in cause)


def replaced(failure: Failure, message: str, mistake: str | None) -> Failure:
    """The failure with other words."""
    return Failure(message, mistake=mistake, errored=failure.errored, kind=failure.kind)
