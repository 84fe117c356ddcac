"""The zygote: one clean process that has torch imported, and forks a jailed worker for each submission.

    python -m autograder.engine.worker.zygote FD

FD is a Unix socket to the judge. Each request on it carries, beside a line of JSON, the worker's end of a socket pair.
Replies: {"pid": n} when a worker runs, {"gone": pid, "status": n} when one has ended. The request {"twin": true} brings
another such control socket, and forks a zygote that serves it: several judges share one start-up; {"preload": [names]}
has it import more, for workers and zygotes forked later. A zygote does no
torch work itself, so that no thread exists when it forks, and it never holds an oracle, a seed or a solution.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import random
import selectors
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["main", "preload"]

PRELOAD = (
    "numpy", "numpy.ctypeslib", "torch", "torch.nn.functional", "torch.func", "torch.utils.flop_counter",
    "torch.fx.experimental.symbolic_shapes",  # torch.autograd.grad asks for it, and for sympy with it
    "jaxtyping",
    "IPython", "matplotlib.pyplot", "ipywidgets", "safetensors.torch", "einops",
)  # fmt: skip
"""Imported once, here, instead of in each worker; what is not installed is left out. Start-up waits for it, so what few
submissions use comes later, by a request."""

WORKERS_AT_ONCE = 8
"""So many uids a zygote gives out in turn."""


def preload() -> Any:
    """Import all that workers use; the shell that they run cells in."""
    _import(PRELOAD)
    from autograder.engine.worker import jail, serve  # noqa: F401  (loaded here, used in the workers)
    from autograder.engine.worker.cells import make_shell

    _know_the_processor()
    jail.readable_paths()
    jail.hidden_paths()  # looked up here, for all workers
    return make_shell()


def _know_the_processor() -> None:
    """Conversions to half precision ask once what the processor can do; in a jail there is nobody to ask."""
    import torch

    torch.ones(64, 64).half().float()  # too small for a second thread


def _import(names: Iterable[str]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # a package that the course does without


def _freeze() -> None:
    """What is there now is shared with all forks for good."""
    gc.collect()
    gc.freeze()


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _worker(shell: Any, channel: socket.socket, request: dict[str, Any], number: int) -> None:
    """The life of a worker, from the fork to its end; never returns."""
    from autograder.engine.worker.serve import serve

    try:
        if request["jail"]:
            from autograder.engine.worker import jail

            jail.enter(number, jail.Bounds(**request["bounds"]), channel.fileno())
        else:
            os.setsid()  # so that it can be killed with what it started
            if sys.platform == "linux":
                from autograder.engine.worker import kernel_calls

                kernel_calls.die_with_parent()
        _reseed()
        channel.sendall(b"+")
    except BaseException as error:  # noqa: BLE001  the judge is told, and the worker ends
        try:
            channel.sendall(b"-" + f"{type(error).__name__}: {error}".encode()[:500])
        finally:
            os._exit(70)
    try:
        serve(channel, shell)
    except BaseException:  # noqa: BLE001  what a student has broken so far that nothing can be answered any more
        os._exit(70)
    os._exit(0)


def _reseed() -> None:
    """Forks share the zygote's random state; each worker starts from its own."""
    import numpy
    import torch

    random.seed()
    numpy.random.seed()
    torch.manual_seed(int.from_bytes(os.urandom(7), "big"))


def _request(control: socket.socket) -> tuple[dict[str, Any] | None, int | None]:
    """The next request, and the file descriptor that came with it."""
    try:
        data, ancillary, _, _ = control.recvmsg(65_536, socket.CMSG_SPACE(4))
    except ConnectionResetError:
        return None, None  # the judge hung up with replies unread
    if not data:
        return None, None
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[:4])
    return json.loads(data), descriptors[0] if descriptors else None


def main() -> None:
    """Serve until the judge hangs up; then all workers die, because their parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the grader, which ends us by hanging up
    control = socket.socket(fileno=int(sys.argv[1]))
    shell = preload()
    _freeze()
    control.send(json.dumps({"ready": True, "threads": _threads()}).encode())
    _loop(shell, control)
    os._exit(0)  # what is frozen cannot be taken apart at the end; Triton would complain about it


def _loop(shell: Any, control: socket.socket) -> None:
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    workers = _Workers()
    while True:
        for key, _ in selector.select():
            if key.fileobj is control:
                request, descriptor = _request(control)
                if request is None:
                    return
                _serve_request(shell, control, request, descriptor, workers)
            else:
                os.read(wake, 4096)
        _reap(control, workers)


class _Workers:
    """The workers that run and have not been reaped yet, so that their numbers are still their own."""

    def __init__(self) -> None:
        self.jailed: dict[int, bool] = {}
        self.home, self.count = os.getpid(), 0

    def number(self) -> int:
        """A number that no other worker on this machine has, nor the one before, which may not have died yet."""
        return self.home * WORKERS_AT_ONCE + self.count % WORKERS_AT_ONCE

    def add(self, pid: int, jailed: bool) -> None:
        self.jailed[pid] = jailed
        self.count += 1

    def kill(self, pid: int) -> None:
        """End a worker and all that it started: its guard does so where it is jailed."""
        if pid not in self.jailed:
            return
        if self.jailed[pid]:
            os.kill(pid, signal.SIGTERM)
        else:
            with contextlib.suppress(ProcessLookupError):  # it has not got as far as a group of its own
                os.killpg(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)

    def remove(self, pid: int) -> bool:
        """Forget a worker that has ended; whether it was one."""
        return self.jailed.pop(pid, None) is not None


def _serve_request(
    shell: Any, control: socket.socket, request: dict[str, Any], descriptor: int | None, workers: _Workers
) -> None:
    if "kill" in request:
        workers.kill(request["kill"])
        return
    if "preload" in request:
        _import(request["preload"])
        _freeze()
        return
    if descriptor is None:
        return
    channel = socket.socket(fileno=descriptor)
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        if request.get("twin"):
            _twin(shell, channel)
        _worker(shell, channel, request, workers.number())
    channel.close()
    if request.get("twin"):
        return
    workers.add(pid, request["jail"])
    control.send(json.dumps({"pid": pid}).encode())


def _twin(shell: Any, control: socket.socket) -> None:
    """Be a zygote for another judge; never returns. Its own judge's end lets it go, not its brother's."""
    try:
        control.send(json.dumps({"ready": True, "threads": _threads()}).encode())
        _loop(shell, control)
    finally:
        os._exit(0)


def _reap(control: socket.socket, workers: _Workers) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        if not workers.remove(pid):
            continue  # a twin
        try:
            control.send(json.dumps({"gone": pid, "status": os.waitstatus_to_exitcode(status)}).encode())
        except OSError:
            return  # the judge hung up; the loop sees it next


if __name__ == "__main__":
    main()
