"""Building kernels for a GPU that this machine need not have, in a process of their own."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from autograder.kernels.launches import Launch

__all__ = ["H200", "PROGRAM", "Architecture", "Built", "cross_compile", "cross_compiling", "known_builds"]

PROGRAM = Path(__file__).with_name("build.py")
SECONDS = 120.0
"""For one program, all kernels together."""

REMEMBERED = 256

BLOCK = re.compile(r"tensordesc<[a-z]+(\d{1,2})\w*\[(\d{1,9}(?:, \d{1,9}){0,4})\]>")
"""Triton's type of a descriptor: bits of an element, and the sides of a block."""


@dataclass(frozen=True)
class Architecture:
    """What one program may have. shared: bytes of shared memory. registers: of one thread."""

    name: str
    capability: int
    shared: int
    registers: int


H200 = Architecture("sm_90 (H100, H200)", 90, 232_448, 255)


@dataclass(frozen=True)
class Built:
    """What a built kernel needs: bytes of shared memory for a program; registers and spilled bytes for a thread.

    error: why it could not be built, "" if it was.
    """

    shared: int = 0
    registers: int = 0
    spilled: int = 0
    error: str = ""


Runner = Callable[[str, str], str]
"""Runs a Python program, given as its text, on an input, and returns what it writes."""


def _run_here(program: str, asked: str) -> str:
    with tempfile.TemporaryDirectory() as place:
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": place, "TMPDIR": place}
        try:
            run = subprocess.run(
                [sys.executable, "-c", program],
                input=asked,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
                env=environment,
                cwd=place,
            )
        except subprocess.TimeoutExpired:
            return ""  # which is no answer
    return run.stdout


_runner: ContextVar[Runner] = ContextVar("runner", default=_run_here)
_known: OrderedDict[str, Built] = OrderedDict()


def known_builds() -> OrderedDict[str, Built]:
    """What this process has built so far, the latest last."""
    return _known


@contextlib.contextmanager
def cross_compiling(runner: Runner) -> Iterator[None]:
    """Within the block kernels are built by `runner`: the text of a program and its input in, its output out."""
    token = _runner.set(runner)
    try:
        yield
    finally:
        _runner.reset(token)


def cross_compile(launches: Sequence[Launch], architecture: Architecture = H200) -> list[Built]:
    """Build the kernels of these launches: what each needs, in order. The same kernel is built once in a process."""
    keys = [json.dumps([architecture.capability, _recipe(launch)], sort_keys=True) for launch in launches]
    plain = [_without_building(launch, architecture) for launch in launches]
    new = {
        k: one for k, one, told in zip(keys, launches, plain, strict=True) if k not in _known and told is None
    }
    if new:
        asked = {"capability": architecture.capability, "kernels": [_recipe(one) for one in new.values()]}
        answers = _answers(_runner.get()(PROGRAM.read_text(encoding="utf-8"), json.dumps(asked)), len(new))
        _known.update(zip(new, answers, strict=True))
        while len(_known) > max(REMEMBERED, len(launches)):
            _known.popitem(last=False)
    return [_known[key] if told is None else told for key, told in zip(keys, plain, strict=True)]


def _without_building(launch: Launch, architecture: Architecture) -> Built | None:
    """What is plain before a kernel is built: that it cannot be described, or has a block too large for shared memory.

    All that a descriptor loads or stores passes through shared memory in one piece; the compiler takes long to see it.
    """
    if launch.problem:
        return Built(error=launch.problem)
    blocks = max(map(_block_size, launch.signature.values()), default=0)
    return Built(shared=blocks) if blocks > architecture.shared else None


def _block_size(kind: str) -> int:
    """Bytes of a block of this type of argument, 0 if it is no descriptor."""
    found = BLOCK.fullmatch(kind)
    if found is None:
        return 0
    return math.prod(int(side) for side in found[2].split(", ")) * max(1, int(found[1]) // 8)


def _recipe(launch: Launch) -> dict[str, object]:
    kept = launch.to_dict()
    del kept["grid"], kept["problem"]
    return kept


def _answers(text: str, count: int) -> list[Built]:
    """What the program wrote, which may be anything: the kernels' code ran there."""
    broken = [Built(error="the compiler ended without an answer")] * count
    try:
        found = json.loads(text)
    except ValueError:
        return broken
    if not isinstance(found, list) or len(found) != count:
        return broken
    return [_answer(one) for one in found]


def _answer(found: object) -> Built:
    if not isinstance(found, dict):
        return Built(error="the compiler answered nonsense")
    if isinstance(found.get("error"), str):
        return Built(error=found["error"][:1500])
    numbers = [found.get(name) for name in ("shared", "registers", "spilled")]
    if not all(type(number) is int for number in numbers):
        return Built(error="the compiler answered nonsense")
    return Built(*numbers)  # type: ignore[arg-type]
