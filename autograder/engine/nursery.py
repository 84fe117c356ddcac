"""The judge's handle on a zygote, and on the workers that it forks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from autograder.checks import Failure
from autograder.engine.wire import Callback, Closed, Limits, Malformed, receive, send
from autograder.engine.worker.jail import OUT_OF_MEMORY, Bounds

__all__ = ["Limit", "Nursery", "NurseryError", "Stopped", "Worker"]

START_SECONDS = 120.0
MOST_FORGOTTEN = 1000
KILLED = "killed (out of memory or of processor time, or by somebody else)"


class NurseryError(Exception):
    """The zygote or the jail does not work on this machine: nobody's submission is at fault. The text says why."""


class Stopped(Failure):
    """The worker is gone, or was stopped; the text is the reason for the student.

    To a check it is a failure like any other: what passed before it keeps its points.
    """

    def __init__(self, reason: str):
        super().__init__(reason, errored=True)


@dataclass(frozen=True)
class Limit:
    """What a submission may use. Seconds of wall clock for one request and for all of them; bytes for the tensors of one
    reply, and for what all its cells show.

    grace is how long after `request` a worker may take to give up by itself, before it is killed.
    """

    request: float = 10.0
    cell: float = 30.0
    submission: float = 180.0
    grace: float = 2.0
    reply: int = 64 << 20
    output: int = 16 << 20
    bounds: Bounds = field(default_factory=Bounds)


class Nursery:
    """A zygote to ask for workers. Use as a context manager; one judge has one, and shares it with nobody.

    `Nursery()` starts a zygote. `twin()` has it fork another one, for a judge in another process: the socket that
    comes back makes that judge's `Nursery(control=...)`.
    """

    def __init__(self, jail: bool = True, control: socket.socket | None = None):
        self.jail = jail
        self.process: subprocess.Popen[bytes] | None = None
        self.ended: dict[int, int] = {}
        self.ready = False
        if control is not None:
            self.control = control
            return
        self.control, theirs = _control_pair()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autograder.engine.worker.zygote", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=_environment(),
            cwd="/",
        )
        theirs.close()

    def twin(self) -> socket.socket:
        """The control socket of another zygote, forked from this one as soon as it is ready."""
        ours, theirs = _control_pair()
        try:
            socket.send_fds(self.control, [json.dumps({"twin": True}).encode()], [theirs.fileno()])
        except OSError as error:
            raise NurseryError("the zygote is gone") from error
        finally:
            theirs.close()
        return ours

    def wait_until_ready(self) -> None:
        """Wait for the zygote's imports. Raises: NurseryError if it does not come up, or has threads."""
        if self.ready:
            return
        reply = self._reply()
        if reply.get("threads") != 1:
            raise NurseryError(
                f"the zygote runs {reply.get('threads')} threads; a fork would hang. Expected 1."
            )
        self.ready = True

    def worker(self, limit: Limit) -> Worker:
        """A fresh worker in its jail. Raises: NurseryError if the zygote is gone or the jail cannot be had."""
        self.wait_until_ready()
        ours, theirs = socket.socketpair()
        request = {"jail": self.jail, "bounds": limit.bounds.to_dict()}
        try:
            socket.send_fds(self.control, [json.dumps(request).encode()], [theirs.fileno()])
        except OSError as error:
            raise NurseryError("the zygote is gone") from error
        finally:
            theirs.close()
        while "pid" not in (reply := self._reply()):
            continue  # a worker of before has ended
        self.ended.pop(int(reply["pid"]), None)  # numbers come round again
        ours.settimeout(START_SECONDS)
        try:
            greeting = ours.recv(1)
            if greeting == b"-":
                raise NurseryError(f"no jail: {ours.recv(500).decode(errors='replace')}")
        except OSError as error:
            raise NurseryError("a worker did not start") from error
        if greeting != b"+":
            raise NurseryError("a worker did not start")
        return Worker(self, int(reply["pid"]), ours, limit)

    def kill(self, pid: int) -> None:
        """Kill a worker and everything that it started: with its first process its whole pid namespace goes."""
        try:
            self.control.send(json.dumps({"kill": pid}).encode())
        except OSError:
            self.ready = False  # the zygote is gone, and its workers with it

    def status(self, pid: int, seconds: float) -> int | None:
        """The exit status of a worker, waiting at most `seconds`; None if it still runs then.

        Raises: NurseryError if the zygote is gone.
        """
        until = time.monotonic() + seconds
        while pid not in self.ended and time.monotonic() < until:
            try:
                self._next(max(0.01, until - time.monotonic()))
            except TimeoutError:
                return None
        return self.ended.pop(pid, None)

    def _reply(self) -> dict[str, Any]:
        """What the zygote says next. Raises: NurseryError if it is gone, or says nothing."""
        try:
            return self._next(START_SECONDS)
        except TimeoutError as error:
            raise NurseryError("the zygote does not answer") from error

    def _next(self, seconds: float) -> dict[str, Any]:
        self.control.settimeout(seconds)
        try:
            data = self.control.recv(65_536)
        except TimeoutError:
            raise
        except OSError as error:
            raise NurseryError("the zygote is gone") from error
        if not data:
            raise NurseryError("the zygote is gone")
        reply: dict[str, Any] = json.loads(data)
        if "gone" in reply:
            self.ended[int(reply["gone"])] = int(reply["status"])
        return reply

    def close(self) -> None:
        """End the zygote, and with it every worker."""
        self.control.close()
        if self.process is not None:
            self.process.kill()  # it may be busy importing
            self.process.wait()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Worker:
    """One jailed process for one submission. Every request has a deadline, and every reply a limit.

    callbacks: functions of the judge's that student code was handed, by number.
    finished: numbers of calls whose gradients nobody will ask for any more; the next request tells the worker.
    gone: why it does not answer any more, in words for the student; "" while it does. lost: it went with its zygote,
    through no fault of the student's.
    """

    def __init__(self, nursery: Nursery, pid: int, channel: socket.socket, limit: Limit):
        self.nursery, self.pid, self.channel, self.limit = nursery, pid, channel, limit
        self.until = time.monotonic() + limit.submission
        self.gone, self.lost = "", ""
        self.finished: list[int] = []
        self.callbacks: list[Callable[..., Any]] = []

    def ask(self, do: str, seconds: float | None = None, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises: Stopped if the worker is gone, too slow, or answers nonsense; then it is dead, and stays so.
        NurseryError if the zygote is gone; a check may swallow it, so look at `lost`, too.
        """
        if self.lost:
            raise NurseryError(self.lost)
        if self.gone:
            raise Stopped(self.gone)
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
        while "callback" in answer and answer.get("ticket") == ticket:
            self._send({"ticket": ticket, **self._call_back(answer)}, seconds, deadline)
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
        self.callbacks.append(function)
        return Callback(len(self.callbacks) - 1)

    def _call_back(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the worker asks of the judge's function: its result, or the error to raise there."""
        number, args, kwargs = (asked.get(key) for key in ("callback", "args", "kwargs"))
        if (
            not isinstance(number, int)
            or not 0 <= number < len(self.callbacks)
            or not isinstance(args, list)
            or not isinstance(kwargs, Mapping)
        ):
            self._stop("the process sent a call that makes no sense")
        try:
            with torch.no_grad():
                return {"result": self.callbacks[number](*args, **kwargs)}
        except Exception as error:  # noqa: BLE001  the student's arguments may be anything
            return {"raised": {"name": type(error).__name__, "message": str(error)[:2000]}}

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
        name = {9: KILLED, 11: "a segmentation fault",
                24: "out of processor time", 25: "a file that is too large", 6: "aborted", 7: "a bus error",
                OUT_OF_MEMORY - 128: "its processes together took too much memory"}  # fmt: skip
        return f"the process ended: {name.get(number, f'signal {number}')}"

    def _stop(self, reason: str) -> NoReturn:
        self.gone = reason
        self.close()
        raise Stopped(reason)

    def close(self) -> None:
        """End the worker."""
        self.channel.close()
        self.nursery.kill(self.pid)


def _control_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _environment() -> dict[str, str]:
    """The zygote's: one thread in every library, nothing of the grader's own."""
    package = str(Path(__file__).resolve().parents[2])
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ
    }
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **single, "PYTHONPATH": package, "MPLBACKEND": "agg", "PYTHONDONTWRITEBYTECODE": "1"}
