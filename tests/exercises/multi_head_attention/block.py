"""`TransformerBlock`: right writings and mutants."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant, right
from tests.exercises.multi_head_attention.function import cut, join
from tests.exercises.multi_head_attention.modules import ByTheBook, Silent, Uneven, together

NAME = "TransformerBlock"


class Parts(nn.Module):
    """The layers of the block."""

    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__()
        self.attention = ByTheBook(d_model, num_heads)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.norm_first = norm_first


# Right writings


@right(NAME)
class TwoBranches(Parts):
    def forward(self, x, attn_mask=None, is_causal=False):
        if self.norm_first:
            x = x + self.attention(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)[0]
            return x + self.linear2(F.relu(self.linear1(self.norm2(x))))
        x = self.norm1(x + self.attention(x, attn_mask=attn_mask, is_causal=is_causal)[0])
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


@right(NAME)
class StepsInALoop(Parts):
    def forward(self, x, attn_mask=None, is_causal=False):
        def attend(y):
            return self.attention(y, y, y, attn_mask, is_causal, True)[0]

        def think(y):
            return self.linear2(self.linear1(y).clamp_min(0))

        for norm, step in ((self.norm1, attend), (self.norm2, think)):
            x = x + step(norm(x)) if self.norm_first else norm(x + step(x))
        return x


@right(NAME)
class NormsByHand(Parts):
    """Layer norm written out, relu as a maximum."""

    def norm(self, layer, x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = wide - wide.mean(-1, keepdim=True)
        unit = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
        return unit.to(x.dtype) * layer.weight + layer.bias

    def forward(self, x, attn_mask=None, is_causal=False):
        pre = self.norm_first
        y = self.norm(self.norm1, x) if pre else x
        x = x + self.attention(y, attn_mask=attn_mask, is_causal=is_causal)[0]
        x = x if pre else self.norm(self.norm1, x)
        y = self.norm(self.norm2, x) if pre else x
        hidden = self.linear1(y)
        x = x + self.linear2(torch.maximum(hidden, torch.zeros_like(hidden)))
        return x if pre else self.norm(self.norm2, x)


@right(NAME)
class TwoForwards(Parts):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__(d_model, num_heads, d_ff, norm_first)
        self.activation = nn.ReLU()

    def forward(self, x, attn_mask=None, is_causal=False):
        return (self.pre if self.norm_first else self.post)(x, attn_mask, is_causal)

    def pre(self, x, attn_mask, is_causal):
        attended, _ = self.attention(self.norm1(x), None, None, attn_mask, is_causal)
        x = attended + x
        return self.linear2(self.activation(self.linear1(self.norm2(x)))) + x

    def post(self, x, attn_mask, is_causal):
        attended, _ = self.attention(x, None, None, attn_mask, is_causal)
        x = self.norm1(attended + x)
        return self.norm2(self.linear2(self.activation(self.linear1(x))) + x)


# Mutants: the wiring


def wired(
    name, named=None, *, both=None, before=None, after=None, active=F.relu, finish=lambda output, x: output
):
    """Register a mutant with these wirings for pre-norm and post-norm, or with one for both."""

    class Block(TwoBranches):
        def forward(self, x, attn_mask=None, is_causal=False):
            def attend(y):
                return self.attention(y, attn_mask=attn_mask, is_causal=is_causal)[0]

            def think(y):
                return self.linear2(active(self.linear1(y)))

            wiring = both or (before or pre if self.norm_first else after or post)
            return finish(wiring(self, x, attend, think), x)

    Block.__name__ = name
    mutant(NAME, named)(Block)


def pre(m, x, attend, think):
    x = x + attend(m.norm1(x))
    return x + think(m.norm2(x))


def post(m, x, attend, think):
    x = m.norm1(x + attend(x))
    return m.norm2(x + think(x))


def post_twice(m, x, attend, think):
    x = m.norm1(x + (x + attend(x)))
    return m.norm2(x + (x + think(x)))


def skip_of_the_normed(m, x, attend, think):
    x = m.norm1(x)
    x = x + attend(x)
    x = m.norm2(x)
    return x + think(x)


wired("only_pre", "always pre-norm", both=pre)
wired("skip_twice_in_post", "skip path counted twice", after=post_twice)
wired("normed_is_added", "the normed x is added, not x itself", before=skip_of_the_normed)
wired("leaky", None, active=lambda h: F.leaky_relu(h, 0.01))
wired("skip_detached", "wrong gradient", before=lambda m, x, a, t: pre(m, x.detach() * 0.5 + x * 0.5, a, t))
wired(
    "views_of_the_input",
    "depends on the memory layout of its inputs",
    before=lambda m, x, a, t: pre(m, x.view(-1).view(x.shape), a, t),
)
wired(
    "float32_handed_out",
    "does not keep the dtype",
    finish=lambda output, x: output.to(torch.promote_types(x.dtype, torch.float32)),
)

# Mutants: masks, modes, memory


def called(name, named, forward):
    """Register a mutant that calls the right block otherwise: module, right forward, x, attn_mask, is_causal -> result."""

    def wrong(self, x, attn_mask=None, is_causal=False):
        return forward(self, lambda *inputs: TwoBranches.forward(self, *inputs), x, attn_mask, is_causal)

    mutant(NAME, named)(type(name, (TwoBranches,), {"forward": wrong}))


def three_axes(self, block, x, attn_mask, is_causal):
    if x.dim() > 3:
        raise ValueError("expected (B, S, D)")
    return block(x, attn_mask, is_causal)


def zeroed(self, block, x, attn_mask, is_causal):
    output = block(x, attn_mask, is_causal)
    if attn_mask is not None:
        x.data.zero_()
    return output


called("MaskLostInPost", None, lambda s, f, x, m, c: f(x, m if s.norm_first else None, c))
called("CausalLostInPost", None, lambda s, f, x, m, c: f(x, m, c and s.norm_first))
called("SeesTheFutureInEval", None, lambda s, f, x, m, c: f(x, m, c and s.training))
called("ThreeAxes", "fixed number of leading axes", three_axes)
called("InputZeroed", None, zeroed)
called("PairReturned", "does not return what is asked for", lambda s, f, x, m, c: (f(x, m, c), None))
called("Zeros", "x has no effect", lambda s, f, x, m, c: torch.zeros_like(x))
called("InputBack", "x has no effect", lambda s, f, x, m, c: x)
called("DropoutLeftIn", None, lambda s, f, x, m, c: F.dropout(f(x, m, c), 0.1, s.training))
called("LeavesTheProcess", None, lambda s, f, x, m, c: sys.exit(0))


class Adding(ByTheBook):
    """Attention whose dead rows have nan gradients, not nan values."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        queries, keys, values = (cut(x, self.num_heads) for x in self.three(query, key, value))
        scores = queries @ keys.mT * queries.shape[-1] ** -0.5
        allowed = together(scores, attn_mask, is_causal)
        hidden = scores + torch.zeros_like(scores).masked_fill(~allowed, -torch.inf)
        return self.out_proj(join(hidden.softmax(-1).nan_to_num() @ values)), None


# Mutants: how it is made


def made(name, named, change, *, only=None, default=True, heads=lambda num_heads: num_heads):
    """Register a mutant whose constructor makes `change` of the right one: module, d_model, num_heads, d_ff."""

    class Block(TwoBranches):
        def __init__(self, d_model, num_heads, d_ff, norm_first=default):
            super().__init__(d_model, heads(num_heads), d_ff, norm_first)
            change(self, d_model, num_heads, d_ff)

    Block.__name__ = name
    mutant(NAME, named, only=only)(Block)


def with_norms(**options):
    def change(module, d_model, num_heads, d_ff):
        module.norm1, module.norm2 = (nn.LayerNorm(d_model, **options) for _ in range(2))

    return change


def with_layers(**options):
    def change(module, d_model, num_heads, d_ff):
        module.linear1, module.linear2 = (
            nn.Linear(d_model, d_ff, **options),
            nn.Linear(d_ff, d_model, **options),
        )

    return change


def with_attention(base):
    kind = type("Attention", (base,), {"forward": ByTheBook.forward if base is not Adding else base.forward})

    def change(module, d_model, num_heads, d_ff):
        module.attention = kind(d_model, num_heads)

    return change


def exchanged(module, d_model, num_heads, d_ff):
    module.linear1, module.linear2 = module.linear2, module.linear1


EPS = "layer norm with another eps"
made("PostByDefault", "post-norm by default", lambda *sizes: None, default=False)
made("OtherEps", EPS, with_norms(eps=1e-6))
made("OneHead", "num_heads not handed on", lambda m, *sizes: setattr(m.attention, "num_heads", 1))
made("NoBiases", "bias is not passed on", with_layers(bias=False), only="biases")
made("NormsWithoutBias", "bias is not passed on", with_norms(bias=False), only="biases")
made("WidthsExchanged", "parameter of the wrong shape", exchanged)
made("NanInDeadRows", "nan gradients", with_attention(Adding))
made(
    "RefusesNothing", "sizes are not compared", with_attention(Uneven), only="uneven heads", heads=lambda n: 1
)
made(
    "InSilence",
    "the refusal does not say why",
    with_attention(Silent),
    only="uneven heads",
    heads=lambda n: 1,
)
made(
    "ForgottenLayer",
    "a parameter is never used",
    lambda m, d, *sizes: m.add_module("norm3", nn.LayerNorm(d)),
    only="parameters",
)
made("MadeInFloat64", "does not work as it is made", lambda m, *sizes: m.double(), only="parameters")


@mutant(NAME, "layer norm by the sample deviation")
class SampleDeviation(NormsByHand):
    def norm(self, layer, x):
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5) * layer.weight + layer.bias


@mutant(NAME, "missing or misnamed parameter")
class LayerOfTorch(nn.Module):
    def __init__(self, d_model, num_heads, d_ff, norm_first=True):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            d_model, num_heads, d_ff, 0.0, batch_first=True, norm_first=norm_first
        )

    def forward(self, x, attn_mask=None, is_causal=False):
        return self.layer(x)
