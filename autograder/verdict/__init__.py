"""What a check found, and what all checks of one exercise found together: plain values, no computing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["MIME_TYPE", "Finding", "Report", "Status", "Verdict"]

MIME_TYPE = "application/vnd.attention-coursework.report+json"
"""Under which a notebook's output holds `Report.to_dict()`."""

Status = Literal["passed", "failed", "skipped", "errored"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check.

    Units: points and max_points are marks; points is 0 unless status is "passed".
    case is the failing input in words and case_number the number that draws it again (both empty if all is well).
    mistake is the name of the mistake that this check recognises by itself, or None.
    """

    check: str
    claim: str
    status: Status
    points: float
    max_points: float
    message: str = ""
    case: str = ""
    case_number: int | None = None
    mistake: str | None = None


@dataclass(frozen=True)
class Finding:
    """A recognised mistake: its short name and the question to put to the student.

    heading: what leads to the question in a report, where "Likely cause" and the name would read oddly.
    """

    name: str
    question: str
    heading: str = ""

    @property
    def lead(self) -> str:
        """What a report begins with."""
        return self.heading or f"Likely cause: {self.name}."


@dataclass(frozen=True)
class Report:
    """All verdicts of one exercise, with points and the mistakes that were recognised.

    Units: points and max_points are marks, score is their ratio, in [0, 1].
    """

    exercise: str
    seed: int
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...] = ()
    printed: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """True if there are verdicts and each of them passed."""
        return bool(self.verdicts) and all(verdict.status == "passed" for verdict in self.verdicts)

    @property
    def points(self) -> float:
        """Marks earned."""
        return float(sum(verdict.points for verdict in self.verdicts))

    @property
    def max_points(self) -> float:
        """Marks to be had."""
        return float(sum(verdict.max_points for verdict in self.verdicts))

    @property
    def score(self) -> float:
        """Share of the marks, in [0, 1]."""
        return self.points / self.max_points if self.max_points else 0.0

    @property
    def mistakes(self) -> tuple[str, ...]:
        """Names of the recognised mistakes, the likeliest first."""
        return tuple(finding.name for finding in self.findings)

    def rows(self) -> list[tuple[Verdict, ...]]:
        """The verdicts as they are shown: one a row, but those skipped one after the other for the same reason together."""
        rows: list[tuple[Verdict, ...]] = []
        for verdict in self.verdicts:
            last = rows[-1][0] if rows else None
            if last and verdict.status == last.status == "skipped" and verdict.message == last.message:
                rows[-1] = (*rows[-1], verdict)
            else:
                rows.append((verdict,))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values, with the derived figures included."""
        return asdict(self) | {
            "passed": self.passed,
            "points": self.points,
            "max_points": self.max_points,
            "score": self.score,
            "mistakes": list(self.mistakes),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """The report that `to_dict` wrote. Raises: KeyError or TypeError if `values` is no such dictionary."""
        return cls(
            exercise=values["exercise"],
            seed=values["seed"],
            verdicts=tuple(Verdict(**verdict) for verdict in values["verdicts"]),
            findings=tuple(Finding(**finding) for finding in values["findings"]),
            printed=values["printed"],
            notes=tuple(values["notes"]),
        )

    def __str__(self) -> str:
        from autograder.verdict.text import render

        return render(self)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from autograder.verdict.html import render

        return render(self)
