"""How long a call takes: by device events on a GPU, by the wall clock on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["complaint", "seconds_of"]

ROUNDS = 3
"""On a CPU the contenders take turns so often, and the quickest call of each counts."""

WORTH_REPEATING = 20.0
"""Seconds: a call that takes longer is timed once."""


def seconds_of(
    calls: Mapping[str, Callable[[], Any]], device: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of each call, and why some have none: their first line of complaint. Each is called once before."""
    ready: dict[str, Callable[[], Any]] = {}
    failed: dict[str, str] = {}
    for name, call in calls.items():
        try:
            call()
            ready[name] = call
        except Exception as error:  # noqa: BLE001  whatever a backend has against this shape is its line in the table
            failed[name] = complaint(error)
    return (_on_gpu if device == "cuda" else _on_cpu)(ready), failed


def complaint(error: Exception) -> str:
    """The first line of what an error says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160] if text else 'no reason given'}"


def _on_gpu(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """The median, by device events; the cache is flushed between calls."""
    from triton.testing import do_bench

    return {name: float(do_bench(call, return_mode="median")) / 1e3 for name, call in calls.items()}


def _on_cpu(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            if best.get(name, 0.0) > WORTH_REPEATING:
                continue
            start = time.perf_counter()
            call()
            best[name] = min(best.get(name, float("inf")), time.perf_counter() - start)
    return best
