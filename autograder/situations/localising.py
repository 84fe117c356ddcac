"""From the situations that fail: the smallest statement that explains them, found by trying smaller ones.

A failing row departs from the ordinary one in many levels, of which few matter. Each departure is taken back, as long as
it still fails: what is left is a cause. Then the next row that this cause is no part of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from autograder.situations.covering import Row

__all__ = ["Cause", "causes", "told"]

Cause = tuple[tuple[str, str], ...]
"""Levels by factor which together go wrong."""

MOST_CAUSES = 4
"""So many causes are looked for; a row that none of them explains is left unexplained."""

MOST_LEVELS = 4
"""Levels in one cause; what takes more of them is chance."""


def causes(
    rows: Sequence[Row], failed: Sequence[bool], ordinary: Row, fails: Callable[[int, Row], bool]
) -> tuple[Cause, ...]:
    """Few causes of which each failing row holds one, those of the plainest rows first.

    fails: whether another row goes wrong, with the numbers of the row at that place. A cause that rows which are right hold,
    too, is told with the ordinary levels that tell them apart, one or two; where none do it is chance, and no cause.
    """
    right, wrong = ([row for row, bad in zip(rows, failed, strict=True) if bad is of] for of in (False, True))
    left = [place for place, bad in enumerate(failed) if bad]
    left.sort(key=lambda place: _departures(rows[place], ordinary))
    found: list[Cause] = []
    while left and right and len(found) < MOST_CAUSES:
        place, *rest = left
        cause = _sharpened(_shrunk(place, rows[place], ordinary, fails), rows[place], wrong, right, ordinary)
        if cause:
            found.append(cause)
        left = [one for one in rest if not cause or not _part(cause, rows[one])]
    return tuple(one for one in found if not any(set(other) < set(one) for other in found))


def _departures(row: Row, ordinary: Row) -> int:
    return sum(row[name] != level for name, level in ordinary.items())


def _shrunk(place: int, row: Row, ordinary: Row, fails: Callable[[int, Row], bool]) -> Cause:
    """The departures of a failing row without which it would not fail; none if it fails without any, or too many."""
    row = dict(row)
    for name in [name for name, level in ordinary.items() if row[name] != level]:
        plainer = {**row, name: ordinary[name]}
        if fails(place, plainer):
            row = plainer
    cause = tuple((name, level) for name, level in row.items() if level != ordinary[name])
    return cause if len(cause) <= MOST_LEVELS else ()


def _sharpened(cause: Cause, row: Row, wrong: list[Row], right: list[Row], ordinary: Row) -> Cause:
    """The cause with as few ordinary levels of its row as tell it from the rows that are right; none if they do not.

    One right row for two wrong ones is let pass: what is wrong need not show in every row, as beside huge numbers.
    """

    def tells(one: Cause) -> bool:
        return 2 * sum(_part(one, other) for other in right) <= sum(_part(one, other) for other in wrong)

    return next((one for one in _with_more(cause, row, ordinary) if tells(one)), ())


def _with_more(cause: Cause, row: Row, ordinary: Row) -> Iterator[Cause]:
    plain = [(name, level) for name, level in ordinary.items() if row[name] == level]
    for size in range(3):
        for more in combinations(plain, size):
            yield (*cause, *more) if cause else ()


def _part(cause: Cause, row: Row) -> bool:
    return all(row.get(name) == level for name, level in cause)


def told(found: tuple[Cause, ...], wrong: int, right: int) -> str:
    """The causes in a sentence; "" if there are none."""
    if not found:
        return ""
    said = "; or with ".join(" and ".join(level for _, level in cause) for cause in found)
    return f"It goes wrong with {said}: in {wrong} situation{'s' * (wrong != 1)}, and is right in {right} others."
