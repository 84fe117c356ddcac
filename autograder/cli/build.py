"""`attn build`: from lessons and solutions to notebooks."""

from pathlib import Path

from .errors import require_torch


def run_build(root: Path | None, check: bool) -> int:
    """Rebuild the course's notebooks, or with `check` compare them with a rebuild and exit 1 if any differs."""
    require_torch()
    from autograder.weave import build, differences, find_course

    course = find_course(root)
    changed = differences(course) if check else build(course)
    names = [str(path.relative_to(course.root.parent)) for path in changed]
    if not names:
        print(f"{course.root / 'release'}: up to date ({len(course.stems)} assignment(s))")
    for name in names:
        print(f"{name}: {'differs from a rebuild' if check else 'rebuilt'}")
    if check and names:
        print("Run `attn build` and commit what it writes.")
    return 1 if check and names else 0
