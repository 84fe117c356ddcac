"""Counts: exact whole numbers as formulas, and products of which students leave a factor out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from autograder.oracle import Quantity, whole

__all__ = ["NO_TENSORS", "counted", "product"]

NO_TENSORS = {
    "gradient": "sizes are no tensors: nothing asks for a gradient",
    "layout": "sizes are no tensors: they have no strides",
    "device": "sizes are no tensors: they lie on no device",
    "state": "no memory is handed over, and every situation is a call after others of other sizes",
}
"""Circumstances that cannot matter where only numbers and flags are given, and why."""


def counted(formula: Callable[..., int]) -> Callable[..., dict[str, Quantity]]:
    """The formula of a target whose one result is the whole number `count`."""

    def quantity(round: object = None, **inputs: Any) -> dict[str, Quantity]:
        value = whole(formula(**inputs))
        return {"count": Quantity(value, value.double())}

    return quantity


def product(factors: Callable[..., Mapping[str, int]]) -> Callable[..., Tensor]:
    """A count that is a product, with factors by name that a mistake exchanges: `change` makes each of the inputs."""

    def count(change: Mapping[str, Callable[..., int]], **inputs: Any) -> Tensor:
        made = {**factors(**inputs), **{name: other(**inputs) for name, other in change.items()}}
        return whole(math.prod(made.values()))

    return count
