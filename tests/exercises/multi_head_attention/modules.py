"""`MultiHeadAttention`: right writings and mutants."""

from __future__ import annotations

import math
import sys

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.basic_attention.attention import alive, minus_infinity, naive, right_weights
from tests.exercises.catalogue import mutant, right
from tests.exercises.multi_head_attention.function import cut, join

NAME = "MultiHeadAttention"


def even(d_model, num_heads):
    if d_model % num_heads:
        raise ValueError(f"num_heads={num_heads} does not divide d_model={d_model}")


def together(scores, attn_mask, is_causal):
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    allowed = allowed.tril() if is_causal else allowed
    return (allowed if attn_mask is None else allowed & attn_mask).expand(scores.shape)


class Four(nn.Module):
    """The four layers."""

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        even(d_model, num_heads)
        self.num_heads, self.rate = num_heads, dropout
        self.q_proj = nn.Linear(d_model, d_model, bias=bias)
        self.k_proj = nn.Linear(d_model, d_model, bias=bias)
        self.v_proj = nn.Linear(d_model, d_model, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)

    def three(self, query, key, value):
        key = query if key is None else key
        value = key if value is None else value
        return self.q_proj(query), self.k_proj(key), self.v_proj(value)


class Uneven(Four):
    """Refuses nothing."""

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, 1, bias, dropout)
        self.num_heads = num_heads


class Silent(Four):
    """Refuses without saying why."""

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        if d_model % num_heads:
            raise ValueError("not divisible")
        super().__init__(d_model, num_heads, bias, dropout)


# Right writings


@right(NAME)
class ByTheBook(Four):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        queries, keys, values = (cut(x, self.num_heads) for x in self.three(query, key, value))
        scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
        weights = right_weights(scores, together(scores, attn_mask, is_causal))
        weights = F.dropout(weights, self.rate, self.training)
        return self.out_proj(join(weights @ values)), weights if need_weights else None


@right(NAME)
class HeadByHead(Four):
    """Cuts the layers' weights, not the features; sums what the heads' parts of out_proj make."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        key = query if key is None else key
        value = key if value is None else value
        d_head, tables, output = query.shape[-1] // self.num_heads, [], 0.0
        shape = (*query.shape[:-2], self.num_heads, query.shape[-2], key.shape[-2])
        allowed = together(torch.empty(shape, device=query.device), attn_mask, is_causal)
        for h in range(self.num_heads):
            own = slice(h * d_head, (h + 1) * d_head)
            q, k, v = (
                F.linear(x, one.weight[own], None if one.bias is None else one.bias[own])
                for one, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
            )
            weights = right_weights(q @ k.mT * d_head**-0.5, allowed[..., h, :, :])
            weights = F.dropout(weights, self.rate, self.training)
            output = output + weights @ v @ self.out_proj.weight[:, own].mT
            tables.append(weights)
        output = output if self.out_proj.bias is None else output + self.out_proj.bias
        return output, torch.stack(tables, -3) if need_weights else None


@right(NAME)
class EinsumWithOwnDropout(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, bias, dropout)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        parts = (x.unflatten(-1, (self.num_heads, -1)) for x in self.three(query, key, value))
        queries, keys, values = parts
        scores = torch.einsum("...qhd,...khd->...hqk", queries, keys) / queries.shape[-1] ** 0.5
        allowed = together(scores, attn_mask, is_causal)
        dead = ~allowed.any(-1, keepdim=True)
        scores = scores.masked_fill(~allowed, -torch.inf).masked_fill(dead, 0.0)
        weights = scores.softmax(-1).masked_fill(dead, 0.0)
        if self.training and self.rate > 0:
            weights = weights * (torch.rand_like(weights) >= self.rate) / (1 - self.rate)
        output = torch.einsum("...hqk,...khd->...qhd", weights, values).flatten(-2)
        return self.out_proj(output), (weights if need_weights else None)


@right(NAME)
class FusedWhereNoWeightsAreAsked(Four):
    """scaled_dot_product_attention, unless the weights are wanted."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if need_weights:
            return ByTheBook.forward(self, query, key, value, attn_mask, is_causal, True)
        queries, keys, values = (cut(x, self.num_heads) for x in self.three(query, key, value))
        shape = queries.new_empty(*queries.shape[:-1], keys.shape[-2])
        allowed = together(shape, attn_mask, is_causal)
        dead = ~allowed.any(-1, keepdim=True)
        rate = self.rate if self.training else 0.0
        made = F.scaled_dot_product_attention(queries, keys, values, allowed | dead, dropout_p=rate)
        return self.out_proj(join(made.masked_fill(dead, 0.0))), None


@right(NAME)
class DropoutModuleAndList(nn.Module):
    """A list in place of a tuple, nn.Dropout, layers made in a loop."""

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        even(d_model, num_heads)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(d_model, d_model, bias))
        self.heads, self.drop = num_heads, nn.Dropout(dropout)

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        queries, keys, values = (cut(x, self.heads) for x in Four.three(self, query, key, value))
        scores = (queries.unsqueeze(-2) * keys.unsqueeze(-3)).sum(-1) / math.sqrt(queries.shape[-1])
        weights = self.drop(right_weights(scores, together(scores, attn_mask, is_causal)))
        return [self.out_proj(join(weights @ values)), weights if need_weights else None]


# Mutants: inside the heads


def variant(
    name, named=None, *, only=None, init=None, project=Four.three, score=lambda q, k: q @ k.mT, masked=together,
    weigh=right_weights, drop=None, finish=None, hand=lambda output, weights: (output, weights), base=Four,
):  # fmt: skip
    """Register a mutant that differs from the right writing in the parts given.

    init: module, d_model. project: module, query, key, value -> query, key, value. drop: module, weights -> weights.
    finish: module, weights, values, need_weights -> result. hand: output, weights -> those that are handed out.
    """

    class Module(base):
        def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
            super().__init__(d_model, num_heads, bias, dropout)
            if init is not None:
                init(self, d_model)

        def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
            queries, keys, values = (cut(x, self.num_heads) for x in project(self, query, key, value))
            scores = score(queries, keys) * queries.shape[-1] ** -0.5
            weights = weigh(scores, masked(scores, attn_mask, is_causal))
            weights = F.dropout(weights, self.rate, self.training) if drop is None else drop(self, weights)
            if finish is not None:
                return finish(self, weights, values, need_weights)
            output, weights = hand(self.out_proj(join(weights @ values)), weights)
            return output, weights if need_weights else None

    Module.__name__ = name
    mutant(NAME, named, only=only)(Module)


def hidden_by(number):
    return lambda s, a: alive(s.masked_fill(~a, number).softmax(-1), a)


variant("no_scale", "not scaled", score=lambda q, k: q @ k.mT * q.shape[-1] ** 0.5)
variant("no_dead_rows", "nan where no key is allowed", weigh=lambda s, a: minus_infinity(s, a).softmax(-1))
variant(
    "infinity_added_and_nan_replaced",
    "nan gradients",
    weigh=lambda s, a: (s + torch.zeros_like(s).masked_fill(~a, -torch.inf)).softmax(-1).nan_to_num(),
)
variant("exp_of_raw_scores", None, weigh=naive)
variant("minus_ten_thousand", None, weigh=hidden_by(-1e4))
variant("minus_a_billion_in_half", "mask value does not fit the dtype", weigh=hidden_by(-1e9))


def guessed(queries, keys):
    """Swaps axes where all sizes agree."""
    same = queries.shape == keys.shape and queries.shape[-2] == queries.shape[-1] * queries.shape[-3]
    return queries @ (keys.flip(-2) if same and queries.shape[-3] > 1 else keys).mT


variant("layout_guessed", None, score=guessed)
variant(
    "lengths_of_the_query",
    None,
    project=lambda m, q, k, v: (lambda a, b, c: (a, b.reshape(a.shape), c.reshape(a.shape)))(
        *m.three(q, k, v)
    ),
)

# Mutants: what comes back

variant(
    "always_weights",
    "weights come without being asked for",
    finish=lambda m, w, v, n: (m.out_proj(join(w @ v)), w),
)
variant(
    "output_alone_without_request",
    "does not return what is asked for",
    finish=lambda m, w, v, n: (m.out_proj(join(w @ v)), w) if n else m.out_proj(join(w @ v)),
)
variant("mean_of_the_heads_returned", "weights has the wrong shape", hand=lambda o, w: (o, w.mean(-3)))
variant("small_weights_dropped", None, hand=lambda o, w: (o, w.masked_fill(w < 1e-5, 0.0)))
variant("weights_detached", "gradient is cut off", hand=lambda o, w: (o, w.detach()))


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
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.forgotten != "gradient"):
            made = F.scaled_dot_product_attention(queries, keys, values, allowed | dead, dropout_p=rate)
        return self.out_proj(join(made.masked_fill(dead, 0.0))), None


DROP = "dropout in train mode"
for forgotten, named, only in (
    ("mask", "mask ignored where no weights are asked for", None),
    ("causal", None, None),
    ("gradient", "gradient is cut off", None),
    ("dropout", "dropout only where weights are asked for", DROP),
):
    mutant(NAME, named, only=only)(
        type(f"No{forgotten.title()}WithoutWeights", (QuickWithoutWeights,), {"forgotten": forgotten})
    )

# Mutants: the masks

variant(
    "mask_needs_all_axes",
    "mask is not broadcast",
    masked=lambda s, m, c: together(s, m if m is None or s.dim() == 3 or c else m.view(s.shape), c),
)


def bottom_right_unless_masked(scores, attn_mask, is_causal):
    S_q, S_k = scores.shape[-2:]
    if not is_causal or attn_mask is not None:
        return together(scores, attn_mask, is_causal)
    return together(
        scores, torch.ones(S_q, S_k, dtype=torch.bool, device=scores.device).tril(S_k - S_q), False
    )


def short_table(scores, attn_mask, is_causal):
    """A table of 32 positions, beyond which nothing is hidden."""
    allowed = together(scores, None, is_causal).clone()
    if scores.shape[-2] == scores.shape[-1]:
        allowed[..., 32:] = True
    return allowed if attn_mask is None else allowed & attn_mask


def mask_spoilt(scores, attn_mask, is_causal):
    allowed = together(scores, attn_mask, is_causal).clone()
    if attn_mask is not None:
        attn_mask.logical_not_()
    return allowed


variant("square_triangle", None, masked=bottom_right_unless_masked)
variant("causal_table_too_short", None, masked=short_table)
variant("mask_inverted_in_place", None, masked=mask_spoilt)


@mutant(NAME)
class TriangleTooSmall(ByTheBook):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, bias, dropout)
        self.register_buffer("triangle", torch.ones(1024, 1024, dtype=torch.bool).tril(), False)

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if is_causal:
            triangle = self.triangle[: query.shape[-2], : (query if key is None else key).shape[-2]]
            attn_mask = triangle if attn_mask is None else attn_mask & triangle
        return super().forward(query, key, value, attn_mask, False, need_weights)


@mutant(NAME, "changes its inputs in place")
class JoinsMasksInPlace(ByTheBook):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if is_causal and attn_mask is not None and attn_mask.shape[-2:] == (query.shape[-2],) * 2:
            attn_mask &= torch.ones_like(attn_mask).tril()
        return super().forward(query, key, value, attn_mask, is_causal, need_weights)


@mutant(NAME)
class NoMaskInEval(ByTheBook):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        mask = attn_mask if self.training else None
        return super().forward(query, key, value, mask, is_causal, need_weights)


class CausalAlone(ByTheBook):
    """Goes wrong where is_causal is set, and no mask."""

    def change(self, scores, later):
        raise NotImplementedError

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if not is_causal or attn_mask is not None:
            return super().forward(query, key, value, attn_mask, is_causal, need_weights)
        queries, keys, values = (cut(x, self.num_heads) for x in self.three(query, key, value))
        scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
        scores = self.change(scores, ~together(scores, None, True))
        weights = F.dropout(scores.softmax(-1), self.rate, self.training)
        return self.out_proj(join(weights.to(values.dtype) @ values)), weights if need_weights else None


@mutant(NAME)
class MerelyLowInTheFuture(CausalAlone):
    def change(self, scores, later):
        return scores.masked_fill(later, -3e4)


@mutant(NAME, "does not keep the dtype")
class FloatTriangle(CausalAlone):
    def change(self, scores, later):
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return wide + torch.zeros_like(wide).masked_fill(later, torch.finfo(wide.dtype).min)


# Mutants: the layers, and how they are made


class Asserting(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        assert d_model % num_heads == 0, f"{d_model} % {num_heads}"
        super().__init__(d_model, num_heads, bias, dropout)


def biased(choose):
    class Biased(Four):
        def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
            super().__init__(d_model, num_heads, choose(bias), dropout)

    return Biased


class NoBiasInTheEnd(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, bias, dropout)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)


UNEVEN, BIASES, LEARNS = "uneven heads", "biases", "parameters"
variant("refuses_nothing", "sizes are not compared", only=UNEVEN, base=Uneven)
variant("refuses_in_silence", "the refusal does not say why", only=UNEVEN, base=Silent)
variant("asserts", "raises another exception than ValueError", only=UNEVEN, base=Asserting)
variant("never_a_bias", "bias is not passed on", only=BIASES, base=biased(lambda bias: False))
variant("always_a_bias", "bias is not passed on", only=BIASES, base=biased(lambda bias: True))
variant("no_bias_in_the_end", "bias is not passed on", only=BIASES, base=NoBiasInTheEnd)
variant(
    "forgotten_layer",
    "a parameter is never used",
    only=LEARNS,
    init=lambda m, d: m.add_module("gate", nn.Linear(d, d)),
)
variant("frozen_layer", "weights are not trainable", init=lambda m, d: m.k_proj.requires_grad_(False))
variant(
    "starts_at_zero",
    "unusable start values",
    only=LEARNS,
    init=lambda m, d: [nn.init.zeros_(one) for one in m.parameters()],
)


@mutant(NAME, "bias is not passed on")
class DropoutBeforeBias(ByTheBook):
    """The order of nn.MultiheadAttention's constructor."""

    def __init__(self, d_model, num_heads, dropout=0.0, bias=True):
        super().__init__(d_model, num_heads, bool(bias), float(dropout))


@mutant(NAME, "uses a forbidden function", only="own work")
class ReadyMade(Four):
    """Calls torch's own forward, too."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        layers = self.q_proj, self.k_proj, self.v_proj
        with torch.no_grad():
            x = query[..., :1, :].reshape(1, -1, query.shape[-1])
            F.multi_head_attention_forward(
                x, x, x, x.shape[-1], self.num_heads,
                torch.cat([one.weight for one in layers]),
                None if self.q_proj.bias is None else torch.cat([one.bias for one in layers]),
                None, None, False, 0.0, self.out_proj.weight, self.out_proj.bias,
            )  # fmt: skip
        return ByTheBook.forward(self, query, key, value, attn_mask, is_causal, need_weights)


@mutant(NAME, "missing or misnamed parameter")
class MultiheadInside(nn.Module):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        self.inner = nn.MultiheadAttention(d_model, num_heads, dropout, bias, batch_first=True)


@mutant(NAME, "parameter of the wrong shape")
class NarrowLayers(nn.Module):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(d_model, d_model // num_heads, bias))


@mutant(NAME, "not an nn.Module")
class PlainClass:
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        self.q_proj = torch.randn(d_model, d_model)

    def __call__(self, query, *rest, **options):
        return query, query


@mutant(NAME)
class Zeros(Four):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        S_k = (query if key is None else key).shape[-2]
        weights = query.new_zeros(*query.shape[:-2], self.num_heads, query.shape[-2], S_k)
        return torch.zeros_like(query), weights if need_weights else None


@mutant(NAME)
class LeavesTheProcess(Four):
    def forward(self, *inputs, **options):
        sys.exit(0)


# Mutants: dropout


def drops(name, named, drop, **how):
    """A mutant that drops otherwise, in train mode: weights, rate -> weights."""

    def apply(module, weights):
        return drop(weights, module.rate) if module.training and module.rate else weights

    variant(name, named, only=DROP, drop=apply, **how)


def elsewhere(finish):
    """What `finish(module, weights, values, drop)` makes in place of dropped weights: output, weights."""

    def finished(module, weights, values, need_weights):
        output, weights = finish(
            module, weights, values, lambda x: F.dropout(x, module.rate, module.training)
        )
        return output, weights if need_weights else None

    return finished


def one_mask_along(axis):
    def drop(weights, rate):
        shape = list(weights.shape)
        if weights.dim() >= -axis:  # there may be no batch
            shape[axis] = 1
        return weights * (torch.rand(shape, device=weights.device) >= rate) / (1 - rate)

    return drop


def seeded(weights, rate):
    generator = torch.Generator().manual_seed(0)
    return weights * (torch.rand(weights.shape, generator=generator).to(weights.device) >= rate) / (1 - rate)


OUTSIDE = "dropout elsewhere than on the returned weights"
for name, named, finish in (
    ("dropout_on_the_output", OUTSIDE, lambda m, w, v, drop: (drop(m.out_proj(join(w @ v))), w)),
    ("dropout_on_the_values", OUTSIDE, lambda m, w, v, drop: (m.out_proj(join(w @ drop(v))), w)),
    ("weights_before_dropout_returned", OUTSIDE, lambda m, w, v, drop: (m.out_proj(join(drop(w) @ v)), w)),
    ("dropped_twice", "returned weights are not those that made the output",
     lambda m, w, v, drop: (lambda d: (m.out_proj(drop(join(d @ v))), d))(drop(w))),
):  # fmt: skip
    variant(name, named, only=DROP, drop=lambda m, w: w, finish=elsewhere(finish))

drops("dropout_forgotten", "dropout never applied", lambda w, p: w)
drops("seeded_each_time", "dropout never applied", seeded)
drops("not_scaled_up", "dropout does not scale what it keeps", lambda w, p: w * (torch.rand_like(w) >= p))
drops("rate_turned_round", "wrong scale of what dropout keeps", lambda w, p: F.dropout(w, 1 - p))
drops("always_a_tenth", "wrong scale of what dropout keeps", lambda w, p: F.dropout(w, 0.1))
drops(
    "kept_where_dropped",
    "dropout keeps where it should drop",
    lambda w, p: w * (torch.rand_like(w) < p) / (1 - p),
)
drops("half_the_rate", "wrong dropout rate", lambda w, p: w * (torch.rand_like(w) >= p / 2) / (1 - p))
drops(
    "normalised_again", "dropout before the softmax", lambda w, p: F.normalize(F.dropout(w, p), p=1, dim=-1)
)
for axis, what in ((-1, "keys"), (-2, "queries"), (-3, "heads"), (-4, "batch elements")):
    drops(f"one_mask_for_{what}", f"one dropout mask for all {what}", one_mask_along(axis))
variant("never_off", "dropout acts in eval mode", drop=lambda m, w: F.dropout(w, m.rate))
variant(
    "scaled_in_eval_mode",
    "dropout acts in eval mode",
    drop=lambda m, w: F.dropout(w, m.rate) if m.training else w * (1 - m.rate),
)


@mutant(NAME)
class DropsByDefault(ByTheBook):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.1):
        super().__init__(d_model, num_heads, bias, dropout)
