"""From the situations that fail: the smallest statement that explains them all, and nothing that they do not show."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from autograder.situations.covering import Row, covering_array
from autograder.situations.localising import causes, told

LEVELS = {
    "lengths": ("some", "one query", "many keys", "equal"),
    "mask": ("no mask", "padding", "is_causal"),
    "dtype": ("float32", "float16", "bfloat16"),
    "state": ("first call", "again"),
    "mode": ("train", "eval"),
}
ROWS = covering_array(LEVELS, together=[("lengths", "mask", "dtype")])
ORDINARY = {name: of[0] for name, of in LEVELS.items()}


def found(wrong: Callable[[Row], bool]) -> set[frozenset[tuple[str, str]]]:
    seen = causes(ROWS, [wrong(row) for row in ROWS], ORDINARY, lambda place, row: wrong(row))
    return {frozenset(cause) for cause in seen}


@pytest.mark.parametrize(
    "cause",
    [
        {"dtype": "float16"},
        {"state": "again"},
        {"lengths": "one query", "mask": "is_causal"},
        {"mask": "padding", "mode": "eval"},
        {"lengths": "equal", "mask": "padding", "dtype": "bfloat16"},
    ],
    ids=str,
)
def test_a_single_cause_is_found_whatever_its_size(cause: dict[str, str]) -> None:
    assert found(lambda row: cause.items() <= row.items()) == {frozenset(cause.items())}


def test_two_causes_are_found_apart() -> None:
    wrong = found(
        lambda row: row["dtype"] == "float16" or (row["mask"] == "padding" and row["mode"] == "eval")
    )
    assert wrong == {frozenset({("dtype", "float16")}), frozenset({("mask", "padding"), ("mode", "eval")})}


def test_what_is_wrong_only_without_a_mask_names_the_ordinary_level_with_another() -> None:
    wrong = found(lambda row: row["mask"] == "no mask" and row["lengths"] == "one query")
    assert wrong == {frozenset({("mask", "no mask"), ("lengths", "one query")})}


def test_failures_of_every_row_have_no_cause() -> None:
    assert causes(ROWS, [True] * len(ROWS), ORDINARY, lambda place, row: True) == ()


def test_a_level_that_right_rows_have_too_is_no_cause() -> None:
    """It failed once, and not when that level was taken back: by chance."""
    place = next(
        place for place, row in enumerate(ROWS) if row["dtype"] == "float16" and row["mode"] == "eval"
    )
    failed = [one == place for one in range(len(ROWS))]
    assert causes(ROWS, failed, ORDINARY, lambda _, row: row["dtype"] == "float16") == ()


def test_what_fails_by_chance_in_the_ordinary_situation_too_is_no_cause() -> None:
    failed = [place == 3 for place in range(len(ROWS))]
    assert causes(ROWS, failed, ORDINARY, lambda place, row: place == 3) == ()


def test_the_sentence_counts_and_names() -> None:
    cause = ((("lengths", "one query"), ("mask", "is_causal")),)
    assert told(cause, 3, 34) == (
        "It goes wrong with one query and is_causal: in 3 situations, and is right in 34 others."
    )
    assert told((), 3, 34) == ""
