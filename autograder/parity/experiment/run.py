"""Every implementation and every planted bug on every case, under every rule; and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from autograder.parity.cases import DISTRIBUTIONS, DTYPES, Inputs, Shape, draw_inputs
from autograder.parity.comparison import Oracle
from autograder.parity.experiment.bugs import BUGS, NO_OPS, applies
from autograder.parity.experiment.right import RIGHT, Implementation
from autograder.parity.experiment.rules import DERIVED, RULES, Bench

__all__ = ["SHAPES", "Experiment", "Outcome", "run_experiment"]

SHAPES = (
    Shape(1, 2, 2, 33, 47, 32),
    Shape(1, 4, 2, 17, 49, 64, is_causal=True),
    Shape(1, 2, 2, 65, 65, 64, is_causal=True),
    Shape(2, 3, 1, 31, 45, 40),
    Shape(1, 4, 2, 3, 257, 128),
    Shape(1, 2, 1, 50, 19, 256),
    Shape(1, 2, 2, 129, 131, 80, is_causal=True),
)
QUICK = (
    Shape(1, 4, 2, 21, 37, 40, is_causal=True),
    Shape(1, 2, 1, 5, 317, 32),
)
QUICK_DISTRIBUTIONS = ("peaked", "huge", "dead rows", "large offset", "normal", "cancelling")
Ratios = Mapping[str, float]


@dataclass
class Outcome:
    """What one rule said.

    accepted: runs of right implementations that it accepted; refused: how many not, by implementation.
    worst, worst_at: the largest ratio of one of them. usable: cases in which it accepted all of them; only there does it
    mean something that it rejects a bug. caught: the precisions in which it did, by bug; normal: those in which N(0, 1)
    inputs are enough. accused: planted no-ops that it rejected anywhere.
    """

    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    worst: float = 0.0
    worst_at: str = ""
    usable: int = 0
    caught: dict[str, set[str]] = field(default_factory=dict)
    normal: dict[str, set[str]] = field(default_factory=dict)
    accused: set[str] = field(default_factory=set)


@dataclass
class Experiment:
    """All outcomes by rule; tried holds the precisions in which each bug was run."""

    outcomes: dict[str, Outcome]
    tried: dict[str, set[str]]
    cases: int
    right_runs: int

    def escapes(self, rule: str, normal: bool = False) -> dict[str, tuple[str, ...]]:
        """The bugs that the rule caught in no case of a precision, with those precisions; planted no-ops left out.

        normal: those that escape where N(0, 1) inputs are all there is.
        """
        outcome = self.outcomes[rule]
        caught = outcome.normal if normal else outcome.caught
        found = {
            bug: tuple(p for p in DTYPES if p in tried - caught.get(bug, set()))
            for bug, tried in self.tried.items()
            if bug not in NO_OPS
        }
        return {bug: precisions for bug, precisions in found.items() if precisions}

    def caught(self, rule: str, normal: bool = False) -> int:
        """Of the planted pairs those that the rule caught."""
        return self.planted - sum(map(len, self.escapes(rule, normal).values()))

    @property
    def planted(self) -> int:
        """Pairs of a bug and a precision, no-ops left out."""
        return sum(len(tried) for bug, tried in self.tried.items() if bug not in NO_OPS)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "cases": self.cases,
            "right_implementations": [one.name for one in RIGHT],
            "right_runs": self.right_runs,
            "bugs": {bug: sorted(tried) for bug, tried in self.tried.items()},
            "rules": {
                rule: {
                    "right_accepted": outcome.accepted,
                    "right_refused": outcome.refused,
                    "worst_right_ratio": outcome.worst if math.isfinite(outcome.worst) else "inf",
                    "worst_right": outcome.worst_at,
                    "cases_where_all_right_are_accepted": outcome.usable,
                    "planted": self.planted,
                    "caught": self.caught(rule),
                    "escapes": self.escapes(rule),
                    "caught_by_normal_inputs": self.caught(rule, normal=True),
                    "escapes_of_normal_inputs": self.escapes(rule, normal=True),
                    "accused_no_ops": sorted(outcome.accused),
                }
                for rule, outcome in self.outcomes.items()
            },
        }


@dataclass(frozen=True)
class _Case:
    precision: str
    distribution: str
    shape: Shape
    seed: int

    def inputs(self) -> Inputs:
        return draw_inputs(self.distribution, self.shape, self.precision, seed=self.seed)

    def __str__(self) -> str:
        return f"{self.precision}, {self.distribution}, {self.shape}"


def _cases(shapes: tuple[Shape, ...], distributions: tuple[str, ...], seed: int) -> Iterator[_Case]:
    for distribution in distributions:
        for shape in shapes:
            for precision in DTYPES:
                yield _Case(precision, distribution, shape, seed)


def _ratios(implementation: Implementation, case: _Case, bench: Bench, rules: tuple[str, ...]) -> Ratios:
    """For each rule the worst ratio of any quantity."""
    results = implementation.run(bench.oracle.inputs, case.precision)
    return {
        rule: max(
            RULES[rule](bench, name, actual, implementation.baseline) for name, actual in results.items()
        )
        for rule in rules
    }


def run_experiment(
    quick: bool = False, seed: int = 0, tell: Callable[[str], None] = lambda line: None
) -> Experiment:
    """Run it all; `tell` hears of each distribution. Another seed draws other inputs of the same kinds.

    quick: fewer and smaller cases, in seconds; then a bug that the derived rule has caught in a precision is left alone.
    """
    distributions = QUICK_DISTRIBUTIONS if quick else tuple(DISTRIBUTIONS)
    cases = list(_cases(QUICK if quick else SHAPES, distributions, seed))
    rules = (DERIVED,) if quick else tuple(RULES)
    found = Experiment({rule: Outcome() for rule in rules}, {}, len(cases), 0)
    before = ""
    with torch.no_grad():
        for number, case in enumerate(cases):
            if case.distribution != before:
                before = case.distribution
                tell(f"{before}: case {number + 1} of {len(cases)}")
            bench = Bench(Oracle(case.inputs(), case.precision))
            usable = _try_right(found, case, bench, rules)
            _try_bugs(found, case, bench, rules, usable, skip_caught=quick)
    return found


def _try_right(found: Experiment, case: _Case, bench: Bench, rules: tuple[str, ...]) -> set[str]:
    """The rules that accept every right implementation in this case."""
    usable = set(rules)
    for one in RIGHT:
        if case.precision == "tf32" and not one.emulated:
            continue  # torch on a CPU has no tf32
        ratios = _ratios(one, case, bench, rules)
        found.right_runs += 1
        for rule, ratio in ratios.items():
            outcome = found.outcomes[rule]
            outcome.accepted += ratio <= 1.0
            if ratio > 1.0:
                usable.discard(rule)
                outcome.refused[one.name] = outcome.refused.get(one.name, 0) + 1
            if ratio > outcome.worst:
                outcome.worst, outcome.worst_at = ratio, f"{one.name}: {case}"
    for rule in usable:
        found.outcomes[rule].usable += 1
    return usable


def _try_bugs(
    found: Experiment,
    case: _Case,
    bench: Bench,
    rules: tuple[str, ...],
    usable: set[str],
    skip_caught: bool,
) -> None:
    for bug in BUGS:
        if not applies(bug.name, case.shape, case.distribution, case.precision):
            continue
        if skip_caught and case.precision in found.outcomes[DERIVED].caught.get(bug.name, ()):
            continue
        found.tried.setdefault(bug.name, set()).add(case.precision)
        for rule, ratio in _ratios(bug, case, bench, rules).items():
            outcome = found.outcomes[rule]
            if ratio <= 1.0:
                continue
            if bug.name in NO_OPS:
                outcome.accused.add(bug.name)
            if rule in usable:
                outcome.caught.setdefault(bug.name, set()).add(case.precision)
                if case.distribution == "normal":
                    outcome.normal.setdefault(bug.name, set()).add(case.precision)
