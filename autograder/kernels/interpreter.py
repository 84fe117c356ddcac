"""Triton's interpreter, as the checks use it: without the half of its work that changes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["quick_interpreter"]


@contextlib.contextmanager
def quick_interpreter() -> Iterator[None]:
    """Within the block the interpreter leaves out two things.

    It looks for no overflow of whole numbers: unless Triton is set to debug, nothing comes of what it finds. And a device
    function that a kernel calls does not search Triton's whole language again for what the kernel's launch has already
    replaced. Does nothing where Triton has not been imported, or is made otherwise.
    """
    interpreter: Any = sys.modules.get("triton.runtime.interpreter")
    with contextlib.ExitStack() as stack:
        builder = getattr(interpreter, "interpreter_builder", None)
        options: Any = getattr(builder, "options", None)
        if hasattr(options, "sanitize_overflow"):
            stack.enter_context(
                _set(builder, "options", dataclasses.replace(options, sanitize_overflow=False))
            )
        if inspect.isfunction(replace := getattr(interpreter, "_patch_builtin", None)):
            stack.enter_context(_set(interpreter, "_patch_builtin", _once(replace)))
        yield


@contextlib.contextmanager
def _set(place: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def _once(replace: Callable[..., Any]) -> Callable[..., Any]:
    """`replace`, which puts the interpreter's functions into a part of Triton's language, where they are not in it yet."""
    known: dict[int, tuple[str, Any]] = {}

    def replace_once(part: Any, *rest: Any, **named: Any) -> None:
        name, ours = known.get(id(part), ("", None))
        if name and getattr(part, name, None) is ours:
            return  # an outer call has done it, and has not yet put back what was there
        replace(part, *rest, **named)
        for name, now in inspect.getmembers(part, inspect.isfunction):
            # What it leaves in place of a function of the language is made in this one.
            if now.__qualname__.startswith("_patch_attr."):
                known[id(part)] = name, now
                return

    return replace_once
