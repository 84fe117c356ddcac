"""How a check says no."""

from __future__ import annotations

__all__ = ["Failure"]


class Failure(Exception):
    """A check's claim does not hold.

    message: where, what was expected, what came, and a question about the likely cause.
    mistake: the name of the mistake, where the check alone can tell. errored: the student's code raised.
    """

    def __init__(self, message: str, *, mistake: str | None = None, errored: bool = False):
        super().__init__(message)
        self.message = message
        self.mistake = mistake
        self.errored = errored
