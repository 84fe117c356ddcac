"""Values that hold others: trees of lists, tuples and mappings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["each_once", "mapped"]


def mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A tree of lists, tuples and mappings with `leaf` done to what is none of these, in order."""
    if isinstance(value, (list, tuple)):
        # A named tuple would want its items one by one.
        return (list if isinstance(value, list) else tuple)(mapped(item, leaf) for item in value)
    if isinstance(value, Mapping):
        return {key: mapped(item, leaf) for key, item in value.items()}
    return leaf(value)


def each_once(values: Mapping[str, Any], leaf: Callable[[Any], Any]) -> dict[str, Any]:
    """The mapping with `leaf` done to each value; what is one object under two names stays one."""
    made: dict[int, Any] = {}
    for value in values.values():
        if id(value) not in made:
            made[id(value)] = leaf(value)
    return {name: made[id(value)] for name, value in values.items()}
