"""Parameters of the tests in promises.py, for the assignment that a test module names as its STEM."""

from __future__ import annotations

from typing import Any

import pytest

from autograder.exercises import Exercise, in_assignment
from tests.exercises import catalogue
from tests.exercises.derived import derivable, spoilers_of

SEEDS = (3, 1_204)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Fill in the arguments that a test of promises.py asks for."""
    stem = getattr(metafunc.module, "STEM", None)
    if stem is None:
        return
    catalogue.load(stem)
    names = getattr(metafunc.module, "EXERCISES", None)  # those of one module, where there are several
    exercises = {one.name: one for one in in_assignment(stem) if names is None or one.name in names}
    coded = [one for one in exercises.values() if isinstance(one, Exercise)]
    right = [one for one in catalogue.RIGHT if one.exercise in exercises]
    mutants = [one for one in catalogue.MUTANTS if one.exercise in exercises]
    mistakes = [(one, mistake) for one in coded if derivable(one) for mistake in one.mistakes]
    # One seed for each mutant, in turn: many mutants, and neither seed is a lucky one.
    values: dict[str, list[Any]] = {
        "exercise": list(exercises.values()),
        "coded": coded,
        "right": right,
        "mutant_and_seed": [(one, SEEDS[place % len(SEEDS)]) for place, one in enumerate(mutants)],
        "mistake": [(*pair, SEEDS[place % len(SEEDS)]) for place, pair in enumerate(mistakes)],
        "spoiler": [(one, how) for one in coded for how in spoilers_of(one)],
        "seed": list(SEEDS),
    }
    for name in metafunc.fixturenames:
        if name in values:
            metafunc.parametrize(name, values[name], ids=_id)


def _id(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(_id, value))
    return getattr(value, "name", None) or str(value)


@pytest.fixture
def mutants(request: pytest.FixtureRequest) -> list[catalogue.Mutant]:
    """All mutants of the assignment."""
    names = {one.name for one in in_assignment(request.module.STEM)}
    return [one for one in catalogue.MUTANTS if one.exercise in names]


@pytest.fixture
def stem(request: pytest.FixtureRequest) -> str:
    stem: str = request.module.STEM
    return stem
