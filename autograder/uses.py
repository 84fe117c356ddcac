"""Which global names a function or class uses."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

__all__ = ["used_names"]

GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME"}


def used_names(obj: Any) -> frozenset[str]:
    """The global names that a function or class uses, itself or through other functions of the same notebook.

    obj: a student's object; a kernel's function is found behind Triton's decorators. Nothing is called.
    """
    seen: dict[int, FunctionType] = {}
    names: set[str] = set()
    left = list(_functions(obj))
    while left:
        function = left.pop()
        if id(function) in seen:
            continue
        seen[id(function)] = function
        found = set(_globals(function.__code__)) & function.__globals__.keys()
        names |= found
        left += [
            one for name in found for one in _functions(function.__globals__[name]) if _beside(one, function)
        ]
    return frozenset(names)


def _beside(one: FunctionType, function: FunctionType) -> bool:
    return one.__globals__ is function.__globals__


def _functions(obj: Any) -> Iterator[FunctionType]:
    """The functions written in Python that an object is made of."""
    obj = inspect.unwrap(obj) if isinstance(obj, FunctionType) else obj
    for _ in range(8):  # decorators of a kernel hold it as their fn
        if isinstance(obj, (FunctionType, type)) or "fn" not in getattr(obj, "__dict__", {}):
            break
        obj = obj.__dict__["fn"]
    if isinstance(obj, FunctionType):
        yield obj
    elif isinstance(obj, type):
        members: list[Any] = [getattr(one, "__func__", one) for one in vars(obj).values()]
        yield from (one for one in members if isinstance(one, FunctionType))


def _globals(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in GLOBALS:
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals(constant)
