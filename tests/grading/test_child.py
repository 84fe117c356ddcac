"""A run in a process of its own: its report comes back, its crash does not."""

from __future__ import annotations

import faulthandler
import os
import signal

import pytest

from autograder.grading.child import Crashed, in_child
from autograder.kernels import Built, known_builds
from autograder.verdict import Report, Verdict

REPORT = Report("kernel", 3, (Verdict("a", "claim", "passed", 1.0, 1.0),), printed="words", notes=("note",))


def test_a_report_comes_back_as_it_was() -> None:
    assert in_child(lambda: REPORT) == REPORT


def test_what_a_run_does_to_its_process_stays_there() -> None:
    here: list[int] = []

    def run() -> Report:
        here.append(os.getpid())
        return REPORT

    in_child(run)
    assert here == []


def test_what_was_built_there_is_known_here() -> None:
    def run() -> Report:
        known_builds()["a kernel"] = Built(1, 2, 3)
        return REPORT

    in_child(run)
    assert known_builds().pop("a kernel") == Built(1, 2, 3)


@pytest.mark.parametrize(
    ("end", "how"),
    [(lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"), (lambda: os._exit(0), "exit status 0")],
)
def test_a_crash_is_told(end, how: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Crashed, match=how):
        in_child(end)


def test_a_crash_leaves_no_dump_in_the_terminal() -> None:
    faulthandler.enable()
    with pytest.raises(Crashed, match="exit status 7"):
        in_child(lambda: os._exit(8 if faulthandler.is_enabled() else 7))


def test_an_error_of_our_own_is_no_crash() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        in_child(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
