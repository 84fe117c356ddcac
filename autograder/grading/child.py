"""A run in a process of its own: a kernel that reads far outside its tensors ends that process, not the notebook."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from autograder.kernels import Built, known_builds
from autograder.verdict import Report

__all__ = ["Crashed", "can_fork", "in_child"]


class Crashed(Exception):
    """The process ended before it had a report; the text says how."""


def can_fork() -> bool:
    """Whether a fork of this process can go on: not on Windows, and not once it has work on a GPU."""
    return hasattr(os, "fork") and not torch.cuda.is_initialized()


def in_child(run: Callable[[], Report]) -> Report:
    """What `run` returns, run in a fork. What was built there for another GPU is known here afterwards.

    Raises: Crashed if the process did not live to the end, RuntimeError with the traceback if `run` raised.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        _run(run, theirs)  # never returns
    os.close(theirs)
    status = None
    try:
        with os.fdopen(ours, "rb") as answer:
            text = answer.read()
        _, status = os.waitpid(child, 0)
    finally:
        if status is None:  # interrupted
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if not text:
        ended = os.waitstatus_to_exitcode(status)
        raise Crashed(signal.Signals(-ended).name if ended < 0 else f"exit status {ended}")
    found = json.loads(text)
    if "raised" in found:
        raise RuntimeError(found["raised"])
    known_builds().update({key: Built(**built) for key, built in found["built"].items()})
    return Report.from_dict(found["report"])


def _run(run: Callable[[], Report], channel: int) -> None:
    try:
        # Threads do not survive a fork. With one, torch needs none; interrupts are for the parent, which ends us.
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        faulthandler.disable()  # a crash here is told in the report, not as a dump in the terminal
        before = set(known_builds())
        answer: dict[str, Any]
        try:
            report = run()
            new = {key: asdict(built) for key, built in known_builds().items() if key not in before}
            answer = {"report": report.to_dict(), "built": new}
        except Exception:  # noqa: BLE001  the parent raises it
            answer = {"raised": traceback.format_exc()}
        with os.fdopen(channel, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
        os._exit(0)
    finally:
        os._exit(70)
