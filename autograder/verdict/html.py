"""A report as HTML, for notebooks, feedback pages and the formgrader. Every text is escaped."""

from __future__ import annotations

from html import escape

from autograder.verdict import Report, Verdict
from autograder.verdict.text import headline, named

__all__ = ["render"]

MARKS = {"passed": "&#10003;", "failed": "&#10007;", "skipped": "&#8211;", "errored": "&#9888;"}
COLOURS = {"passed": "#2da44e", "failed": "#e5534b", "skipped": "#8b949e", "errored": "#d4862a"}


def _lines(text: str) -> str:
    return "<br>".join(escape(line) for line in text.splitlines())


def _row(row: tuple[Verdict, ...]) -> str:
    verdict, (check, claim) = row[0], named(row)
    colour = COLOURS[verdict.status]
    detail = ""
    for text in (verdict.message, verdict.case):
        if text:
            detail += f'<div style="margin-top:2px;font-family:monospace;font-size:90%">{_lines(text)}</div>'
    return (
        f'<tr><td style="color:{colour};text-align:center;vertical-align:top">'
        f'<span title="{verdict.status}">{MARKS[verdict.status]}</span></td>'
        f'<td style="text-align:right;vertical-align:top;white-space:nowrap">'
        f"{sum(v.points for v in row):g} / {sum(v.max_points for v in row):g}</td>"
        f'<td style="text-align:left;white-space:normal"><b>{escape(check)}</b>'
        f"{': ' if claim else ''}{escape(claim)}{detail}</td></tr>"
    )


def render(report: Report) -> str:
    """A self-contained fragment: no scripts, no style sheet, all student text escaped."""
    colour = COLOURS["passed" if report.passed else "failed"]
    causes = "".join(
        f'<p style="margin:6px 0;padding:6px 10px;border-left:3px solid {COLOURS["errored"]}">'
        f"<b>{escape(finding.lead)}</b> {escape(finding.question)}</p>"
        for finding in report.findings
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    printed = f"<p>Your code printed:</p><pre>{escape(report.printed)}</pre>" if report.printed else ""
    rows = "".join(_row(row) for row in report.rows())
    return (
        f'<div class="attn-report" data-passed="{str(report.passed).lower()}" style="max-width:60em">'
        f'<p style="border-left:6px solid {colour};padding:4px 10px;margin:6px 0">'
        f"<b>{escape(headline(report))}</b></p>{causes}"
        f'<table style="border-collapse:collapse;margin:0"><tbody>{rows}</tbody></table>{notes}{printed}</div>'
    )
