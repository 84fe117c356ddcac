"""Mistakes that follow from another exercise's: a student's code that uses code of theirs which is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autograder.checks.objects import Remote
from autograder.uses import used_names
from autograder.verdict import Finding, Report

__all__ = ["Failures"]


class Failures:
    """The exercises of one notebook that did not pass when they were last checked."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def noted(self, report: Report, obj: Any, whole: bool = True) -> Report:
        """The report, which names the exercise that a failure without a name of its own may follow from.

        obj: what the report is on. whole: all cases were tried, so the exercise is to be remembered.
        """
        name = report.exercise
        if not report.passed and not report.mistakes:
            used = (obj.uses if isinstance(obj, Remote) else used_names(obj)) & self.names - {name}
            report = replace(report, findings=tuple(_finding(name, other) for other in sorted(used)))
        if whole:
            (self.names.discard if report.passed else self.names.add)(name)
        return report


def _finding(name: str, other: str) -> Finding:
    return Finding(
        f"follows from {other}",
        f"{name} uses {other}, which did not pass when it was last checked. Mend {other} first, and check both again.",
    )
