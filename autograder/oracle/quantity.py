"""What a formula yields: a value, and what its rounding errors are measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Quantity", "Rounder", "exact", "farther", "rounder"]

Rounder = Callable[[Tensor], Tensor]
"""Rounds a float64 tensor to a dtype's grid, staying float64."""


def exact(values: Tensor) -> Tensor:
    """The rounder of exact arithmetic: nothing is lost."""
    return values


def rounder(dtype: torch.dtype, dither: int | None = None) -> Rounder:
    """The rounder to `dtype`.

    With `dither` (a seed) each number is first moved by up to one unit roundoff, at random: the errors of another
    right computation of the same kind, which rounds in other places.
    """
    if dither is None:
        return lambda values: values.to(dtype).to(torch.float64)
    generator = torch.Generator().manual_seed(dither)
    unit = torch.finfo(dtype).eps / 2

    def round(values: Tensor) -> Tensor:
        noise = 2 * torch.rand(values.shape, generator=generator, dtype=torch.float64) - 1
        return (values * (1 + unit * noise)).to(dtype).to(torch.float64)

    return round


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


def farther(value: Tensor, *roundings: Tensor) -> Tensor:
    """Elementwise the rounding that lies farthest from `value`: where right solutions may round in several orders."""
    worst = roundings[0]
    for other in roundings[1:]:
        worst = torch.where((other - value).abs() > (worst - value).abs(), other, worst)
    return worst
