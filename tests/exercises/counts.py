"""How many exercises, checks, situations, mutants and right writings there are: `python -m tests.exercises.counts`.

The README's figures are these; a test holds them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from autograder.exercises import ASSIGNMENTS, Exercise, in_assignment
from tests.exercises import catalogue
from tests.exercises.derived import derivable, spoilers_of

__all__ = ["counted", "lines"]

ROOT = Path(__file__).parents[2]


def counted() -> dict[str, int]:
    """The figures, by name."""
    for stem in ASSIGNMENTS:
        catalogue.load(stem)
    every = [one for stem in ASSIGNMENTS for one in in_assignment(stem)]
    coded = [one for one in every if isinstance(one, Exercise)]
    spaces = [one.situations for one in coded if one.situations is not None]
    mistakes = sum(len(one.mistakes) for one in coded if derivable(one))
    spoilt = sum(len(spoilers_of(one)) for one in coded)
    return {
        "exercises": len(coded),
        "questions": len(every) - len(coded),
        "checks": sum(len(one.every_check) for one in coded),
        "exercises with situations": len(spaces),
        "situations": sum(space.places for space in spaces),
        "pairs": sum(space.pairs for space in spaces),
        "right writings": len(catalogue.RIGHT),
        "mutants by hand": len(catalogue.MUTANTS),
        "mutants from mistakes": mistakes,
        "mutants by spoiling": spoilt,
        "mutants": len(catalogue.MUTANTS) + mistakes + spoilt,
        "lines of exercises": lines("autograder/exercises", "autograder/mistakes"),
        "lines of their tests": lines("tests/exercises"),
    }


def lines(*folders: str) -> int:
    """Lines of Python below these folders."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


if __name__ == "__main__":
    for name, number in counted().items():
        sys.stdout.write(f"{number:>7,}  {name}\n")
