"""A report as plain text, for terminals and for the text half of a notebook's output."""

from __future__ import annotations

import textwrap

from autograder.verdict import Report, Verdict

__all__ = ["headline", "named", "render"]

LABELS = {"passed": "passed", "failed": "FAILED", "skipped": "skipped", "errored": "ERRORED"}
WIDTH = 110
NARROWEST = 8  # of the column of points


def headline(report: Report) -> str:
    """One line: the exercise, its points and the seed."""
    outcome = "all checks passed" if report.passed else "not yet"
    return f"{report.exercise}: {outcome}, {report.points:g} of {report.max_points:g} points (seed {report.seed})"


def named(row: tuple[Verdict, ...]) -> tuple[str, str]:
    """What a row is about: the check and its claim, or the names of several checks."""
    if len(row) == 1:
        return row[0].check, row[0].claim
    return ", ".join(verdict.check for verdict in row), ""


def _points(row: tuple[Verdict, ...]) -> str:
    return f"{sum(v.points for v in row):g}/{sum(v.max_points for v in row):g}"


def _row(row: tuple[Verdict, ...], width: int) -> list[str]:
    """The lines of a row; `width` is that of the points."""
    verdict = row[0]
    check, claim = named(row)
    start = f"  {LABELS[verdict.status]:<8}{_points(row):>{width}}  "
    line = f"{start}{check}{f': {claim}' if claim else ''}"
    deep = " " * len(start)
    lines = (
        textwrap.wrap(line, WIDTH, subsequent_indent=deep, drop_whitespace=False)
        if len(line) > WIDTH
        else [line]
    )
    for paragraph in (verdict.message, verdict.case):
        for line in paragraph.splitlines():
            lines += textwrap.wrap(line, WIDTH, initial_indent=deep[:-2], subsequent_indent=deep)
    return lines


def render(report: Report) -> str:
    """The report in lines of at most about 110 characters."""
    lines = [headline(report)]
    rows = report.rows()
    width = max([NARROWEST, *(len(_points(row)) + 1 for row in rows)])
    for row in rows:
        lines += _row(row, width)
    for finding in report.findings:
        lines += textwrap.wrap(f"{finding.lead} {finding.question}", WIDTH)
    lines += list(report.notes)
    if report.printed:
        lines += ["Your code printed:", textwrap.indent(report.printed, "  ")]
    return "\n".join(lines)
