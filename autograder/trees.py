"""Values that hold others: trees of lists, tuples and mappings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["mapped"]


def mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A tree of lists, tuples and mappings with `leaf` done to what is none of these, in order."""
    if isinstance(value, (list, tuple)):
        # A named tuple would want its items one by one.
        return (list if isinstance(value, list) else tuple)(mapped(item, leaf) for item in value)
    if isinstance(value, Mapping):
        return {key: mapped(item, leaf) for key, item in value.items()}
    return leaf(value)
