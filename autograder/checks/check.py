"""A check: one executable claim, the cases it is tried on, and what it is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autograder.checks.trial import Trial

__all__ = ["Check", "Probe", "in_turn"]

Probe = Callable[[Trial], None]
"""Tries the claim on one case. Raises: Failure if it does not hold."""


def in_turn(*probes: Probe) -> Probe:
    """All of them, one after the other."""

    def probe(trial: Trial) -> None:
        for one in probes:
            one(trial)

    return probe


@dataclass(frozen=True)
class Check:
    """One executable claim about a student's function.

    points: marks. cases: labels of the recipes that it is tried on. needs: names of checks that must pass first;
    a property such as "keeps the dtype" is worth nothing while the result itself is wrong. binding: while it fails,
    nothing else counts but the exercise's first check, as where a ready-made function did the work.
    """

    name: str
    claim: str
    points: float
    cases: tuple[str, ...]
    probe: Probe
    needs: str | tuple[str, ...] | None = None
    binding: bool = False

    @property
    def prerequisites(self) -> tuple[str, ...]:
        """The names in `needs`, none, one or several."""
        return (self.needs,) if isinstance(self.needs, str) else self.needs or ()
