"""A failure without a name of its own is told which other failure it may follow from."""

from __future__ import annotations

from functools import wraps

import torch

from autograder.checks.objects import Remote
from autograder.grading.follow import Failures
from autograder.uses import used_names
from autograder.verdict import Finding, Report, Verdict

FAILED = Report("attention", 3, (Verdict("a", "claim", "failed", 0.0, 1.0),))
PASSED = Report("attention", 3, (Verdict("a", "claim", "passed", 1.0, 1.0),))


def masked_softmax(scores):
    return scores.softmax(-1)


def helper(scores):
    return [masked_softmax(one) for one in scores]


def attention(query):
    return helper(query)


def innocent(query):
    return torch.masked_softmax(query)


class Heads:
    def forward(self, x):
        return (lambda: attention(x))()

    @staticmethod
    def split(x):
        return innocent(x)


class Kernel:
    """As Triton's decorators hold a kernel."""

    def __init__(self, fn):
        self.fn = fn


def test_names_are_found_through_helpers_and_nested_functions() -> None:
    assert {"helper", "masked_softmax"} <= used_names(attention)
    assert {"attention", "innocent", "helper", "masked_softmax"} <= used_names(Heads)
    assert "masked_softmax" in used_names(Kernel(Kernel(helper)))


def test_an_attribute_of_the_same_name_is_another_thing() -> None:
    assert "masked_softmax" not in used_names(innocent)


def test_what_is_no_code_uses_nothing() -> None:
    assert used_names(3) == used_names("masked_softmax") == used_names(torch.nn.Linear(2, 2)) == frozenset()


def test_a_function_that_calls_itself_and_one_that_wraps_itself_come_to_an_end() -> None:
    @wraps(attention)
    def again(query):
        return again(query)

    again.__wrapped__ = attention
    assert "masked_softmax" in used_names(again)


def noted(failures: Failures, report: Report = FAILED, obj: object = attention) -> tuple[str, ...]:
    return failures.noted(report, obj).mistakes


def test_a_failure_follows_from_one_that_it_uses() -> None:
    failures = Failures()
    assert noted(failures) == ()
    failures.noted(Report("masked_softmax", 3, FAILED.verdicts), masked_softmax)
    assert noted(failures) == ("follows from masked_softmax",)
    assert noted(failures, obj=innocent) == ()
    assert noted(failures, PASSED) == ()


def test_it_is_forgotten_once_that_one_passes() -> None:
    failures = Failures()
    failures.noted(Report("masked_softmax", 3, FAILED.verdicts), masked_softmax)
    failures.noted(Report("masked_softmax", 3, PASSED.verdicts), masked_softmax, whole=False)
    assert noted(failures) == ("follows from masked_softmax",)
    failures.noted(Report("masked_softmax", 3, PASSED.verdicts), masked_softmax)
    assert noted(failures) == ()


def test_a_mistake_that_has_a_name_needs_no_other() -> None:
    failures = Failures()
    failures.noted(Report("masked_softmax", 3, FAILED.verdicts), masked_softmax)
    named = Report("attention", 3, FAILED.verdicts, (Finding("not scaled", "?"),))
    assert noted(failures, named) == ("not scaled",)


def test_an_object_in_another_process_says_what_it_uses() -> None:
    class There(Remote):
        uses = frozenset({"masked_softmax", "os"})

    failures = Failures()
    failures.noted(Report("masked_softmax", 3, FAILED.verdicts), masked_softmax)
    assert noted(failures, obj=There()) == ("follows from masked_softmax",)
