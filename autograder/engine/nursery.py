"""The judge's handle on a zygote. Importing this takes no torch: who merely starts judges need not wait for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autograder.engine.worker.jail import Bounds
from autograder.kernels.gpu import interpreted

if TYPE_CHECKING:
    from autograder.engine.dialogue import Worker

__all__ = ["KILLED", "Limit", "Nursery", "NurseryError"]

START_SECONDS = 120.0
KILLED = "killed (out of memory or of processor time, or by somebody else)"


HEAVY = {"optim": "torch._dynamo"}
"""Words in a notebook, and the slow import that each brings about: the first optimizer takes most of a second."""


class NurseryError(Exception):
    """The zygote or the jail does not work on this machine: nobody's submission is at fault. The text says why."""


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
        self.preloaded: set[str] = set()
        if control is not None:
            self.control = control
            return
        self.control, theirs = _control_pair()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autograder.engine.worker.zygote", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=_environment(jail),
            cwd="/",
        )
        theirs.close()

    def preload(self, notebook: str) -> None:
        """Have the zygote import, before its next fork, what the notebook's code will make torch import."""
        names = [name for word, name in HEAVY.items() if word in notebook and name not in self.preloaded]
        if names:
            self.preloaded.update(names)
            try:
                self.control.send(json.dumps({"preload": names}).encode())
            except OSError as error:
                raise NurseryError("the zygote is gone") from error

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
        from autograder.engine.dialogue import Worker

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


def _control_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _environment(jail: bool) -> dict[str, str]:
    """The zygote's: one thread in every library, nothing of the grader's own. From a jail no GPU is to be seen."""
    package = str(Path(__file__).resolve().parents[2])
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ
    }
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        **kept,
        **single,
        "PYTHONPATH": package,
        "MPLBACKEND": "agg",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRITON_INTERPRET": str(
            int(jail or interpreted())
        ),  # read when Triton is imported, which torch does by itself
    }
