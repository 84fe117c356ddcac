"""`adaptive_span_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.conduct import in_a_wrong_manner, of_function, without_an_attempt
from tests.exercises.shared_attention.lazy import register

NAME = "adaptive_span_attention"


def distances(S):
    return torch.arange(S)[:, None] - torch.arange(S)


def soft(span, ramp, back):
    return ((ramp + span[:, None, None] - back) / ramp).clamp(0, 1)


def weigh(scores, mask):
    hidden = scores.masked_fill(mask == 0, -torch.inf)
    seen = mask * (hidden - hidden.amax(-1, keepdim=True)).exp()
    return seen / seen.sum(-1, keepdim=True)


@right(NAME)
def plainly(query, key, value, span, ramp):
    back = distances(query.shape[-2])
    mask = soft(span, ramp, back).masked_fill(back < 0, 0.0)
    weights = weigh(query @ key.mT / query.shape[-1] ** 0.5, mask)
    return weights @ value, weights, span.mean()


@right(NAME)
def softmax_then_again(query, key, value, span, ramp):
    """A softmax over what the mask leaves, times the mask, divided by the sum."""
    back = distances(query.shape[-2]).to(query.dtype)
    mask = torch.clamp(1 + (span.view(-1, 1, 1) - back) / ramp, 0.0, 1.0) * (back >= 0)
    scores = torch.einsum("...qd,...kd->...qk", query, key) * query.shape[-1] ** -0.5
    soft = scores.masked_fill(mask <= 0, -torch.inf).softmax(-1) * mask
    weights = soft / soft.sum(dim=-1, keepdim=True)
    return torch.einsum("...qk,...kv->...qv", weights, value), weights, span.sum() / len(span)


@right(NAME)
def logarithm_of_the_mask(query, key, value, span, ramp):
    back = distances(query.shape[-2])
    mask = soft(span, ramp, back).masked_fill(back < 0, 0.0)
    inside = mask > 0
    scores = query @ key.mT / query.shape[-1] ** 0.5 + torch.where(inside, mask, 1.0).log()
    weights = scores.masked_fill(~inside, -torch.inf).softmax(-1)
    return weights @ value, weights, torch.mean(span)


@right(NAME)
def head_by_head(query, key, value, span, ramp):
    S, outputs, tables = query.shape[-2], [], []
    for h in range(len(span)):
        rows = []
        for i in range(S):
            m = ((ramp + span[h] - torch.arange(i, -1, -1)) / ramp).clamp(0, 1)
            scores = (query[..., h, i : i + 1, :] * key[..., h, : i + 1, :]).sum(-1) / query.shape[-1] ** 0.5
            scores = scores.masked_fill(m == 0, -torch.inf)
            seen = m * torch.exp(scores - scores.amax(-1, keepdim=True))
            rows.append(F.pad(seen / seen.sum(-1, keepdim=True), (0, S - i - 1)))
        tables.append(torch.stack(rows, -2))
        outputs.append(tables[-1] @ value[..., h, :, :])
    return torch.stack(outputs, -3), torch.stack(tables, -3), span.mean()


@right(NAME)
def float32_inside(query, key, value, span, ramp):
    wide = torch.promote_types(query.dtype, torch.float32)
    return tuple(t.to(query.dtype) for t in plainly(*(t.to(wide) for t in (query, key, value, span)), ramp))


def variant(
    name,
    named,
    *,
    only=None,
    mask=soft,
    causal=True,
    weigh=weigh,
    scale=lambda D: D**-0.5,
    penalty=lambda span, ramp: span.mean(),
    finish=lambda w, v: (w @ v, w),
):
    """A mutant with one step exchanged."""

    def wrong(query, key, value, span, ramp):
        back = distances(query.shape[-2]).to(query.dtype)
        allowed = mask(span, ramp, back)
        if causal:
            allowed = allowed.masked_fill(back < 0, 0.0)
        weights = weigh(query @ key.mT * scale(query.shape[-1]), allowed)
        return *finish(weights, value), penalty(span, ramp)

    register(NAME, name, named, wrong, only)


def past(s):
    return torch.ones(s.shape[-2:], dtype=torch.bool).tril()


variant("hard", "hard span", mask=lambda z, R, x: (x <= z[:, None, None]).to(z.dtype))
variant(
    "hard_with_ramp", "hard span with the ramp", mask=lambda z, R, x: (x <= z[:, None, None] + R).to(z.dtype)
)
variant("ramp_inside", "ramp ends at the span", mask=lambda z, R, x: ((z[:, None, None] - x) / R).clamp(0, 1))
variant(
    "from_the_start",
    "span counted from the start of the text",
    mask=lambda z, R, x: soft(z, R, torch.arange(x.shape[-1])[None]).expand(-1, len(x), -1),
    weigh=lambda s, m: weigh(s, m),
)
variant(
    "far_ones",
    "span turned round: far keys seen, near ones not",
    mask=lambda z, R, x: 1 - soft(z, R, x),
    weigh=lambda s, m: weigh(s, m).nan_to_num(),
)
variant("unclamped", "mask not clamped", mask=lambda z, R, x: ((R + z[:, None, None] - x) / R).relu())
variant("mean_span", "one span for all heads", mask=lambda z, R, x: soft(z.mean().expand(len(z)), R, x))
variant("no_span", "span ignored", mask=lambda z, R, x: torch.ones(len(z), *x.shape, dtype=x.dtype))
variant("open_future", "not causal", causal=False)
variant(
    "both_sides",
    "not causal, distances on both sides",
    causal=False,
    mask=lambda z, R, x: soft(z, R, x.abs()),
)
variant(
    "not_again",
    "not normalised again after the mask",
    weigh=lambda s, m: s.masked_fill(~past(s), -torch.inf).softmax(-1) * m,
)
variant(
    "added_to_the_sum",
    "a small number added to the sum",
    weigh=lambda s, m: (
        (w := s.masked_fill(~past(s), -torch.inf).softmax(-1) * m) / (w.sum(-1, keepdim=True) + 1e-8)
    ),
)
variant(
    "mask_times_scores",
    "mask multiplies the scores",
    weigh=lambda s, m: (s * m).masked_fill(~past(s), -torch.inf).softmax(-1),
)
variant(
    "mask_plus_scores",
    "mask added to the scores",
    weigh=lambda s, m: (s + m).masked_fill(~past(s), -torch.inf).softmax(-1),
)
variant("unscaled", "not scaled", scale=lambda D: 1.0)
variant("by_width", "divided by D", scale=lambda D: 1 / D)
variant("summed_penalty", "penalty is the sum of the spans", penalty=lambda z, R: z.sum(), only="penalty")
variant("penalty_with_ramp", "penalty counts the ramp", penalty=lambda z, R: (z + R).mean())
variant("largest_span", "penalty is the largest span", penalty=lambda z, R: z.max())
variant("squared_penalty", "penalty squares the spans", penalty=lambda z, R: z.square().mean())
variant(
    "maximum_of_all",
    "a hidden score empties the row",
    only="beyond the span",
    weigh=lambda s, m: (
        e := m * (s.double() - s.double().masked_fill(~past(s), -torch.inf).amax(-1, keepdim=True)).exp(),
        (e / e.sum(-1, keepdim=True)).to(s.dtype),
    )[1],
)
variant(
    "a_little_everywhere",
    None,
    only="weights",
    weigh=lambda s, m: weigh(s, m + 1e-30 * past(s)) if s.shape[-1] > 1 else weigh(s, m),
)
variant(
    "no_maximum",
    "overflows or underflows for large scores",
    only="huge scores",
    weigh=lambda s, m: (
        e := m * s.double().masked_fill(m == 0, -torch.inf).exp(),
        (e / e.sum(-1, keepdim=True)).to(s.dtype),
    )[1],
)
variant(
    "other_weights_handed_out",
    None,
    only="weights",
    finish=lambda w, v: (w @ v, w.sqrt() / w.sqrt().sum(-1, keepdim=True)),
)
variant(
    "ends_of_the_span_at_the_text",
    None,
    only="any span",
    mask=lambda z, R, x: soft(z.clamp(max=6.0) if x.shape[-1] > 1 else z, R, x),
)


@mutant(NAME, "output has the wrong shape", only="any span")
def squeezed(query, key, value, span, ramp):
    output, weights, penalty = plainly(query, key, value, span, ramp)
    return (output.squeeze(-2) if query.dim() == 4 else output), weights, penalty


@mutant(NAME, only="agrees with the formula")
def scale_forgotten(query, key, value, span, ramp):
    return plainly(query * query.shape[-1] ** 0.5, key, value, span, ramp)[0], *plainly(
        query, key, value, span, ramp
    )[1:]


@right(NAME)
def bare_logarithm(query, key, value, span, ramp):
    back = distances(query.shape[-2])
    mask = soft(span, ramp, back).masked_fill(back < 0, 0.0)
    weights = (query @ key.mT / query.shape[-1] ** 0.5 + mask.log()).softmax(-1)
    return weights @ value, weights, span.mean()


@mutant(NAME, "gradient is cut off", only="gradient")
def span_detached(query, key, value, span, ramp):
    output, weights, _ = plainly(query, key, value, span.detach(), ramp)
    return output, weights, span.mean()


@mutant(NAME, "uses a forbidden function", only="own work")
def fused(query, key, value, span, ramp):
    _, weights, penalty = plainly(query, key, value, span, ramp)
    back = distances(query.shape[-2])
    mask = soft(span, ramp, back).masked_fill(back < 0, 0.0)
    bias = torch.where(mask > 0, mask, 1.0).log().masked_fill(mask == 0, -torch.inf)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias), weights, penalty


@mutant(NAME, "does not return what is asked for")
def penalty_forgotten(query, key, value, span, ramp):
    return plainly(query, key, value, span, ramp)[:2]


make = of_function(plainly)
without_an_attempt(NAME, make, "query has no effect")
in_a_wrong_manner(NAME, make, axes=4)
