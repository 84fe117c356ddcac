"""How a check says no."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from autograder.checks.deadline import OutOfTime

__all__ = ["Failure", "student_code"]


class Failure(Exception):
    """A check's claim does not hold.

    message: where, what was expected, what came, and a question about the likely cause.
    mistake: the name of the mistake, where the check alone can tell. errored: the student's code raised, an exception of
    this `kind`.
    """

    def __init__(self, message: str, *, mistake: str | None = None, errored: bool = False, kind: str = ""):
        super().__init__(message)
        self.message = message
        self.mistake = mistake
        self.errored = errored
        self.kind = kind


@contextlib.contextmanager
def student_code() -> Iterator[None]:
    """Around a call of a student's code: whatever it raises becomes a Failure that says so."""
    try:
        yield
    except (Failure, OutOfTime, KeyboardInterrupt):
        raise
    except BaseException as error:  # a student's sys.exit is a student's mistake, too
        if isinstance(error, NotImplementedError) and not str(error):  # with words it comes from torch
            raise Failure("is not written yet: it raises NotImplementedError.", errored=True) from error
        text = str(error).strip().splitlines()
        raise Failure(
            f"raised {type(error).__name__}: {text[0][:300] if text else '(no message)'}",
            errored=True,
            kind=type(error).__name__,
        ) from error
