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


def pairs(
    levels: Levels,
    allowed: Allowed,
    together: Iterable[tuple[str, ...]] = (),
    asked: Allowed = lambda part: True,
) -> list[Tuple]:
    """Everything that must stand in some row: levels of two factors, and of those named `together`, that go together.

    asked: whether those levels need to stand together, though they may.
    """
    groups = [*combinations(levels, 2), *together, *((name,) for name in levels)]
    found = [
        tuple(zip(group, chosen, strict=True))
        for group in groups
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
    random = Random(seed)
    open_ = dict.fromkeys(pairs(levels, allowed, together, asked))
    rows = [{name: of[0] for name, of in levels.items()}]
    _cover(open_, rows[0], hiding)
    while open_:
        best, most = None, 0
        for start in random.sample(list(open_), min(TRIES, len(open_))):
            row = _grown(dict(start), levels, allowed, open_, random, hiding)
            if row is not None and (gain := sum(_holds(row, one) for one in open_)) > most:
                best, most = row, gain
        if best is None:  # the first that is open can stand in no whole row
            del open_[next(iter(open_))]
            continue
        rows.append({name: best[name] for name in levels})
        _cover(open_, best, hiding)
    return tuple(rows)


def _holds(row: Row, one: Tuple) -> bool:
    return all(row.get(name) == level for name, level in one)


def _cover(open_: dict[Tuple, None], row: Row, hiding: Collection[str]) -> None:
    """Strike what the row covers; where it has a hiding level, only what has that level, too."""
    hides = {level for level in row.values() if level in hiding}
    for one in [one for one in open_ if _holds(row, one) and hides <= {level for _, level in one}]:
        del open_[one]


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
        fitting = [one for one in levels[name] if one not in hiding and allowed({**row, name: one})]
        if not fitting:
            return None
        gains = {level: _gain(row, name, level, open_) for level in fitting}
        most = max(gains.values())
        ties = [level for level, gain in gains.items() if gain == most]
        row[name] = (
            ties[0] if ties[0] == levels[name][0] and random.random() < ORDINARY else random.choice(ties)
        )
    return row


def _gain(row: Row, name: str, level: str, open_: Mapping[Tuple, None]) -> int:
    """How many open pairs that level would close beside the levels in the row."""
    return sum(
        ((other, row[other]), (name, level)) in open_ or ((name, level), (other, row[other])) in open_
        for other in row
    )
