"""The arithmetic of a kernel: operands on a dtype's grid, products and sums in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from autograder.oracle.quantity import tf32
from autograder.parity.cases import dtype_of

__all__ = ["Arithmetic"]

COARSER = {
    "float32": torch.float16,
    "tf32": torch.bfloat16,
    "float16": torch.bfloat16,
    "bfloat16": torch.float8_e4m3fn,
}
"""A dtype of fewer bits than the precision's own."""


class Arithmetic:
    """One precision. All tensors here are float32; `store` puts them on the grid of the precision's dtype."""

    def __init__(self, precision: str):
        self.precision, self.dtype = precision, dtype_of(precision)

    @property
    def half(self) -> bool:
        """Whether tensors take two bytes a number."""
        return self.dtype.itemsize == 2

    def store(self, values: Tensor) -> Tensor:
        """Round to the dtype, as a write to memory does."""
        return values.to(self.dtype).float()

    def coarse(self, values: Tensor) -> Tensor:
        """Round to a dtype of fewer bits, as right kernels do not."""
        return values.to(COARSER[self.precision]).float()

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """left (..., m, n) @ right (..., n, p), summed up in float32; half precision stores the operands first."""
        if self.precision == "tf32":
            left, right = tf32(left), tf32(right)
        return self.store(left) @ self.store(right)
