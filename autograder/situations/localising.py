"""From which situations fail and which pass: the smallest statement that explains all failures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from autograder.situations.covering import Row

__all__ = ["Cause", "causes", "told"]

Cause = tuple[tuple[str, str], ...]
"""Levels by factor which together go wrong, and are part of no situation that is right."""

AT_MOST = 3
"""Levels in one cause; what takes more of them is chance, or no cause at all."""


def causes(rows: Sequence[Row], failed: Sequence[bool], ordinary: Row) -> tuple[Cause, ...]:
    """Few causes that together are part of every failing row, the one that explains most first.

    A failing row which no cause of AT_MOST levels explains is left unexplained. Among causes that explain as much the one
    of fewer levels wins, and then the one with fewer ordinary levels in it.
    """
    right = [row for row, bad in zip(rows, failed, strict=True) if not bad]
    left = [row for row, bad in zip(rows, failed, strict=True) if bad]
    if not right:
        return ()
    found: list[Cause] = []
    for size in range(1, AT_MOST + 1):
        if not left:
            break
        fitting = _fitting(size, left, right, ordinary)
        while left and fitting:
            best = max(
                fitting, key=lambda one: (sum(_part(one, row) for row in left), -_plain(one, ordinary))
            )
            rest = [row for row in left if not _part(best, row)]
            if len(rest) == len(left) or (size > 1 and len(left) - len(rest) < 2 <= len(left)):
                break  # a single row of several has too many explanations of several levels
            found.append(best)
            left = rest
    return tuple(found)


def _fitting(size: int, left: list[Row], right: list[Row], ordinary: Row) -> list[Cause]:
    """Combinations of that many levels of failing rows which no right row has; one at least is not the ordinary level."""
    every = {one: None for row in left for one in combinations(row.items(), size)}
    special = (one for one in every if any(ordinary[name] != level for name, level in one))
    return [one for one in special if not any(_part(one, row) for row in right)]


def _part(cause: Cause, row: Row) -> bool:
    return all(row.get(name) == level for name, level in cause)


def _plain(cause: Cause, ordinary: Row) -> int:
    return sum(ordinary[name] == level for name, level in cause)


def told(found: tuple[Cause, ...], wrong: int, right: int) -> str:
    """The causes in a sentence; "" if there are none."""
    if not found:
        return ""
    said = "; ".join(" and ".join(level for _, level in cause) for cause in found)
    return f"Wrong in {wrong} situation{'s' * (wrong != 1)}, right in {right} others. What the wrong ones share: {said}."
