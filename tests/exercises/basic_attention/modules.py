"""`SelfAttention` and `CrossAttention`: right writings and mutants."""

from __future__ import annotations

import math
import sys

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.basic_attention.attention import right_attention, right_weights
from tests.exercises.catalogue import mutant, right


def together(query, key, attn_mask, is_causal):
    allowed = torch.ones(*query.shape[:-1], key.shape[-2], dtype=torch.bool, device=query.device)
    if is_causal:
        allowed = allowed.tril()
    return allowed if attn_mask is None else allowed & attn_mask


class Four(nn.Module):
    """The four layers."""

    def __init__(self, d_model, d_context=None):
        super().__init__()
        d_context = d_model if d_context is None else d_context
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_context, d_model)
        self.v_proj = nn.Linear(d_context, d_model)
        self.out_proj = nn.Linear(d_model, d_model)


class RightSelf(Four):
    def forward(self, x, attn_mask=None, is_causal=False):
        output, weights = right_attention(
            self.q_proj(x), self.k_proj(x), self.v_proj(x), attn_mask, is_causal
        )
        return self.out_proj(output), weights


class RightCross(Four):
    def forward(self, x, context, attn_mask=None):
        query, key, value = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        output, weights = right_attention(query, key, value, attn_mask)
        return self.out_proj(output), weights


# Right writings


@right("SelfAttention")
class FusedProjection(Four):
    """One product for query, key and value."""

    def forward(self, x, attn_mask=None, is_causal=False):
        layers = (self.q_proj, self.k_proj, self.v_proj)
        weight, bias = torch.cat([one.weight for one in layers]), torch.cat([one.bias for one in layers])
        query, key, value = F.linear(x, weight, bias).chunk(3, -1)
        weights = right_weights(query @ key.mT / math.sqrt(x.shape[-1]), together(x, x, attn_mask, is_causal))
        return self.out_proj(weights @ value), weights


@right("SelfAttention")
class EinsumOverLayers(Four):
    def forward(self, x, attn_mask=None, is_causal=False):
        query, key, value = (
            torch.einsum("...si,oi->...so", x, one.weight) + one.bias
            for one in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = torch.einsum("...qd,...kd->...qk", query, key) * x.shape[-1] ** -0.5
        allowed = together(x, x, attn_mask, is_causal)
        dead = ~allowed.any(-1, keepdim=True)
        weights = (
            scores.masked_fill(~allowed, -torch.inf).masked_fill(dead, 0.0).softmax(-1).masked_fill(dead, 0.0)
        )
        return self.out_proj(torch.einsum("...qk,...kd->...qd", weights, value)), weights


@right("SelfAttention")
class BareParameters(nn.Module):
    """Parameters of shape (in, out), without biases."""

    def __init__(self, d_model):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.register_parameter(name, nn.Parameter(torch.randn(d_model, d_model) / d_model**0.5))

    def forward(self, x, attn_mask=None, is_causal=False):
        output, weights = right_attention(
            x @ self.q_proj.mT, x @ self.k_proj.mT, x @ self.v_proj.mT, attn_mask, is_causal
        )
        return output @ self.out_proj.mT, weights


@right("SelfAttention")
class TriangleInABuffer(Four):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.register_buffer("triangle", torch.ones(2048, 2048, dtype=torch.bool).tril())

    def forward(self, x, attn_mask=None, is_causal=False):
        S = x.size(-2)
        allowed = torch.ones(S, S, dtype=torch.bool, device=x.device)
        if is_causal:
            allowed = self.triangle[:S, :S]
        if attn_mask is not None:
            allowed = torch.logical_and(allowed, attn_mask)
        scores = self.q_proj(x) @ self.k_proj(x).transpose(-2, -1) / math.sqrt(x.size(-1))
        weights = F.softmax(torch.where(allowed, scores, torch.finfo(x.dtype).min), -1) * allowed
        return self.out_proj(weights @ self.v_proj(x)), weights


@right("SelfAttention")
class WithoutBiases(nn.Module):
    def __init__(self, d_model: int):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(d_model, d_model, bias=False) for _ in range(4)
        )

    forward = RightSelf.forward


@right("SelfAttention")
class QueriesOneByOne(Four):
    def forward(self, x, attn_mask=None, is_causal=False):
        S, D, rows, outputs = x.shape[-2], x.shape[-1], [], []
        query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        allowed = together(x, x, attn_mask, is_causal)
        for i in range(S):
            scores = (query[..., i : i + 1, :] * key).sum(-1) / D**0.5  # (..., S)
            rows.append(right_weights(scores, allowed[..., i, :]))
            outputs.append((rows[-1].unsqueeze(-1) * value).sum(-2))
        return self.out_proj(torch.stack(outputs, -2)), torch.stack(rows, -2)


@right("SelfAttention")
class InheritsFromCross(RightCross):
    def __init__(self, d_model):
        super().__init__(d_model, d_model)

    def forward(self, x, attn_mask=None, is_causal=False):
        if is_causal:
            triangle = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool, device=x.device).tril()
            attn_mask = triangle if attn_mask is None else attn_mask & triangle
        return super().forward(x, x, attn_mask)


@right("SelfAttention")
class Float32Inside(Four):
    def forward(self, x, attn_mask=None, is_causal=False):
        wide = torch.promote_types(x.dtype, torch.float32)
        query, key, value = self.q_proj(x).to(wide), self.k_proj(x).to(wide), self.v_proj(x).to(wide)
        output, weights = right_attention(query, key, value, attn_mask, is_causal)
        return self.out_proj(output.to(x.dtype)), weights.to(x.dtype)


@right("SelfAttention")
class FlatBatch(Four):
    def forward(self, x, attn_mask=None, is_causal=False):
        *lead, S, D = x.shape
        flat = x.reshape(-1, D)
        query, key, value = (one(flat).view(-1, S, D) for one in (self.q_proj, self.k_proj, self.v_proj))
        scores = torch.baddbmm(x.new_zeros(1), query, key.mT, beta=0, alpha=D**-0.5)
        weights = right_weights(scores, together(x, x, attn_mask, is_causal).reshape(-1, S, S))
        return self.out_proj(weights @ value).view(x.shape), weights.view(*lead, S, S)


@right("CrossAttention")
class ByTheBook(RightCross):
    pass


@right("CrossAttention")
class KeysAndValuesAtOnce(Four):
    def forward(self, x, context, attn_mask=None):
        weight = torch.cat([self.k_proj.weight, self.v_proj.weight])
        bias = torch.cat([self.k_proj.bias, self.v_proj.bias])
        key, value = F.linear(context, weight, bias).chunk(2, dim=-1)
        scores = torch.matmul(self.q_proj(x), key.transpose(-1, -2)).div(math.sqrt(key.shape[-1]))
        weights = right_weights(scores, together(x, context, attn_mask, False))
        return self.out_proj(torch.matmul(weights, value)), weights


@right("CrossAttention")
class ProjectedAfterTheAverage(Four):
    """Averages the context, and projects the average: the same, as the weights of a row sum to one."""

    def forward(self, x, context, attn_mask=None):
        allowed = together(x, context, attn_mask, False)
        scores = self.q_proj(x) @ self.k_proj(context).mT / self.q_proj.out_features**0.5
        weights = right_weights(scores, allowed)
        value = weights @ context @ self.v_proj.weight.mT + self.v_proj.bias * allowed.any(-1, keepdim=True)
        return self.out_proj(value), weights


@right("CrossAttention")
class FloatMaskAdded(Four):
    def forward(self, x, context, attn_mask=None):
        query, key, value = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        scores = torch.einsum("...qd,...kd->...qk", query, key) / math.sqrt(query.shape[-1])
        if attn_mask is None:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device)
        dead = ~attn_mask.any(-1, keepdim=True)
        bias = x.new_zeros(attn_mask.shape).masked_fill_(~attn_mask & ~dead, float("-inf"))
        weights = torch.exp(F.log_softmax(scores + bias, dim=-1)).masked_fill(dead, 0)
        return self.out_proj(weights @ value), weights


@right("CrossAttention")
class MultiplyAndSum(Four):
    def __init__(self, d_model, d_context):
        super().__init__(d_model, d_context)
        for layer in self.children():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.scale = d_model**-0.5

    def forward(self, x, context, attn_mask=None):
        query, key, value = self.q_proj(x) * self.scale, self.k_proj(context), self.v_proj(context)
        scores = (query.unsqueeze(-2) * key.unsqueeze(-3)).sum(-1)
        weights = right_weights(scores, together(x, context, attn_mask, False))
        return self.out_proj((weights.unsqueeze(-1) * value.unsqueeze(-3)).sum(-2)), weights


# Mutants: both modules at once


def both(
    name, named=None, *, only=None, init=None, project=None, attend=right_attention, finish=None, kind="both"
):
    """Register mutants of one or both modules, which differ from the right writing in the parts given.

    project: module, x, context -> query, key, value. attend: as `attention`. finish: module, output, x -> output.
    """

    def build(module, d_model, d_context=None):
        Four.__init__(module, d_model, d_context)
        if init is not None:
            init(module, d_model)

    def run(module, x, context, attn_mask, is_causal):
        layers = (module.q_proj, module.k_proj, module.v_proj)
        parts = [one(t) for one, t in zip(layers, (x, context, context), strict=True)]
        parts = parts if project is None else project(module, x, context)
        output, *rest = attend(*parts, attn_mask, is_causal)
        return (module.out_proj(output) if finish is None else finish(module, output, x), *rest)

    class Self(Four):
        def __init__(self, d_model):
            build(self, d_model)

        def forward(self, x, attn_mask=None, is_causal=False):
            return run(self, x, x, attn_mask, is_causal)

    class Cross(Four):
        def __init__(self, d_model, d_context):
            build(self, d_model, d_context)

        def forward(self, x, context, attn_mask=None):
            return run(self, x, context, attn_mask, False)

    for exercise, made in (("SelfAttention", Self), ("CrossAttention", Cross)):
        if kind in ("both", exercise):
            made.__name__ = name
            mutant(exercise, named, only=only)(made)


def attending(scale=None, weigh=right_weights, see=together, score=None, finish=None):
    def attend(query, key, value, attn_mask=None, is_causal=False):
        factor = query.shape[-1] ** -0.5 if scale is None else scale(query, key, value)
        scores = (query @ key.mT if score is None else score(query, key)) * factor
        weights = weigh(scores, see(query, key, attn_mask, is_causal))
        return (weights @ value, weights) if finish is None else finish(weights, value, scores)

    return attend


def minus_infinity(scores, allowed):
    return scores.masked_fill(~allowed, -torch.inf)


SELF, CROSS = "SelfAttention", "CrossAttention"


both(
    "infinity_added_and_nan_replaced",
    "nan gradients",
    attend=attending(
        weigh=lambda s, a: (s + torch.zeros_like(s).masked_fill(~a, -torch.inf)).softmax(-1).nan_to_num()
    ),
)


def naive(scores, allowed):
    numerator = minus_infinity(scores.to(torch.promote_types(scores.dtype, torch.float32)), allowed).exp()
    return (numerator / numerator.sum(-1, keepdim=True).clamp_min(1e-30)).to(scores.dtype)


both(
    "exp_of_raw_scores",
    attend=attending(weigh=naive),
)
both(
    "minus_ten_thousand",
    attend=attending(weigh=lambda s, a: s.masked_fill(~a, -1e4).softmax(-1) * a.any(-1, keepdim=True)),
)


def causal_after_softmax(query, key, value, attn_mask, is_causal):
    if attn_mask is not None or not is_causal:
        return right_attention(query, key, value, attn_mask, is_causal)
    weights = right_attention(query, key, value)[1].tril()
    return weights @ value, weights


both(
    "causal_after_softmax",
    attend=causal_after_softmax,
    kind=SELF,
)


both(
    "small_weights_dropped",
    attend=attending(finish=lambda w, v, s: (w @ v, w.masked_fill(w < 1e-6, 0.0))),
)


both(
    "weights_averaged",
    "weights has the wrong shape",
    attend=attending(finish=lambda w, v, s: (w @ v, w.mean(0))),
)


# Mutants: the layers

both("raw_keys", None, project=lambda m, x, c: (m.q_proj(x), c, m.v_proj(c)))
both(
    "x_and_context_joined",
    "weights has the wrong shape",
    project=lambda m, x, c: (m.q_proj(x), m.k_proj(F.pad(c, (0, 0, 1, 0))), m.v_proj(F.pad(c, (0, 0, 1, 0)))),
    kind=CROSS,
)


def dead_layer(module, d_model):
    module.gate = nn.Linear(d_model, d_model)


both("forgotten_layer", "a parameter is never used", only="parameters", init=dead_layer)


both(
    "values_half_detached",
    "wrong gradient",
    attend=lambda q, k, v, m, c: right_attention(q, k, 0.5 * v + 0.5 * v.detach(), m, c),
)


def masked_scores_detached(query, key, value, attn_mask, is_causal):
    return right_attention(query if attn_mask is None else query.detach(), key, value, attn_mask, is_causal)


both("masked_scores_detached", "gradient is cut off", attend=masked_scores_detached)


def mask_spoilt(query, key, value, attn_mask, is_causal):
    result = right_attention(query, key, value, attn_mask, is_causal)
    if attn_mask is not None:
        attn_mask.logical_not_()
    return result


both("mask_inverted_in_place", None, attend=mask_spoilt)


def input_spoilt(module, x, context):
    query, key, value = module.q_proj(x), module.k_proj(context), module.v_proj(context)
    with torch.no_grad():
        x *= 2
    return query, key, value


both("input_doubled_in_place", "changes its inputs in place", project=input_spoilt)
both(
    "views_of_the_input",
    "depends on the memory layout of its inputs",
    project=lambda m, x, c: (m.q_proj(x.view(-1, x.shape[-1])).view(x.shape), m.k_proj(c), m.v_proj(c)),
)


def first_block_only(query, key, value, attn_mask, is_causal):
    _, weights = right_attention(query, key, value, attn_mask, is_causal)
    whole = max(key.shape[-2], 32) // 32 * 32
    return weights[..., :whole] @ value[..., :whole, :], weights


both(
    "last_block_lost_self",
    attend=first_block_only,
    kind=SELF,
)
both(
    "last_block_lost_cross",
    attend=first_block_only,
    kind=CROSS,
)


def three_axes(query, key, value, attn_mask, is_causal):
    if query.dim() > 3:
        raise ValueError("expected (B, S, D)")
    return right_attention(query, key, value, attn_mask, is_causal)


both("at_most_three_axes", "fixed number of leading axes", attend=three_axes)


def mask_with_all_axes(query, key, value, attn_mask, is_causal):
    if attn_mask is not None:
        attn_mask = attn_mask.view(*query.shape[:-1], key.shape[-2])
    return right_attention(query, key, value, attn_mask, is_causal)


both("mask_needs_all_axes", attend=mask_with_all_axes)


def layout_guessed(query, key, value, attn_mask, is_causal):
    if (
        query.shape == key.shape
        and query.shape[-1] == query.shape[-2]
        and attn_mask is None
        and not is_causal
    ):
        key = key.mT
    return right_attention(query, key, value, attn_mask, is_causal)


both("layout_guessed", attend=layout_guessed, kind=SELF)


# Mutants: other modules


for one in (SELF, CROSS):

    @mutant(one, "missing or misnamed parameter")
    class OtherNames(nn.Module):
        def __init__(self, *sizes):
            super().__init__()
            self.W_q, self.W_k = nn.Linear(sizes[0], sizes[0]), nn.Linear(sizes[-1], sizes[0])
            self.W_v, self.W_o = nn.Linear(sizes[-1], sizes[0]), nn.Linear(sizes[0], sizes[0])

        def forward(self, x, context=None, attn_mask=None, is_causal=False):
            context = x if context is None else context
            output, weights = right_attention(
                self.W_q(x), self.W_k(context), self.W_v(context), attn_mask, is_causal
            )
            return self.W_o(output), weights

    @mutant(one, "missing or misnamed parameter")
    class LayersInAList(nn.Module):
        def __init__(self, *sizes):
            super().__init__()
            self.layers = [nn.Linear(sizes[0], sizes[0]) for _ in range(4)]

    @mutant(one, "not an nn.Module")
    class PlainClass:
        def __init__(self, *sizes):
            self.q_proj = torch.randn(sizes[0], sizes[0])

        def __call__(self, x, *rest, **options):
            return x, x

    @mutant(one)
    class NoSuper(nn.Module):
        def __init__(self, *sizes):
            self.q_proj = nn.Linear(sizes[0], sizes[0])

    @mutant(one)
    class NoForward(Four):
        pass

    @mutant(one)
    class LeavesTheProcess(Four):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            sys.exit(0)

    @mutant(one)
    class LeavesInForward(Four):
        def forward(self, *inputs, **options):
            sys.exit(0)

    @mutant(one)
    class CallsItself(Four):
        def forward(self, *inputs, **options):
            return self.forward(*inputs, **options)

    @mutant(one, "does not return what is asked for")
    class OutputAlone(Four):
        def forward(self, x, context=None, attn_mask=None, is_causal=False):
            return self.out_proj(x)

    @mutant(one, "does not return what is asked for")
    class ReturnsNothing(Four):
        def forward(self, *inputs, **options):
            self.q_proj(inputs[0])

    @mutant(one)
    class Zeros(Four):
        def forward(self, x, context=None, attn_mask=None, is_causal=False):
            context = x if context is None else context
            return torch.zeros_like(x), torch.zeros(*x.shape[:-1], context.shape[-2])

    @mutant(one, "another result at every call")
    class RandomNumbers(Four):
        def forward(self, x, context=None, attn_mask=None, is_causal=False):
            context = x if context is None else context
            return torch.rand_like(x), torch.rand(*x.shape[:-1], context.shape[-2])

    @mutant(one, "results in the wrong order")
    class WeightsFirst(Four):
        def forward(self, x, context=None, attn_mask=None, is_causal=False):
            context = x if context is None else context
            query, key, value = self.q_proj(x), self.k_proj(context), self.v_proj(context)
            output, weights = right_attention(query, key, value, attn_mask, is_causal)
            return weights, self.out_proj(output)

    @mutant(one, "missing or misnamed parameter")
    class MultiheadInside(nn.Module):
        def __init__(self, *sizes):
            super().__init__()
            self.inner = nn.MultiheadAttention(sizes[0], 1, kdim=sizes[-1], vdim=sizes[-1], batch_first=True)


@mutant("SelfAttention")
class CopiesItsInput(Four):
    def forward(self, x, attn_mask=None, is_causal=False):
        return x, right_attention(x, x, x, attn_mask, is_causal)[1]


@mutant("CrossAttention")
class CopiesX(Four):
    def forward(self, x, context, attn_mask=None):
        return x, right_attention(self.q_proj(x), self.k_proj(context), self.v_proj(context), attn_mask)[1]


@mutant("SelfAttention")
class PositionByPosition(Four):
    def forward(self, x, attn_mask=None, is_causal=False):
        return self.out_proj(self.v_proj(x)), right_attention(x, x, x, attn_mask, is_causal)[1]


@mutant("SelfAttention", "one layer in two places")
class OneLayerForTwo(RightSelf):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.k_proj = self.q_proj


@mutant("CrossAttention", "parameter of the wrong shape")
class EverythingFromTheModel(nn.Module):
    forward = RightCross.forward

    def __init__(self, d_model, d_context):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(d_model, d_model) for _ in range(4))


@mutant("CrossAttention", "parameter of the wrong shape")
class WidthsExchanged(nn.Module):
    forward = RightCross.forward

    def __init__(self, d_model, d_context):
        super().__init__()
        self.q_proj, self.out_proj = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.k_proj, self.v_proj = nn.Linear(d_model, d_context), nn.Linear(d_model, d_context)


mutant("SelfAttention")(right_attention)
