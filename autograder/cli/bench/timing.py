"""Running a command and watching it: its seconds, when its lines came, and the memory of its processes."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

__all__ = ["BenchError", "Run", "watch"]

SAMPLE_SECONDS = 0.25
JUDGE, ZYGOTE = "judge", "zygote"


class BenchError(Exception):
    """A command that is to be measured failed; the text says which, and the end of what it printed."""

    for_the_user = True


@dataclass
class Run:
    """seconds: from start to exit. lines: (second, text) of stdout. memory: for each kind of process, (second, bytes) of
    the largest one alone: what it holds by itself and shares with nobody."""

    seconds: float = 0.0
    lines: list[tuple[float, str]] = field(default_factory=list)
    memory: dict[str, list[tuple[float, int]]] = field(default_factory=dict)


def watch(command: list[str], folder: Path, *, memory: bool = False) -> Run:
    """Run a command to its end. Raises: BenchError if it exits with anything but 0."""
    run, start = Run(), time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    if memory:
        threading.Thread(target=_sample, args=(process.pid, run, start), daemon=True).start()
    for line in process.stdout or ():
        run.lines.append((time.perf_counter() - start, line.rstrip("\n")))
    status = process.wait()
    run.seconds = time.perf_counter() - start
    if status:
        tail = "\n".join(text for _, text in run.lines[-15:])
        raise BenchError(f"{' '.join(command)} in {folder} exited with {status}:\n{tail}")
    return run


def _sample(pid: int, run: Run, start: float) -> None:
    try:
        root = psutil.Process(pid)
        while True:
            largest: dict[str, int] = {}
            for kind, held in _held(root):
                largest[kind] = max(held, largest.get(kind, 0))
            for kind, held in largest.items():
                run.memory.setdefault(kind, []).append((time.perf_counter() - start, held))
            time.sleep(SAMPLE_SECONDS)
    except psutil.NoSuchProcess:
        return  # the command has ended


def _held(root: psutil.Process) -> Iterator[tuple[str, int]]:
    """Judges are forked by a fork server, and zygotes by the first zygote, which is the grader's own child."""
    for child in root.children():
        command = " ".join(child.cmdline())
        kind = JUDGE if "forkserver" in command else ZYGOTE if "zygote" in command else ""
        for process in child.children() if kind else ():
            try:
                yield kind, process.memory_full_info().uss
            except psutil.NoSuchProcess:
                continue
