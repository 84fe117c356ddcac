"""Grading of questions whose answer is a letter or a number."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from autograder.exercises import Choice, Number
from autograder.verdict import Finding, Report, Status, Verdict

__all__ = ["examine_question"]


def examine_question(question: Choice | Number, answer: Any, seed: int) -> Report:
    """The report on a letter or a number; a wrong one is told why it is wrong."""
    status, message, finding = (
        _letter(question, answer) if isinstance(question, Choice) else _number(question, answer)
    )
    points = question.points if status == "passed" else 0.0
    verdict = Verdict(
        "answer",
        question.prompt,
        status,
        points,
        question.points,
        message,
        mistake=finding.name if finding else None,
    )
    return Report(question.name, seed, (verdict,), (finding,) if finding else ())


Outcome = tuple[Status, str, Finding | None]

AROUND = "()[]*.:,'\"` \t\r\n"
"""What people write around a letter."""


def _letter(question: Choice, answer: Any) -> Outcome:
    letters = ", ".join(sorted(question.explanations))
    if answer is None or answer is ...:
        return (
            "errored",
            f'no answer yet. Give one of the letters {letters}, like {question.name} = "a".',
            None,
        )
    letter = answer.lower().strip(AROUND) if isinstance(answer, str) else ""
    if letter not in question.explanations:
        return (
            "errored",
            f"{question.name} is {str(answer)[:40]!r}; expected one of the letters {letters}.",
            None,
        )
    why = question.explanations[letter]
    if letter == question.answer:
        return "passed", why, None
    return "failed", f"{letter} is not right.", Finding(f"answer {letter}", why, heading=f"Why not {letter}?")


SINGLE = 1e-6
"""A slip's number may have been through float32."""


def _number(question: Number, answer: Any) -> Outcome:
    if answer is None or answer is ...:
        return "errored", f"no answer yet. Give a number, like {question.name} = 1.5.", None
    try:
        # A tensor that wants a gradient would warn, and a grade cell must write nothing to stderr.
        plain = answer.detach() if isinstance(answer, Tensor) else answer
        value = math.nan if isinstance(plain, (bool, str)) else float(plain)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        value = math.nan
    if not math.isfinite(value):
        return "errored", f"{question.name} is {str(answer)[:40]!r}; expected a finite number.", None
    if _right(question, value):
        return "passed", question.explanation, None
    message = f"{answer if isinstance(answer, (int, float)) else _written(value)} is not right."
    for slip in question.slips:
        if math.isclose(value, slip.value, rel_tol=max(question.tolerance, SINGLE)):
            return "failed", message, Finding(slip.name, slip.question)
    return "failed", message, None


def _right(question: Number, value: float) -> bool:
    near = math.isclose(value, question.answer, rel_tol=question.tolerance)
    return near and (not question.answer.is_integer() or round(value) == question.answer)


def _written(value: float) -> str:
    """A number that was a tensor's or an array's: all digits of a whole one, those of float32 of another."""
    return str(int(value)) if value.is_integer() else f"{value:.7g}"
