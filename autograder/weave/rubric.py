"""The model answer and rubric of a question that a person grades."""

import re
from pathlib import Path

from autograder.weave.errors import WeaveError
from autograder.weave.lesson import LessonCell

HEADING = "**Rubric**"
POINTS = re.compile(r"^\s*[-*]\s.*?(\d+(?:\.\d+)?)\s*(?:points?|pts?)\b", re.IGNORECASE)
BULLET = re.compile(r"^[-*]\s")


def answer_of(cell: LessonCell, path: Path) -> tuple[str, float] | None:
    """The name and points of a free-text question, or None for any other cell.

    Raises: WeaveError if its metadata or its rubric is incomplete, or the rubric's points do not add up.
    """
    marked = cell.metadata.get("attn")
    if marked is None:
        return None
    wanted = 'open the cell with  +++ {"attn": {"answer": "<name>", "points": <number>}}'
    if cell.kind != "markdown" or not isinstance(marked, dict) or set(marked) != {"answer", "points"}:
        raise WeaveError(path, cell.line, f"a free-text answer needs its name and its points: {wanted}")
    name, points = marked["answer"], marked["points"]
    if not isinstance(name, str) or not name.isidentifier():
        raise WeaveError(path, cell.line, f"the answer's name is {name!r}; it must be a Python name")
    if isinstance(points, bool) or not isinstance(points, int | float) or points <= 0:
        raise WeaveError(path, cell.line, f"{name} is worth {points!r} points; it must be a number above 0")
    total = _rubric_points(cell, path, name)
    if total != points:
        raise WeaveError(
            path,
            cell.line,
            f"{name} is worth {points:g} points, but its rubric adds up to {total:g}; make them agree",
        )
    return name, float(points)


def _rubric_points(cell: LessonCell, path: Path, name: str) -> float:
    lines = cell.source.split("\n")
    if HEADING not in [line.strip() for line in lines]:
        raise WeaveError(
            path, cell.line, f"{name} has no rubric; add a line `{HEADING}` and one bullet per criterion"
        )
    start = [line.strip() for line in lines].index(HEADING)
    total, bullets = 0.0, 0
    for offset, line in enumerate(lines[start + 1 :], start=start + 1):
        if not BULLET.match(line):
            continue
        found = POINTS.match(line)
        if not found:
            raise WeaveError(
                path,
                cell.line + offset,
                f"this line of {name}'s rubric names no points; write `- 1 point: ...`",
            )
        total += float(found.group(1))
        bullets += 1
    if not bullets:
        raise WeaveError(
            path, cell.line + start, f"the rubric of {name} is empty; write `- 1 point: ...` lines"
        )
    return total
