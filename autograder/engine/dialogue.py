"""Asking a worker: requests and answers, and what the worker may ask back."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch

from autograder.checks import Failure
from autograder.checks.deadline import OutOfTime
from autograder.checks.deadline import deadline as within
from autograder.checks.kernels import STRAY
from autograder.engine.nursery import KILLED, Limit, Nursery, NurseryError
from autograder.engine.plain import plain
from autograder.engine.wire import (
    MOST_GIVEN,
    TOO_MUCH,
    Callback,
    Closed,
    Limits,
    Malformed,
    Opaque,
    numbers_in,
    receive,
    send,
)
from autograder.engine.worker.jail import OUT_OF_MEMORY
from autograder.trees import mapped

__all__ = ["Stopped", "Worker", "stand_for"]

MOST_FORGOTTEN = 1000

MOST_CALLS = 1000
"""So many calls of functions that it was handed one call of the student's may make."""

LONGEST_ERROR = 300
"""Characters of what went wrong in such a function, for the student's code."""


class Stopped(Failure):
    """The worker is gone, or was stopped; the text is the reason for the student.

    To a check it is a failure like any other: what passed before it keeps its points.
    """

    def __init__(self, reason: str, mistake: str | None = None):
        super().__init__(reason, mistake=mistake, errored=True)


def stand_for(value: Opaque) -> Any:
    """An object that is good for nothing but the name of its type."""
    name = value.kind if value.kind.isidentifier() else "object"
    return type(name, (), {"__repr__": lambda self: f"<a {name}>"})()


def _known(value: Any) -> Any:
    """An object in place of what did not cross."""
    return stand_for(value) if isinstance(value, Opaque) else value


class _Handed:
    """How much student code may still ask, in one request, of the functions that it was handed."""

    def __init__(self) -> None:
        self.calls, self.given = MOST_CALLS, MOST_GIVEN

    def take(self, arguments: Any) -> str:
        """Count one call: what to tell student code that has asked for too much, "" if it has not."""
        self.calls -= 1
        self.given -= numbers_in(arguments)
        if self.calls < 0:
            return f"this function was called more than {MOST_CALLS:,} times in one go. Is there a loop that never ends?"
        return TOO_MUCH if self.given < 0 else ""


class Worker:
    """One jailed process for one submission. Every request has a deadline, and every reply a limit.

    callbacks: functions of the judge's that student code was handed, by number, until `retire`.
    finished: numbers of calls whose gradients nobody will ask for any more; the next request tells the worker.
    gone: why it does not answer any more, in words for the student; "" while it does. crashed: it went by touching
    memory that is not its own. lost: it went with its zygote, through no fault of the student's.
    """

    def __init__(self, nursery: Nursery, pid: int, channel: socket.socket, limit: Limit):
        self.nursery, self.pid, self.channel, self.limit = nursery, pid, channel, limit
        self.until = time.monotonic() + limit.submission
        self.gone, self.lost, self.crashed = "", "", False
        self.finished: list[int] = []
        self.callbacks: dict[int, Callable[..., Any]] = {}
        self.registered = 0

    def ask(self, do: str, seconds: float | None = None, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises: Stopped if the worker is gone, too slow, or answers nonsense; then it is dead, and stays so.
        NurseryError if the zygote is gone; a check may swallow it, so look at `lost`, too.
        """
        if self.lost:
            raise NurseryError(self.lost)
        if self.gone:
            raise Stopped(self.gone, STRAY if self.crashed else None)
        left = self.until - time.monotonic()
        seconds = min(self.limit.request if seconds is None else seconds, left)
        if seconds <= 0:
            self._stop(f"the submission took more than {self.limit.submission:g} s in all")
        ticket = os.urandom(8).hex()
        deadline = time.monotonic() + seconds + self.limit.grace
        request = {"do": do, "ticket": ticket, "seconds": seconds, "forget": self.finished[:MOST_FORGOTTEN]}
        del self.finished[:MOST_FORGOTTEN]
        self._send({**request, **arguments}, seconds, deadline)
        answer = self._receive(seconds, deadline)
        handed = _Handed()
        while "callback" in answer and answer.get("ticket") == ticket:
            found = self._call_back(answer, handed, deadline)
            try:
                self._send({"ticket": ticket, **found}, seconds, deadline)
            except Malformed as error:
                self._send({"ticket": ticket, **_raised(error)}, seconds, deadline)
            answer = self._receive(seconds, deadline)
        if answer.get("ticket") != ticket:
            self._stop("the process answered a question that was not asked")
        return answer

    def _send(self, message: Mapping[str, Any], seconds: float, deadline: float) -> None:
        try:
            send(self.channel, message, deadline)
        except Closed as error:
            self._lost_touch(error, seconds)

    def _receive(self, seconds: float, deadline: float) -> dict[str, Any]:
        try:
            return receive(self.channel, Limits(tensors=self.limit.reply), deadline)
        except Closed as error:
            self._lost_touch(error, seconds)
        except Malformed as error:
            self._stop(f"the process sent {error}")

    def _lost_touch(self, error: Closed, seconds: float) -> NoReturn:
        if "in time" in str(error):
            self._stop(f"the code did not finish within {seconds:.3g} s and could not be interrupted")
        self._stop(self._how_it_ended())

    def register(self, function: Callable[..., Any]) -> Callback:
        """What stands for a function of the judge's in a request: the worker may call it, while it answers one."""
        self.registered += 1
        self.callbacks[self.registered] = function
        return Callback(self.registered)

    def retire(self) -> None:
        """Let go of the functions that student code was handed: whoever has kept one is told that it answers no more."""
        self.callbacks.clear()

    def _call_back(self, asked: Mapping[str, Any], handed: _Handed, until: float) -> dict[str, Any]:
        """Do what the worker asks of the judge's function, by `until`: its result, or the error to raise there."""
        number, args, kwargs = (asked.get(key) for key in ("callback", "args", "kwargs"))
        if (
            type(number) is not int
            or not 0 < number <= self.registered
            or not isinstance(args, list)
            or not isinstance(kwargs, Mapping)
        ):
            self._stop("the process sent a call that makes no sense")
        if number not in self.callbacks:
            return _raised(RuntimeError("this function answers only during the check that it was made for"))
        if complaint := handed.take([args, kwargs]):
            return _raised(RuntimeError(complaint))
        try:
            with torch.no_grad(), within(max(0.001, until - time.monotonic())):
                return {"result": self.callbacks[number](*mapped(args, _known), **mapped(kwargs, _known))}
        except OutOfTime:
            self._stop("the code asked for more than the function that it was handed could do in time")
        except Exception as error:  # noqa: BLE001  the student's arguments may be anything
            return _raised(error)

    def _how_it_ended(self) -> str:
        try:
            status = self.nursery.status(self.pid, 2.0)
        except NurseryError as error:
            self.lost = str(error)
            raise
        if status is None:
            return "the process closed its connection"
        number = -status if status < 0 else status - 128
        if status == 0 or 0 < status < 128:
            return f"the process ended itself with exit status {status}"
        self.crashed = number in (signal.SIGSEGV, signal.SIGBUS)
        name = {9: KILLED, 11: "a segmentation fault",
                24: "out of processor time", 25: "a file that is too large", 6: "aborted", 7: "a bus error",
                OUT_OF_MEMORY - 128: "its processes together took too much memory"}  # fmt: skip
        return f"the process ended: {name.get(number, f'signal {number}')}"

    def _stop(self, reason: str) -> NoReturn:
        self.gone = reason
        self.close()
        raise Stopped(reason, STRAY if self.crashed else None)

    def close(self) -> None:
        """End the worker."""
        self.channel.close()
        self.nursery.kill(self.pid)


def _raised(error: Exception) -> dict[str, Any]:
    """An error for the student's code: the first line says what is wrong with what it handed over."""
    lines = str(error).strip().splitlines()
    return {
        "raised": {
            "name": type(error).__name__,
            "message": plain(lines[0], LONGEST_ERROR) if lines else "",
        }
    }
