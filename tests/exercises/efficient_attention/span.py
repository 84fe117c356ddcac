"""`adaptive_span_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import register

NAME = "adaptive_span_attention"


def distances(x):
    place = torch.arange(x.shape[-2], device=x.device)
    return place[:, None] - place


def soft(span, ramp, back):
    return ((ramp + span[:, None, None] - back) / ramp).clamp(0, 1)


def weigh(scores, mask):
    hidden = scores.masked_fill(mask == 0, -torch.inf)
    seen = mask * (hidden - hidden.amax(-1, keepdim=True)).exp()
    return seen / seen.sum(-1, keepdim=True)


@right(NAME)
def plainly(query, key, value, span, ramp):
    back = distances(query)
    mask = soft(span, ramp, back).masked_fill(back < 0, 0.0)
    weights = weigh(query @ key.mT / query.shape[-1] ** 0.5, mask)
    return weights @ value, weights, span.mean()


@right(NAME)
def softmax_then_again(query, key, value, span, ramp):
    """A softmax over what the mask leaves, times the mask, divided by the sum."""
    back = distances(query).to(query.dtype)
    mask = torch.clamp(1 + (span.view(-1, 1, 1) - back) / ramp, 0.0, 1.0) * (back >= 0)
    scores = torch.einsum("...qd,...kd->...qk", query, key) * query.shape[-1] ** -0.5
    soft = scores.masked_fill(mask <= 0, -torch.inf).softmax(-1) * mask
    weights = soft / soft.sum(dim=-1, keepdim=True)
    return torch.einsum("...qk,...kv->...qv", weights, value), weights, span.sum() / len(span)


@right(NAME)
def logarithm_of_the_mask(query, key, value, span, ramp):
    back = distances(query)
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
            m = ((ramp + span[h] - torch.arange(i, -1, -1, device=query.device)) / ramp).clamp(0, 1)
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


def variant(name, named, *, mask=soft, weigh=weigh, finish=lambda w, v: (w @ v, w)):
    """A mutant with one step exchanged."""

    def wrong(query, key, value, span, ramp):
        back = distances(query).to(query.dtype)
        allowed = mask(span, ramp, back).masked_fill(back < 0, 0.0)
        weights = weigh(query @ key.mT / query.shape[-1] ** 0.5, allowed)
        return *finish(weights, value), span.mean()

    register(NAME, name, named, wrong)


def past(s):
    return torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril()


variant(
    "maximum_of_all",
    "a hidden score empties the row",
    weigh=lambda s, m: (
        e := m * (s.double() - s.double().masked_fill(~past(s), -torch.inf).amax(-1, keepdim=True)).exp(),
        (e / e.sum(-1, keepdim=True)).to(s.dtype),
    )[1],
)
variant(
    "a_little_everywhere",
    None,
    weigh=lambda s, m: weigh(s, m + 1e-30 * past(s)) if s.shape[-1] > 1 else weigh(s, m),
)
variant(
    "no_maximum",
    None,
    weigh=lambda s, m: (
        e := m * s.double().masked_fill(m == 0, -torch.inf).exp(),
        (e / e.sum(-1, keepdim=True)).to(s.dtype),
    )[1],
)
variant(
    "other_weights_handed_out",
    None,
    finish=lambda w, v: (w @ v, w.sqrt() / w.sqrt().sum(-1, keepdim=True)),
)
variant(
    "ends_of_the_span_at_the_text",
    None,
    mask=lambda z, R, x: soft(z.clamp(max=6.0) if x.shape[-1] > 1 else z, R, x),
)


@mutant(NAME, "output has the wrong shape")
def squeezed(query, key, value, span, ramp):
    output, weights, penalty = plainly(query, key, value, span, ramp)
    return (output.squeeze(-2) if query.dim() == 4 else output), weights, penalty


@mutant(NAME)
def scale_forgotten(query, key, value, span, ramp):
    return plainly(query * query.shape[-1] ** 0.5, key, value, span, ramp)[0], *plainly(
        query, key, value, span, ramp
    )[1:]


@right(NAME)
def bare_logarithm(query, key, value, span, ramp):
    back = distances(query)
    mask = soft(span, ramp, back).masked_fill(back < 0, 0.0)
    weights = (query @ key.mT / query.shape[-1] ** 0.5 + mask.log()).softmax(-1)
    return weights @ value, weights, span.mean()


@mutant(NAME, "gradient is cut off")
def span_detached(query, key, value, span, ramp):
    output, weights, _ = plainly(query, key, value, span.detach(), ramp)
    return output, weights, span.mean()


@mutant(NAME, "uses a forbidden function", only="own work")
def fused(query, key, value, span, ramp):
    _, weights, penalty = plainly(query, key, value, span, ramp)
    back = distances(query)
    mask = soft(span, ramp, back).masked_fill(back < 0, 0.0)
    bias = torch.where(mask > 0, mask, 1.0).log().masked_fill(mask == 0, -torch.inf)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias), weights, penalty


@mutant(NAME, "does not return what is asked for")
def penalty_forgotten(query, key, value, span, ramp):
    return plainly(query, key, value, span, ramp)[:2]
