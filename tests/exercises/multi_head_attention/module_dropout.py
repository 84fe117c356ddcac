"""`MultiHeadAttention`: mutants that go wrong in dropout, or where no weights are asked for."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant
from tests.exercises.multi_head_attention.function import cut, join
from tests.exercises.multi_head_attention.modules import (
    NAME,
    ByTheBook,
    together,
    variant,
)

# Dropout

DROP = "dropout in train mode"

variant("dropout_forgotten", "dropout never applied", only=DROP, drop=lambda m, w: w)
variant(
    "dropout_on_the_output",
    "dropout elsewhere than on the returned weights",
    only=DROP,
    drop=lambda m, w: w,
    finish=lambda m, w, v, q, n: (
        F.dropout(m.out_proj(join(w @ v)), m.rate, m.training),
        w if n else None,
    ),
)
variant(
    "dropout_on_the_values",
    "dropout elsewhere than on the returned weights",
    only=DROP,
    drop=lambda m, w: w,
    finish=lambda m, w, v, q, n: (
        m.out_proj(join(w @ F.dropout(v, m.rate, m.training))),
        w if n else None,
    ),
)
variant(
    "weights_before_dropout_returned",
    "dropout elsewhere than on the returned weights",
    only=DROP,
    drop=lambda m, w: w,
    finish=lambda m, w, v, q, n: (
        m.out_proj(join(F.dropout(w, m.rate, m.training) @ v)),
        w if n else None,
    ),
)
variant(
    "dropped_twice",
    "returned weights are not those that made the output",
    only=DROP,
    finish=lambda m, w, v, q, n: (
        m.out_proj(F.dropout(join(w @ v), m.rate, m.training)),
        w if n else None,
    ),
)
variant(
    "never_off",
    "dropout stays on in eval mode",
    only="dropout in eval mode",
    drop=lambda m, w: F.dropout(w, m.rate),
)
variant(
    "scaled_in_eval_mode",
    "dropout acts in eval mode",
    only="dropout in eval mode",
    drop=lambda m, w: F.dropout(w, m.rate) if m.training else w * (1 - m.rate),
)
variant(
    "not_scaled_up",
    "dropout does not scale what it keeps",
    only=DROP,
    drop=lambda m, w: w * (torch.rand(w.shape) >= m.rate) if m.training else w,
)
variant(
    "rate_turned_round",
    "wrong scale of what dropout keeps",
    only=DROP,
    drop=lambda m, w: F.dropout(w, 1 - m.rate, m.training) if m.rate else w,
)
variant(
    "kept_where_dropped",
    "dropout keeps where it should drop",
    only=DROP,
    drop=lambda m, w: w * (torch.rand(w.shape) < m.rate) / (1 - m.rate) if m.training and m.rate else w,
)
variant(
    "always_a_tenth",
    "wrong scale of what dropout keeps",
    only=DROP,
    drop=lambda m, w: F.dropout(w, 0.1, m.training) if m.rate else w,
)
variant(
    "half_the_rate",
    "wrong dropout rate",
    only=DROP,
    drop=lambda m, w: w * (torch.rand(w.shape) >= m.rate / 2) / (1 - m.rate) if m.training and m.rate else w,
)
variant(
    "normalised_again",
    "dropout before the softmax",
    only=DROP,
    drop=lambda m, w: F.normalize(F.dropout(w, m.rate, True), p=1, dim=-1) if m.training and m.rate else w,
)


def one_mask_along(axis):
    def drop(module, weights):
        if not module.training or not module.rate:
            return weights
        shape = list(weights.shape)
        shape[axis] = 1
        return weights * (torch.rand(shape) >= module.rate) / (1 - module.rate)

    return drop


for axis, what in ((-1, "keys"), (-2, "queries"), (-3, "heads"), (-4, "batch elements")):
    variant(f"one_mask_for_{what}", f"one dropout mask for all {what}", only=DROP, drop=one_mask_along(axis))


def same_mask_again(module, weights):
    if not module.training or not module.rate:
        return weights
    keep = torch.rand(weights.shape, generator=torch.Generator().manual_seed(0)) >= module.rate
    return weights * keep / (1 - module.rate)


variant("seeded_each_time", "dropout never applied", only=DROP, drop=same_mask_again)


@mutant(NAME, "another result at every call")
class DropsByDefault(ByTheBook):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.1):
        super().__init__(d_model, num_heads, bias, dropout)


@mutant(NAME, "no gradient where no weights are asked for", only="weights on request")
class OnlyLooksWithoutWeights(ByTheBook):
    """Takes a call without weights for inference."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        with torch.set_grad_enabled(need_weights):
            return super().forward(query, key, value, attn_mask, is_causal, need_weights)


class QuickWithoutWeights(ByTheBook):
    """Takes a short cut where no weights are asked for, and forgets something on it."""

    forgotten = ""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if need_weights:
            return super().forward(query, key, value, attn_mask, is_causal, True)
        queries, keys, values = (cut(x, self.num_heads) for x in self.three(query, key, value))
        allowed = together(queries @ keys.mT, None if self.forgotten == "mask" else attn_mask, is_causal)
        if self.forgotten == "causal":
            allowed = together(queries @ keys.mT, attn_mask, False)
        dead = ~allowed.any(-1, keepdim=True)
        rate = self.rate if self.training and self.forgotten != "dropout" else 0.0
        made = F.scaled_dot_product_attention(queries, keys, values, allowed | dead, dropout_p=rate)
        return self.out_proj(join(made.masked_fill(dead, 0.0))), None


for forgotten, named, only in (
    ("mask", "asking for the weights changes the output", "weights on request"),
    ("causal", "asking for the weights changes the output", "weights on request"),
    ("dropout", "dropout only where weights are asked for", DROP),
):
    mutant(NAME, named, only=only)(
        type(f"No{forgotten.title()}WithoutWeights", (QuickWithoutWeights,), {"forgotten": forgotten})
    )
