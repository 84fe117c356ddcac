"""Right writings under activation checkpointing."""

from __future__ import annotations

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from solutions.basic_attention import AdditiveScores, SelfAttention, attention
from tests.exercises.catalogue import right


@right("AdditiveScores")
class CheckpointedScores(AdditiveScores):
    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return checkpoint(super().forward, query, key, use_reentrant=False)


@right("SelfAttention")
class CheckpointedOutput(SelfAttention):
    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> tuple[Tensor, Tensor]:
        def projected(y: Tensor) -> tuple[Tensor, ...]:
            return self.q_proj(y), self.k_proj(y), self.v_proj(y)

        output, weights = attention(*checkpoint(projected, x, use_reentrant=False), attn_mask, is_causal)
        return checkpoint(self.out_proj, output, use_reentrant=False), weights
