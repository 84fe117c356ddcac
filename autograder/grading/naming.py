"""Naming mistakes: which known mutants of the formula give just what the student's code gives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autograder.checks import Failure, Trial
from autograder.exercises import Exercise
from autograder.verdict import Finding

__all__ = ["recognise"]

SAME = 1e-4
"""Two results are the same if they differ by at most this share of their largest element: above float32's rounding
on these cases, far below what any mistake does."""

MOST = 2
"""At most so many mistakes are named: the student should fix the likeliest first."""

Outcome = Mapping[str, Tensor] | str
"""Results by name, or the text of the exception."""


def _student(trial: Trial) -> Outcome | None:
    try:
        return {n: v.detach().to(torch.float64) for n, v in trial.named(trial.run(_fresh(trial.inputs))).items()}
    except Failure as failure:
        return failure.message if failure.errored else None


def _fresh(inputs: Mapping[str, object]) -> dict[str, object]:
    return {n: v.clone() if isinstance(v, Tensor) else v for n, v in inputs.items()}


def _mutant(exercise: Exercise, place: int, trial: Trial) -> Outcome:
    exact = {
        n: v.to(torch.float64) if isinstance(v, Tensor) and v.is_floating_point() else v
        for n, v in trial.inputs.items()
    }
    try:
        return exercise.mistakes[place].formula(**exact)
    except Exception as error:  # some mistakes show as an exception, the student's the same
        lines = str(error).strip().splitlines()
        return f"raised {type(error).__name__}: {lines[0][:300] if lines else '(no message)'}"


def _same(one: Outcome, other: Outcome) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or not torch.equal(torch.isfinite(one), torch.isfinite(other)):
        return False
    kept = torch.isfinite(one)
    scale = float(torch.where(kept, other, 0.0).abs().max()) if other.numel() else 0.0
    return not bool((torch.where(kept, one - other, 0.0).abs() > SAME * max(scale, 1e-12)).any())


def recognise(exercise: Exercise, trials: list[Trial]) -> tuple[Finding, ...]:
    """The mistakes that reproduce the student's results, the one that explains most cases first.

    A mistake counts for a case where the student's result is wrong and equals the mistake's; it is out if on any case
    the student is right where the mistake would not be.
    """
    wrong: list[tuple[Trial, Outcome]] = []
    right: list[tuple[Trial, Outcome]] = []
    for trial in trials:
        outcome = _student(trial)
        if outcome is None:
            continue
        truth = {name: quantity.value for name, quantity in _truth(trial).items()}
        (right if truth and _same(outcome, truth) else wrong).append((trial, outcome))
    explains: dict[int, set[int]] = {}
    for place in range(len(exercise.mistakes)):
        if all(_same(_mutant(exercise, place, trial), outcome) for trial, outcome in right):
            cases = {n for n, (trial, got) in enumerate(wrong) if _same(_mutant(exercise, place, trial), got)}
            if cases:
                explains[place] = cases
    return tuple(
        Finding(exercise.mistakes[place].name, exercise.mistakes[place].question) for place in _cover(explains)
    )


def _truth(trial: Trial) -> Mapping[str, object]:
    try:
        return trial.expect()
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
