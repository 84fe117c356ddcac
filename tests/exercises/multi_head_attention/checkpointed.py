"""Right writings under activation checkpointing: what is computed again in the backward pass meets the same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from solutions.multi_head_attention import MultiHeadAttention, TransformerBlock
from tests.exercises.catalogue import right


class Again(nn.Module):
    """A layer whose result is computed again in the backward pass."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Any:
        return checkpoint(lambda y: nn.functional.linear(y, self.weight, self.bias), x, use_reentrant=False)


@right("MultiHeadAttention")
class CheckpointedProjections(MultiHeadAttention):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.q_proj, self.k_proj, self.v_proj = map(Again, (self.q_proj, self.k_proj, self.v_proj))


@right("TransformerBlock")
class CheckpointedFeedForward(TransformerBlock):
    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        def attend(y: Tensor) -> Tensor:
            return self.attention(y, attn_mask=attn_mask, is_causal=is_causal)[0]

        def think(y: Tensor) -> Tensor:
            return self.linear2(torch.relu(self.linear1(y)))

        if not self.norm_first:
            x = self.norm1(x + attend(x))
            return self.norm2(x + checkpoint(think, x, use_reentrant=False))
        x = x + checkpoint(lambda y: attend(self.norm1(y)), x, use_reentrant=False)
        return x + checkpoint(lambda y: think(self.norm2(y)), x, use_reentrant=False)
