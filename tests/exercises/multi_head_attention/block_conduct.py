"""`TransformerBlock`: mutants that go wrong in how it is made, and in conduct."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant
from tests.exercises.multi_head_attention.block import NAME, NormsByHand, Parts, TwoBranches, pre, wired
from tests.exercises.multi_head_attention.function import cut, join
from tests.exercises.multi_head_attention.module_layers import Silent, Uneven
from tests.exercises.multi_head_attention.modules import ByTheBook, together

# Mutants: how it is made


class PostByDefault(Parts):
    def __init__(self, d_model, num_heads, d_ff, norm_first=False):
        super().__init__(d_model, num_heads, d_ff, norm_first)


class OtherEps(Parts):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True, eps=1e-6):
        super().__init__(d_model, num_heads, d_ff, norm_first)
        self.norm1, self.norm2 = nn.LayerNorm(d_model, eps=eps), nn.LayerNorm(d_model, eps=eps)


class TinyEps(OtherEps):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__(d_model, num_heads, d_ff, norm_first, eps=1e-12)


class SampleDeviation(Parts):
    def norm(self, layer, x):
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5) * layer.weight + layer.bias

    forward = NormsByHand.forward


class OneHead(TwoBranches):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__(d_model, num_heads, d_ff, norm_first)
        self.attention.num_heads = 1


class NoBiases(TwoBranches):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__(d_model, num_heads, d_ff, norm_first)
        self.linear1, self.linear2 = (
            nn.Linear(d_model, d_ff, bias=False),
            nn.Linear(d_ff, d_model, bias=False),
        )


class NormsWithoutBias(TwoBranches):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__(d_model, num_heads, d_ff, norm_first)
        self.norm1, self.norm2 = nn.LayerNorm(d_model, bias=False), nn.LayerNorm(d_model, bias=False)


mutant(NAME, "num_heads not handed on")(OneHead)
mutant(NAME, "bias is not passed on", only="biases")(NoBiases)
mutant(NAME, "bias is not passed on", only="biases")(NormsWithoutBias)


class Refusing(Parts):
    """With another attention inside."""

    inner = ByTheBook

    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__(d_model, 1, d_ff, norm_first)
        self.attention = self.inner(d_model, num_heads)


class RefusesNothing(Refusing):
    inner = type("UnevenAttention", (Uneven,), {"forward": ByTheBook.forward})
    forward = TwoBranches.forward


class RefusesInSilence(Refusing):
    inner = type("SilentAttention", (Silent,), {"forward": ByTheBook.forward})
    forward = TwoBranches.forward


mutant(NAME, "post-norm by default", only="default order")(
    type("PostByDefaultBlock", (PostByDefault, TwoBranches), {})
)
mutant(NAME, "layer norm with another eps", only="nearly constant rows")(
    type("OtherEpsBlock", (OtherEps, TwoBranches), {})
)
mutant(NAME, "layer norm with another eps", only="nearly constant rows")(
    type("TinyEpsBlock", (TinyEps, TwoBranches), {})
)
mutant(NAME, "layer norm by the sample deviation")(SampleDeviation)
mutant(NAME, "sizes are not compared", only="uneven heads")(RefusesNothing)
mutant(NAME, "the refusal does not say why", only="uneven heads")(RefusesInSilence)


@mutant(NAME, "a parameter is never used", only="parameters")
class ForgottenLayer(TwoBranches):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__(d_model, num_heads, d_ff, norm_first)
        self.norm3 = nn.LayerNorm(d_model)


@mutant(NAME, "another result at every call")
class DropoutLeftIn(TwoBranches):
    def forward(self, x, attn_mask=None, is_causal=False):
        return F.dropout(super().forward(x, attn_mask, is_causal), 0.1, self.training)


@mutant(NAME, "missing or misnamed parameter")
class OtherNames(nn.Module):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__()
        self.attn = ByTheBook(d_model, num_heads)
        self.ff = nn.Sequential(nn.Linear(d_model, d_ff), nn.ReLU(), nn.Linear(d_ff, d_model))


@mutant(NAME, "missing or misnamed parameter")
class LayerOfTorch(nn.Module):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            d_model, num_heads, d_ff, 0.0, batch_first=True, norm_first=norm_first
        )

    def forward(self, x, attn_mask=None, is_causal=False):
        return self.layer(x)


@mutant(NAME, "parameter of the wrong shape")
class WidthsExchanged(TwoBranches):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__(d_model, num_heads, d_ff, norm_first)
        self.linear1, self.linear2 = nn.Linear(d_ff, d_model), nn.Linear(d_model, d_ff)


@mutant(NAME, "does not return what is asked for")
class PairReturned(TwoBranches):
    def forward(self, x, attn_mask=None, is_causal=False):
        return super().forward(x, attn_mask, is_causal), None


@mutant(NAME, "x has no effect", only="every input counts")
class Zeros(Parts):
    def forward(self, x, attn_mask=None, is_causal=False):
        return torch.zeros_like(x)


@mutant(NAME, "x has no effect")
class InputBack(Parts):
    def forward(self, x, attn_mask=None, is_causal=False):
        return x


@mutant(NAME)
class LeavesTheProcess(Parts):
    def forward(self, x, attn_mask=None, is_causal=False):
        sys.exit(0)


# Mutants: conduct

wired(
    "detached",
    "gradient is cut off",
    finish=lambda output, x: output.detach(),
)
wired(
    "skip_detached",
    "wrong gradient",
    only="gradient",
    before=lambda m, x, a, t: pre(m, x.detach() * 0.5 + x * 0.5, a, t),
)
wired(
    "float32_handed_out",
    "does not keep the dtype",
    only="dtype",
    finish=lambda output, x: output.to(torch.promote_types(x.dtype, torch.float32)),
)


class InputZeroed(TwoBranches):
    """Reuses the memory of x."""

    def forward(self, x, attn_mask=None, is_causal=False):
        output = super().forward(x, attn_mask, is_causal)
        if attn_mask is not None:
            x.data.zero_()
        return output


mutant(NAME, "changes its inputs in place", only="inputs untouched")(InputZeroed)
wired(
    "views_of_the_input",
    "depends on the memory layout of its inputs",
    only="layout",
    before=lambda m, x, a, t: pre(m, x.view(-1).view(x.shape), a, t),
)


class ThreeAxes(TwoBranches):
    def forward(self, x, attn_mask=None, is_causal=False):
        if x.dim() > 3:
            raise ValueError("expected (B, S, D)")
        return super().forward(x, attn_mask, is_causal)


mutant(NAME, "fixed number of leading axes", only="leading axes")(ThreeAxes)


class NanInDeadRows(TwoBranches):
    """Attention whose dead rows have nan gradients, not nan values."""

    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__(d_model, num_heads, d_ff, norm_first)
        self.attention = _Adding(d_model, num_heads)


class _Adding(ByTheBook):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        queries, keys, values = (cut(x, self.num_heads) for x in self.three(query, key, value))
        scores = queries @ keys.mT * queries.shape[-1] ** -0.5
        allowed = together(scores, attn_mask, is_causal)
        hidden = scores + torch.zeros_like(scores).masked_fill(~allowed, -torch.inf)
        weights = hidden.softmax(-1).nan_to_num()
        return self.out_proj(join(weights @ values)), None


mutant(NAME, "nan gradients where no key is allowed", only="dead rows")(NanInDeadRows)
