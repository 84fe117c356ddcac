"""Cases that are remembered: the same for everybody, and spoilt by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from autograder import remembered as module
from autograder.case import Case
from autograder.checks import Trial
from autograder.exercises import find
from autograder.remembered import remembered, shared
from solutions.basic_attention import dot_scores


@pytest.fixture(autouse=True)
def nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cases", type(module._cases)())
    monkeypatch.setattr(module, "_held", 0)


def drawing(*given: Tensor) -> Iterator[Case]:
    """One case only: whoever draws again fails."""
    yield Case(7, "one", {f"x{n}": one for n, one in enumerate(given)})


def test_a_case_is_drawn_once_and_comes_as_it_was_though_it_is_written_to() -> None:
    owner, cases = object(), drawing(torch.arange(6.0).view(2, 3).mT)
    first = remembered(owner, 7, lambda: next(cases))
    first.inputs["x0"].fill_(5.0)
    again = remembered(owner, 7, lambda: next(cases))
    assert torch.equal(again.inputs["x0"], torch.arange(6.0).view(2, 3).mT)
    assert again.inputs["x0"].stride() == first.inputs["x0"].stride()
    with pytest.raises(StopIteration):
        remembered(object(), 7, lambda: next(cases))


def test_an_expanded_input_stays_expanded_and_one_object_stays_one() -> None:
    wide = torch.randn(1, 3).expand(4, 3)
    owner, cases = object(), drawing(wide, wide)
    for _ in range(2):
        inputs = remembered(owner, 7, lambda: next(cases)).inputs
        assert inputs["x0"] is inputs["x1"]
        assert inputs["x0"].stride() == (0, 1)


def test_results_are_made_once_for_a_case_and_not_for_other_inputs() -> None:
    owner, cases, made = object(), drawing(torch.zeros(2)), []
    for _ in range(2):
        case = remembered(owner, 7, lambda: next(cases))
        assert shared(case, "sum", lambda: made.append(1) or "found") == "found"
    assert len(made) == 1
    shared(replace(case, inputs={"x0": torch.ones(2)}), "sum", lambda: made.append(2))
    assert made == [1, 2]


def test_large_cases_and_results_are_made_each_time() -> None:
    owner, large = object(), torch.zeros(module.LARGEST + 1)
    assert remembered(owner, 7, lambda: next(drawing(large))).results is None
    case, made = remembered(owner, 8, lambda: next(drawing(torch.zeros(1)))), []
    for _ in range(2):
        shared(case, "table", lambda: made.append(1) or torch.zeros(module.LARGEST + 1))
    assert len(made) == 2


def test_no_more_numbers_than_so_many_are_kept_and_what_is_asked_for_again_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST", 100)
    owner, often = object(), drawing(torch.zeros(9))
    for number in range(50):
        case = remembered(owner, number, lambda: next(drawing(torch.zeros(2))))
        shared(case, "results", lambda: {"output": torch.zeros(3)})
        remembered(owner, "often", lambda: next(often))
        kept = [[case.inputs, case.results.known] for _, case in module._cases.values()]
        assert module._numbers(kept) == module._held <= 100
    assert 8 <= len(kept) <= 20


def test_what_the_formula_gives_is_the_same_for_two_answers_and_another_for_other_numbers() -> None:
    exercise = find("dot_scores")
    subject = exercise.subject(dot_scores)
    number = len(exercise.recipes)
    one, two = (Trial(exercise.target, subject, exercise.case(number)) for _ in range(2))
    assert one.expect()["scores"] is two.expect()["scores"]
    changed = one.expect(query=one.inputs["query"] * 2)["scores"].value
    assert torch.equal(changed, two.expect()["scores"].value * 2)
