"""The grader of `multi_head_attention` on right writings and on mutants."""

import pytest

from autograder import check
from tests.exercises import catalogue
from tests.exercises.promises import *  # noqa: F403

STEM = "multi_head_attention"
LAZY = {
    "input_back",
    "zeros",
    "mean_of_values",
    "random_numbers",
    "Zeros",
    "InputBack",
}
catalogue.load(STEM)


@pytest.mark.parametrize(
    "lazy",
    [one for one in catalogue.MUTANTS if one.obj.__name__ in LAZY and f".{STEM}." in one.obj.__module__],
    ids=str,
)
def test_a_lazy_answer_earns_less_than_a_fifth(lazy: catalogue.Mutant) -> None:
    report = check(lazy.exercise, lazy.obj, seed=3)
    assert report.points < 0.2 * report.max_points, str(report)
