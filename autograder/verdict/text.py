"""A report as plain text, for terminals and for the text half of a notebook's output."""

from __future__ import annotations

import textwrap

from autograder.verdict import Report, Verdict

__all__ = ["headline", "render"]

LABELS = {"passed": "passed", "failed": "FAILED", "skipped": "skipped", "errored": "ERRORED"}
WIDTH = 110


def headline(report: Report) -> str:
    """One line: the exercise, its points and the seed."""
    outcome = "all checks passed" if report.passed else "not yet"
    return (
        f"{report.exercise}: {outcome}, {report.points:g} of {report.max_points:g} points (seed {report.seed})"
    )


def _verdict(verdict: Verdict) -> list[str]:
    points = f"{verdict.points:g}/{verdict.max_points:g}"
    lines = [f"  {LABELS[verdict.status]:<8}{points:>8}  {verdict.check}: {verdict.claim}"]
    for paragraph in (verdict.message, verdict.case):
        for line in paragraph.splitlines():
            lines += textwrap.wrap(line, WIDTH, initial_indent=" " * 18, subsequent_indent=" " * 20)
    return lines


def render(report: Report) -> str:
    """The report in lines of at most about 110 characters."""
    lines = [headline(report)]
    for verdict in report.verdicts:
        lines += _verdict(verdict)
    for finding in report.findings:
        lines += textwrap.wrap(f"Likely cause: {finding.name}. {finding.question}", WIDTH)
    lines += list(report.notes)
    if report.printed:
        lines += ["Your code printed:", textwrap.indent(report.printed, "  ")]
    return "\n".join(lines)
