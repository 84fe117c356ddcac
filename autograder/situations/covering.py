"""Covering arrays: few rows in which every pair of levels, and every chosen triple, stands together at least once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import combinations, product
from random import Random

__all__ = ["Levels", "Row", "covering_array", "pairs"]

Levels = Mapping[str, Sequence[str]]
"""Names of factors, each with its levels, the ordinary one first."""

Row = Mapping[str, str]
"""A level of every factor."""

Allowed = Callable[[Row], bool]
"""Whether levels of some factors go together; a factor that is not named may have any."""

Tuple = tuple[tuple[str, str], ...]

TRIES = 12
"""Rows that are tried for each one that is kept."""

ORDINARY = 0.7
"""How often the ordinary level is taken where others would cover as much: what is ordinary costs least, and says most."""


def _groups(levels: Levels, together: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The factors whose levels must stand together: any two, those named, and each by itself."""
    return [*combinations(levels, 2), *together, *((name,) for name in levels)]


def pairs(
    levels: Levels,
    allowed: Allowed,
    together: Iterable[tuple[str, ...]] = (),
    asked: Allowed = lambda part: True,
) -> list[Tuple]:
    """Everything that must stand in some row: levels of two factors, and of those named `together`, that go together.

    asked: whether those levels need to stand together, though they may.
    """
    found = [
        tuple(zip(group, chosen, strict=True))
        for group in _groups(levels, together)
        for chosen in product(*(levels[name] for name in group))
    ]
    return [one for one in dict.fromkeys(found) if allowed(dict(one)) and asked(dict(one))]


def covering_array(
    levels: Levels,
    allowed: Allowed = lambda row: True,
    together: Iterable[tuple[str, ...]] = (),
    seed: int = 0,
    asked: Allowed = lambda part: True,
    hiding: Collection[str] = (),
) -> tuple[Row, ...]:
    """Rows that cover `pairs(...)`, greedily. The first is the ordinary level of every factor.

    allowed: is given some of the factors, too; what it refuses for a part of a row, it must refuse for the row. hiding: levels
    beside which the others can show little, as one key does for a mask: such a row covers no pair of the others.
    """
    random, together = Random(seed), tuple(together)
    groups = list(dict.fromkeys(_groups(levels, together)))
    open_ = dict.fromkeys(pairs(levels, allowed, together, asked))

    def held(row: Row) -> list[Tuple]:
        """What of the open ones stands in the row."""
        return [one for group in groups if (one := tuple([(name, row[name]) for name in group])) in open_]

    def cover(row: Row) -> None:
        """Strike what the row covers; where it has a hiding level, only what has that level, too."""
        hides = {level for level in row.values() if level in hiding}
        for one in held(row):
            if hides <= {level for _, level in one}:
                del open_[one]

    rows = [{name: of[0] for name, of in levels.items()}]
    cover(rows[0])
    while open_:
        best, most = None, 0
        for start in random.sample(list(open_), min(TRIES, len(open_))):
            row = _grown(dict(start), levels, allowed, open_, random, hiding)
            if row is not None and (gain := len(held(row))) > most:
                best, most = row, gain
        if best is None:  # the first that is open can stand in no whole row
            del open_[next(iter(open_))]
            continue
        rows.append({name: best[name] for name in levels})
        cover(best)
    return tuple(rows)


def _grown(
    row: dict[str, str],
    levels: Levels,
    allowed: Allowed,
    open_: Mapping[Tuple, None],
    random: Random,
    hiding: Collection[str],
) -> dict[str, str] | None:
    """A whole row that holds this part: factor by factor the level that covers most of what is open."""
    rest = [name for name in levels if name not in row]
    random.shuffle(rest)
    for name in rest:
        gains: dict[int, list[str]] = {}
        for level in levels[name]:
            if level not in hiding:
                gains.setdefault(_gain(row, (name, level), open_), []).append(level)
        fitting = (
            [level for level in gains[gain] if allowed({**row, name: level})]
            for gain in sorted(gains, reverse=True)
        )
        ties = next(filter(None, fitting), None)
        if ties is None:
            return None
        row[name] = (
            ties[0] if ties[0] == levels[name][0] and random.random() < ORDINARY else random.choice(ties)
        )
    return row


def _gain(row: Row, new: tuple[str, str], open_: Mapping[Tuple, None]) -> int:
    """How many open pairs that level would close beside the levels in the row."""
    return sum([(one, new) in open_ or (new, one) in open_ for one in row.items()])
