"""Counting: results that are whole numbers must be right to the last one."""

from __future__ import annotations

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.trial import Trial

__all__ = ["counts"]


def counts(name: str) -> Probe:
    """The count equals the formula's, exactly."""

    def probe(trial: Trial) -> None:
        got, wanted = int(trial()[name]), int(trial.expect()[name].value)
        if got != wanted:
            raise Failure(f"{name} is {got:,}, expected {wanted:,}.")

    return probe
