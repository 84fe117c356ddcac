"""`TransformerBlock`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant, right
from tests.exercises.multi_head_attention.modules import ByTheBook

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


def pre(m, x, attend, think):
    x = x + attend(m.norm1(x))
    return x + think(m.norm2(x))


def post(m, x, attend, think):
    x = m.norm1(x + attend(x))
    return m.norm2(x + think(x))


def wired(
    name, named=None, *, only=None, before=pre, after=post, active=F.relu, masks=lambda m, c: (m, c),
    base=Parts, finish=lambda output, x: output,
):  # fmt: skip
    """Register a mutant with these wirings for pre-norm and post-norm."""

    class Block(base):
        def forward(self, x, attn_mask=None, is_causal=False):
            mask, causal = masks(attn_mask, is_causal)

            def attend(y):
                return self.attention(y, attn_mask=mask, is_causal=causal)[0]

            def think(y):
                return self.linear2(active(self.linear1(y)))

            return finish((before if self.norm_first else after)(self, x, attend, think), x)

    Block.__name__ = name
    mutant(NAME, named, only=only)(Block)


def same(wiring):
    return {"before": wiring, "after": wiring}


wired("orders_exchanged", "pre-norm and post-norm exchanged", before=post, after=pre)
wired("only_pre", "always pre-norm", **same(pre))
wired("only_post", "always post-norm", **same(post))


def half(m, x, attend, think):
    x = m.norm1(x + attend(x))
    return x + think(m.norm2(x))


def other_half(m, x, attend, think):
    x = x + attend(m.norm1(x))
    return m.norm2(x + think(x))


def normed_twice(m, x, attend, think):
    x = m.norm1(x + attend(m.norm1(x)))
    return m.norm2(x + think(m.norm2(x)))


wired("half_and_half", "half pre-norm, half post-norm", **same(half))
wired("other_half", "half pre-norm, half post-norm", **same(other_half))
wired("pre_with_half", "half pre-norm, half post-norm", before=half)
wired("norm_on_both_sides", "normed before and after", **same(normed_twice))


def pre_twice(m, x, attend, think):
    x = x + (x + attend(m.norm1(x)))
    return x + (x + think(m.norm2(x)))


def post_twice(m, x, attend, think):
    x = m.norm1(x + (x + attend(x)))
    return m.norm2(x + (x + think(x)))


def pre_twice_at_the_end(m, x, attend, think):
    x = x + attend(m.norm1(x))
    return x + (x + think(m.norm2(x)))


wired("skip_twice", "skip path counted twice", before=pre_twice, after=post_twice)
wired("skip_twice_in_pre", "skip path counted twice", only="pre-norm", before=pre_twice)
wired("skip_twice_in_post", "skip path counted twice", only="post-norm", after=post_twice)
wired(
    "skip_twice_at_the_end",
    "skip path counted twice",
    before=pre_twice_at_the_end,
    after=lambda m, x, a, t: (lambda y: m.norm2(y + (y + t(y))))(m.norm1(x + a(x))),
)


def skip_of_the_normed(m, x, attend, think):
    x = m.norm1(x)
    x = x + attend(x)
    x = m.norm2(x)
    return x + think(x)


wired("normed_is_added", "the normed x is added, not x itself", before=skip_of_the_normed)


def without(first, second):
    def before(m, x, attend, think):
        x = attend(m.norm1(x)) + (0 if first else x)
        return think(m.norm2(x)) + (0 if second else x)

    def after(m, x, attend, think):
        x = m.norm1(attend(x) + (0 if first else x))
        return m.norm2(think(x) + (0 if second else x))

    return {"before": before, "after": after}


wired("no_first_residual", "no residual at the attention", **without(True, False))
wired("no_second_residual", "no residual at the feed-forward network", **without(False, True))
wired("no_residuals", "no residuals", **without(True, True))
wired(
    "input_added_again",
    "the second residual adds the block's input",
    before=lambda m, x, a, t: x + t(m.norm2(x + a(m.norm1(x)))),
    after=lambda m, x, a, t: m.norm2(x + t(m.norm1(x + a(x)))),
)
wired(
    "parallel_steps",
    "the two steps side by side",
    before=lambda m, x, a, t: x + a(m.norm1(x)) + t(m.norm2(x)),
    after=lambda m, x, a, t: m.norm2(m.norm1(x + a(x)) + t(x)),
)
wired(
    "thinks_first",
    "feed-forward network before the attention",
    before=lambda m, x, a, t: (lambda y: y + a(m.norm2(y)))(x + t(m.norm1(x))),
    after=lambda m, x, a, t: (lambda y: m.norm2(y + a(y)))(m.norm1(x + t(x))),
)
wired(
    "attention_alone",
    "feed-forward network never applied",
    before=lambda m, x, a, t: x + a(m.norm1(x)),
    after=lambda m, x, a, t: m.norm1(x + a(x)),
)
wired(
    "network_alone",
    "attention never applied",
    before=lambda m, x, a, t: x + t(m.norm2(x)),
    after=lambda m, x, a, t: m.norm2(x + t(x)),
)
wired("no_norms", "norms never applied", **same(lambda m, x, a, t: (lambda y: y + t(y))(x + a(x))))
wired(
    "no_second_norm",
    "norm2 never applied",
    before=lambda m, x, a, t: (lambda y: y + t(y))(x + a(m.norm1(x))),
    after=lambda m, x, a, t: (lambda y: y + t(y))(m.norm1(x + a(x))),
)
wired(
    "norm1_twice",
    "norm1 used twice",
    before=lambda m, x, a, t: (lambda y: y + t(m.norm1(y)))(x + a(m.norm1(x))),
    after=lambda m, x, a, t: (lambda y: m.norm1(y + t(y)))(m.norm1(x + a(x))),
)
wired(
    "norms_exchanged",
    "norm1 and norm2 exchanged",
    before=lambda m, x, a, t: (lambda y: y + t(m.norm1(y)))(x + a(m.norm2(x))),
    after=lambda m, x, a, t: (lambda y: m.norm1(y + t(y)))(m.norm2(x + a(x))),
)
wired("no_relu", "no nonlinearity in the feed-forward network", active=lambda h: h)
wired("gelu", "gelu where relu is meant", active=F.gelu)
wired("tanh", "tanh where relu is meant", active=torch.tanh)
wired(
    "normed_in_between",
    "normed before and after",
    only="pre-norm",
    before=lambda m, x, a, t: (lambda y: y + t(m.norm2(y)))(m.norm1(x + a(m.norm1(x)))),
)
wired("leaky", None, active=lambda h: F.leaky_relu(h, 0.01))

# Mutants: masks

wired("mask_lost", "mask ignored", masks=lambda m, c: (None, c))
wired("mask_inverted", "mask turned round", masks=lambda m, c: (None if m is None else ~m, c))
wired("causal_lost", "is_causal ignored", masks=lambda m, c: (m, False))
wired("always_causal", "always causal", masks=lambda m, c: (m, True))
wired("mask_or_causal", "goes wrong under a mask", only="both masks", masks=lambda m, c: (m, c and m is None))


class MaskLostInPost(Parts):
    def forward(self, x, attn_mask=None, is_causal=False):
        return TwoBranches.forward(self, x, attn_mask if self.norm_first else None, is_causal)


mutant(NAME, "goes wrong under a mask", only="mask")(MaskLostInPost)


class CausalLostInPost(Parts):
    def forward(self, x, attn_mask=None, is_causal=False):
        causal = is_causal and self.norm_first
        return TwoBranches.forward(self, x, attn_mask, causal)


mutant(NAME, "future keys change past outputs", only="causal")(CausalLostInPost)
