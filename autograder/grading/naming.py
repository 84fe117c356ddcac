"""Naming mistakes: which known mutants of the formula give just what the student's code gives."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from autograder.checks import Failure, Trial
from autograder.exercises import Exercise
from autograder.mistakes import Mistake

__all__ = ["recognise"]

SAME = 1e-4
"""Two results are the same if they differ by at most this share of their largest element: above float32's rounding
on these cases, far below what any mistake does."""

MOST = 2
"""At most so many mistakes are named: the student should fix the likeliest first."""

LEAST = 3
"""A mistake must explain at least one in so many of the wrong cases that it touches."""

LARGEST = 1 << 20
"""A result of more elements than that, which no case has, is not compared with mistakes."""

HALF = (torch.float16, torch.bfloat16)

Outcome = Mapping[str, Tensor] | str
"""Results by name, or the text of the exception."""


def _student(trial: Trial) -> Outcome | None:
    try:
        found = trial.named(trial.run(trial.fresh()))
        if any(v.numel() > LARGEST or not bool(v.isfinite().any()) for v in found.values()):
            return None  # nan alone tells of no mistake
        return {n: v.detach().to(torch.float64) for n, v in found.items()}
    except Failure as failure:
        return failure.message if failure.errored else None


def _mutant(exercise: Exercise, place: int, trial: Trial) -> Outcome:
    def make() -> Outcome:
        try:
            return exercise.mistakes[place].formula(**trial.exact)
        except Exception as error:  # noqa: BLE001  some mistakes show as an exception, the student's the same
            lines = str(error).strip().splitlines()
            return f"raised {type(error).__name__}: {lines[0][:300] if lines else '(no message)'}"

    return trial.shared(("mistake", place), make)


def _same(one: Outcome, other: Outcome) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if not one.numel():
        return True
    gap = float((one - other).abs().max())
    if math.isfinite(gap):  # and so is everything in both
        return gap <= SAME * max(float(other.abs().max()), 1e-12)
    if not torch.equal(torch.isfinite(one), torch.isfinite(other)):
        return False
    kept = torch.isfinite(one)
    if not bool(kept.any()):
        return False  # nothing but nan and inf: any two mistakes would look alike
    scale = float(torch.where(kept, other, 0.0).abs().max())
    return not bool((torch.where(kept, one - other, 0.0).abs() > SAME * max(scale, 1e-12)).any())


def recognise(exercise: Exercise, trials: list[Trial]) -> tuple[tuple[Mistake, ...], frozenset[int]]:
    """The mistakes that reproduce the student's results, the one that explains most cases first; those cases' numbers.

    A mistake counts for a case where the student's result is wrong and equals the mistake's; it is out if on any case
    the student is right where the mistake would not be. A chance hit is out, too: where it explains not the ordinary
    situation, and gives another wrong result there or explains fewer than one in LEAST of the wrong cases that it touches.
    Together the mistakes must explain half of the wrong cases, or the ordinary situation.
    """
    wrong, right = _sorted(trials)
    right.sort(key=lambda tried: tried[0].size)  # the cheapest cases rule most mistakes out
    ordinary = {n for n, (trial, *_) in enumerate(wrong) if _ordinary(exercise, trial)}
    explains: dict[int, set[int]] = {}
    for place in range(len(exercise.mistakes)):
        if any(not _same(_mutant(exercise, place, trial), outcome) for trial, outcome, _ in right):
            continue
        made = [_mutant(exercise, place, trial) for trial, _, _ in wrong]
        touched = {
            n
            for n, (result, (_, *outcomes)) in enumerate(zip(made, wrong, strict=True))
            if _tells(result, *outcomes)
        }
        cases = {
            n
            for n, (result, (_, got, truth)) in enumerate(zip(made, wrong, strict=True))
            if _same(result, got) and not _same(result, truth)
        }
        chance = exercise.situations is not None and touched & ordinary > cases & ordinary
        if (len(cases) * LEAST >= max(len(touched), 1) and not chance) or cases & ordinary:
            explains[place] = cases
    chosen = _cover(explains)
    explained = {n for place in chosen for n in explains[place]}
    if exercise.situations is not None and 2 * len(explained) < len(wrong) and not explained & ordinary:
        chosen = []  # most of what is wrong has another cause: a wrong name is worse than none
    named = tuple(exercise.mistakes[place] for place in chosen)
    return named, frozenset(wrong[n][0].case.number for place in chosen for n in explains[place])


def _ordinary(exercise: Exercise, trial: Trial) -> bool:
    space, row = exercise.situations, trial.case.situation
    return space is not None and bool(row) and not space.departures(row)


def _tells(result: Outcome, got: Outcome, truth: Outcome) -> bool:
    """Whether a case can speak for or against a mistake: two exceptions with other words can do neither."""
    return not _same(result, truth) and (
        _same(result, got) or not (isinstance(result, str) and isinstance(got, str))
    )


Tried = tuple[Trial, Outcome, Outcome]
"""A trial, the student's outcome, and the true one."""


def _sorted(trials: list[Trial]) -> tuple[list[Tried], list[Tried]]:
    """The trials on which the student is wrong and right. Left out are those where rounding alone exceeds SAME."""
    wrong: list[Tried] = []
    right: list[Tried] = []
    for trial in trials:
        outcome = None if trial.dtype in HALF else _student(trial)
        if outcome is None:
            continue
        truth = _truth(trial)
        if truth and _same(outcome, truth):
            right.append((trial, outcome, truth))
        elif truth and not _right(trial, outcome, truth):
            wrong.append((trial, outcome, truth))
    return wrong, right


def _right(trial: Trial, outcome: Outcome, truth: Mapping[str, Tensor]) -> bool:
    if isinstance(outcome, str):
        return False
    return all(value.shape == truth[n].shape and trial.close(n, value) for n, value in outcome.items())


def _truth(trial: Trial) -> Mapping[str, Tensor]:
    try:
        return {name: quantity.value for name, quantity in trial.expect().items()}
    except (ValueError, RuntimeError):
        return {}  # a case whose inputs do not fit has no result


def _cover(explains: dict[int, set[int]]) -> list[int]:
    """Few mistakes that together explain as many cases as can be, greedily; at most MOST."""
    chosen: list[int] = []
    done: set[int] = set()
    while len(chosen) < MOST:
        gains = {place: len(cases - done) for place, cases in explains.items()}
        best = max(gains, key=lambda place: gains[place], default=None)
        if best is None or gains[best] == 0:
            break
        chosen.append(best)
        done |= explains[best]
    return chosen
