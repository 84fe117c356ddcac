"""What a formula yields: a value, and what its rounding errors are measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "TF32_ROUNDOFF",
    "Dithered",
    "Quantity",
    "Rounder",
    "elsewhere",
    "exact",
    "farther",
    "rounder",
    "tf32",
    "whole",
]

Rounder = Callable[[Tensor], Tensor]
"""Rounds a float64 tensor to a dtype's grid, staying float64."""


def exact(values: Tensor) -> Tensor:
    """The rounder of exact arithmetic: nothing is lost."""
    return values


TF32_ROUNDOFF = 2.0**-11
"""Half the distance from 1 to the next number of tf32, float32 with 10 bits after the point."""


def tf32(values: Tensor) -> Tensor:
    """Rounds to tf32, as tensor cores do with float32 operands; float32 or float64, and stays so."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa / TF32_ROUNDOFF), exponent - 11)


def rounder(dtype: torch.dtype | str, dither: int | None = None) -> Rounder:
    """The rounder to `dtype`, or to "tf32".

    With `dither` (a seed) each number is first moved by up to one unit roundoff, at random: the errors of another
    right computation of the same kind, which rounds in other places.
    """

    def nearest(values: Tensor) -> Tensor:
        return tf32(values) if isinstance(dtype, str) else values.to(dtype).to(torch.float64)

    if dither is None:
        return nearest
    generator = torch.Generator().manual_seed(dither)
    unit = TF32_ROUNDOFF if isinstance(dtype, str) else torch.finfo(dtype).eps / 2

    def round(values: Tensor) -> Tensor:
        noise = 2 * torch.rand(values.shape, generator=generator, dtype=torch.float64) - 1
        return nearest(values * (1 + unit * noise))

    return round


def elsewhere(dtype: torch.dtype | str, seed: int) -> Rounder:
    """A rounder to as many bits as `dtype`, or "tf32", on a grid of its own for each number: the errors of another
    right computation, no larger than those of the first. What it yields is on no grid."""
    generator = torch.Generator().manual_seed(seed)
    nearest = rounder(dtype)

    def round(values: Tensor) -> Tensor:
        factors = 1 + torch.rand(values.shape, generator=generator, dtype=torch.float64)
        return nearest(values * factors) / factors

    return round


class Dithered(TorchDispatchMode):
    """A block in which what every operator gives, forward and backward, is moved by about `share` of it, at random.

    What that does to a result tells how much rounding may do to it, wherever terms cancel.
    """

    def __init__(self, generator: torch.Generator, share: float):
        super().__init__()
        self.generator, self.share = generator, share

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        moved = isinstance(result, Tensor) and result.is_floating_point()
        if not moved or any(one.alias_info is not None for one in func._schema.returns):
            return result  # whole numbers, and other views of what has been moved already
        noise = torch.randn(result.shape, generator=self.generator, dtype=torch.float64)
        return result * (1 + self.share * noise)


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


def whole(number: int) -> Tensor:
    """A whole number as a tensor that holds it exactly, where int64 does; beyond, rounded in float64."""
    if -(2**63) <= number < 2**63:
        return torch.tensor(number, dtype=torch.int64)
    return torch.tensor(float(max(min(number, 10**300), -(10**300))), dtype=torch.float64)
