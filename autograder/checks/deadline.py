"""A deadline for code that may never return."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

__all__ = ["OutOfTime", "deadline"]


class OutOfTime(BaseException):
    """The deadline has passed. Not an Exception, so that a student's `except Exception` does not swallow it."""


@contextlib.contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Raise OutOfTime in the block after `seconds` of wall-clock time; None sets no deadline.

    Within another one, the other goes on where the block ends; what is left of it is no longer than it was.
    Works in the main thread of a Unix process; elsewhere the block just runs. It interrupts Python code, not a single
    long call into C: only killing the process stops that.
    """
    if (
        seconds is None
        or threading.current_thread() is not threading.main_thread()
        or not hasattr(signal, "setitimer")
    ):
        yield
        return

    def ring(signum: int, frame: FrameType | None) -> None:
        raise OutOfTime

    outer = signal.getitimer(signal.ITIMER_REAL)[0]
    since, previous = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    # rings again each second, should something swallow it
    signal.setitimer(signal.ITIMER_REAL, min(seconds, outer or seconds), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, outer - (time.monotonic() - since)), 1.0)
