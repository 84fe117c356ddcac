"""Right writings under activation checkpointing."""

from __future__ import annotations

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from solutions.shared_attention import SharedLayerStack
from tests.exercises.catalogue import right


@right("SharedLayerStack")
class CheckpointedLayers(SharedLayerStack):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.depth):
            x = checkpoint(self.layer, x, use_reentrant=False)
        return x
