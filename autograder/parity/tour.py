"""The cases that every backend is tried on: each shape meets another distribution, and some lie scattered in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autograder.parity.cases import Inputs, Shape, draw_inputs

__all__ = ["LARGE", "TOUR", "Stop", "stops"]

GUARD = 8
"""Unused numbers behind each row, and rows behind the last: nan, which shows wherever it is read and not masked."""


@dataclass(frozen=True)
class Stop:
    """One case. strided: heads lie behind positions in memory, with nan in between. core: for slow backends, too."""

    distribution: str
    shape: Shape
    strided: bool = False
    core: bool = False

    def __str__(self) -> str:
        return f"{self.distribution}, {self.shape}{' strided' if self.strided else ''}"

    def inputs(self, precision: str, device: str = "cpu") -> Inputs:
        """Always the same numbers, on that device."""
        drawn = draw_inputs(self.distribution, self.shape, precision).to(device)
        if not self.strided:
            return drawn
        query, key, value, upstream = (_scattered(x) for x in (*drawn.tensors, drawn.upstream))
        return replace(drawn, query=query, key=key, value=value, upstream=upstream)


def _scattered(x: Tensor) -> Tensor:
    """The same (B, H, S, D) as a view of a larger (B, S, H, D) that is nan elsewhere."""
    B, H, S, D = x.shape
    buffer = torch.full((B, S + GUARD, H, D + GUARD), torch.nan, dtype=x.dtype, device=x.device)
    view = buffer[:, :S, :, :D].transpose(1, 2)
    view.copy_(x)
    return view


TOUR = (
    Stop("normal", Shape(1, 4, 2, 33, 33, 64, is_causal=True), core=True),
    Stop("normal", Shape(2, 3, 3, 37, 53, 40)),
    Stop("heavy-tailed", Shape(1, 6, 2, 29, 45, 32), core=True),
    Stop("peaked", Shape(1, 2, 2, 50, 70, 96)),
    Stop("flat", Shape(1, 2, 2, 24, 40, 48)),
    Stop("uniform", Shape(1, 3, 1, 31, 33, 128)),
    Stop("huge", Shape(1, 2, 1, 21, 39, 128, is_causal=True)),
    Stop("dead rows", Shape(1, 2, 2, 19, 31, 64), core=True),
    Stop("equal keys", Shape(2, 2, 1, 45, 20, 80, is_causal=True)),
    Stop("large offset", Shape(1, 2, 2, 1, 67, 64)),
    Stop("large offset", Shape(1, 2, 1, 5, 515, 32)),  # so many keys show a sum of half precision
    Stop(
        "normal", Shape(1, 1, 1, 110, 150, 32)
    ),  # scores much larger than the inputs: a matrix of them would show
    Stop("tiny", Shape(2, 1, 1, 7, 1, 32)),
    Stop("one-hot", Shape(1, 2, 2, 65, 129, 64, is_causal=True)),
    Stop("cancelling", Shape(1, 2, 2, 17, 35, 256)),
    Stop("normal", Shape(2, 2, 1, 23, 41, 64), strided=True),
    Stop("peaked", Shape(1, 2, 2, 40, 40, 72, is_causal=True), strided=True),
)
LARGE = (
    Stop("normal", Shape(2, 8, 2, 512, 1000, 128, is_causal=True), core=True),
    Stop("peaked", Shape(1, 4, 4, 1025, 1025, 64)),
    Stop("heavy-tailed", Shape(1, 4, 1, 300, 2048, 96)),
    Stop("large offset", Shape(1, 2, 1, 65, 4099, 64)),
    Stop("normal", Shape(1, 2, 2, 1023, 1023, 256, is_causal=True)),
)
"""Too slow for a CPU."""


def stops(device: str) -> tuple[Stop, ...]:
    """The cases for a device."""
    return TOUR if device == "cpu" else TOUR + LARGE
