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

    points: marks. cases: labels of the recipes that it is tried on. needs: name of a check that must pass first;
    a property such as "keeps the dtype" is worth nothing while the result itself is wrong.
    """

    name: str
    claim: str
    points: float
    cases: tuple[str, ...]
    probe: Probe
    needs: str | None = None
