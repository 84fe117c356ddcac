"""Triton's interpreter, as the checks use it."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["without_overflow_checks"]


@contextlib.contextmanager
def without_overflow_checks() -> Iterator[None]:
    """Within the block the interpreter looks for no overflow of whole numbers.

    That search takes a third of its time, and unless Triton is set to debug nothing comes of it. Does nothing where Triton
    has not been imported, or has no such option.
    """
    builder = getattr(sys.modules.get("triton.runtime.interpreter"), "interpreter_builder", None)
    options: Any = getattr(builder, "options", None)
    if builder is None or not hasattr(options, "sanitize_overflow"):
        yield
        return
    builder.options = dataclasses.replace(options, sanitize_overflow=False)
    try:
        yield
    finally:
        builder.options = options
