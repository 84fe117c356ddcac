"""Covering arrays hold what they must, no more rows than they need, and the same ones each time."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.situations.covering import Row, covering_array, pairs

LEVELS = {
    "lengths": ("few", "one", "long"),
    "mask": ("none", "all", "dead"),
    "dtype": ("float32", "float16"),
    "mode": ("train", "eval"),
}


def uncovered(levels: dict[str, tuple[str, ...]], rows: tuple[Row, ...]) -> list[tuple[tuple[str, str], ...]]:
    found = []
    for one, other in combinations(levels, 2):
        for pair in product(levels[one], levels[other]):
            if not any((row[one], row[other]) == pair for row in rows):
                found.append(((one, pair[0]), (other, pair[1])))
    return found


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=6), st.integers(0, 3))
def test_every_pair_of_levels_stands_in_some_row(sizes: list[int], seed: int) -> None:
    levels = {f"f{n}": tuple(f"f{n}l{k}" for k in range(size)) for n, size in enumerate(sizes)}
    rows = covering_array(levels, seed=seed)
    assert not uncovered(levels, rows)
    assert rows == covering_array(levels, seed=seed)


def test_there_are_far_fewer_rows_than_combinations() -> None:
    levels = {f"f{n}": tuple(map(str, range(4))) for n in range(8)}
    assert 16 <= len(covering_array(levels)) <= 40 < 4**8


def test_the_first_row_is_ordinary() -> None:
    assert covering_array(LEVELS)[0] == {
        "lengths": "few",
        "mask": "none",
        "dtype": "float32",
        "mode": "train",
    }


def test_what_does_not_go_together_never_stands_together() -> None:
    def allowed(row: Row) -> bool:
        return not (row.get("lengths") == "one" and row.get("mask") == "dead")

    rows = covering_array(LEVELS, allowed)
    assert all(map(allowed, rows))
    assert uncovered(LEVELS, rows) == [(("lengths", "one"), ("mask", "dead"))]


def test_chosen_triples_stand_together() -> None:
    rows = covering_array(LEVELS, together=[("lengths", "mask", "dtype")])
    for triple in product(LEVELS["lengths"], LEVELS["mask"], LEVELS["dtype"]):
        assert any((row["lengths"], row["mask"], row["dtype"]) == triple for row in rows)


def test_a_level_that_hides_the_others_covers_none_of_their_pairs() -> None:
    rows = covering_array(LEVELS, hiding=("one",))
    seen = tuple(row for row in rows if row["lengths"] != "one")
    rest = {name: tuple(level for level in of if level != "one") for name, of in LEVELS.items()}
    assert not uncovered(rest, seen)
    assert not uncovered(LEVELS, rows)


def test_pairs_that_are_not_asked_for_need_no_row() -> None:
    def asked(part: Row) -> bool:
        return part.get("lengths") != "long" or len(part) == 1

    every, some = pairs(LEVELS, lambda row: True), pairs(LEVELS, lambda row: True, (), asked)
    assert len(every) - len(some) == 3 + 2 + 2
    assert sum(row["lengths"] == "long" for row in covering_array(LEVELS, asked=asked)) == 1
