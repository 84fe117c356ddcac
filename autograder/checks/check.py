"""A check: one executable claim, the cases it is tried on, and what it is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autograder.checks.trial import Trial

__all__ = ["Check", "Probe"]

Probe = Callable[[Trial], None]
"""Tries the claim on one case. Raises: Failure if it does not hold."""


@dataclass(frozen=True)
class Check:
    """One executable claim about a student's function.

    points: marks. cases: labels of the recipes that it is tried on. needs: names of checks that must pass first;
    a property such as "keeps the dtype" is worth nothing while the result itself is wrong.
    """

    name: str
    claim: str
    points: float
    cases: tuple[str, ...]
    probe: Probe
    needs: str | tuple[str, ...] | None = None

    @property
    def prerequisites(self) -> tuple[str, ...]:
        """The names in `needs`, none, one or several."""
        return (self.needs,) if isinstance(self.needs, str) else self.needs or ()
