"""What a formula yields: a value, and what its rounding errors are measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Quantity", "Rounder", "exact", "rounder"]

Rounder = Callable[[Tensor], Tensor]
"""Rounds a float64 tensor to a dtype's grid, staying float64."""


def exact(values: Tensor) -> Tensor:
    """The rounder of exact arithmetic: nothing is lost."""
    return values


def rounder(dtype: torch.dtype) -> Rounder:
    """The rounder to `dtype`."""
    return lambda values: values.to(dtype).to(torch.float64)


@dataclass(frozen=True)
class Quantity:
    """A result of a formula.

    value: float64. magnitude: same shape, the sum of the absolute values of the terms that were added up, which is
    what the rounding error of a sum is proportional to. growth: the largest sum of |q||k| in an exponent; an
    exponential multiplies the rounding error of its argument by it (0 where there is no exponential).
    """

    value: Tensor
    magnitude: Tensor
    growth: float = 0.0
