"""`attn check`: practice in a terminal."""

from typing import Any

from .errors import UserError, require_torch


def run_check(what: str, exercise: str | None, seed: int | None, case: int | None) -> int:
    """Check every exercise that `what` defines, or one; 1 if any check fails.

    Raises: UserError if the exercise does not exist or is not defined there.
    """
    require_torch()
    from autograder import check, exercises
    from autograder.exercises import find
    from autograder.practice import answers

    if case is not None and exercise is None:
        raise UserError("--case repeats one case of one exercise; say which: --exercise NAME")
    try:
        wanted = [find(exercise).name] if exercise else list(exercises())
    except ValueError as error:
        raise UserError(str(error)) from error
    found = answers(what)
    defined = [name for name in wanted if name in found.names]
    if not defined:
        problem = f"; {found.problems[0]}" if found.problems else ""
        expected = exercise or f"one or more of {', '.join(wanted)}"
        raise UserError(f"{what}: expected it to define {expected}, and it does not{problem}")
    reports: dict[str, Any] = {}
    for name in defined:
        try:
            reports[name] = check(name, found.names[name], seed=seed, case=case)
        except ValueError as error:
            raise UserError(str(error)) from error
        print(reports[name], end="\n\n")
    passed = [name for name, report in reports.items() if report.passed]
    earned = sum(report.points for report in reports.values())
    possible = sum(report.max_points for report in reports.values())
    print(f"{len(passed)} of {len(defined)} exercises pass, {earned:g} of {possible:g} points.")
    missing = [name for name in wanted if name not in defined]
    if missing:
        print(f"Not defined: {', '.join(missing)}.")
    for problem in found.problems:
        print(f"Failed: {problem}")
    return 0 if len(passed) == len(defined) else 1
