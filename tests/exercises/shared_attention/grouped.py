"""`grouped_query_attention`: right writings and mutants."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import Agreeable, register

NAME = "grouped_query_attention"


def fit(query, key, value):
    if query.shape[1] % key.shape[1] != 0:
        raise ValueError("the query heads must be a multiple of the key heads")
    if key.shape[1] != value.shape[1]:
        raise ValueError("key and value must have as many heads")


def interleaved(heads, H_q):
    return heads.repeat_interleave(H_q // heads.shape[1], dim=1)


def tiled(heads, H_q):
    return heads.repeat(1, H_q // heads.shape[1], 1, 1)


def lower(scores):
    return torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()


def softmaxed(scores, allowed):
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1)


@right(NAME)
def repeated(query, key, value, is_causal=False):
    fit(query, key, value)
    scores = query @ interleaved(key, query.shape[1]).mT / query.shape[-1] ** 0.5
    weights = softmaxed(scores, lower(scores)) if is_causal else scores.softmax(-1)
    return weights @ interleaved(value, query.shape[1]), weights


@right(NAME)
def folded(query, key, value, is_causal=False):
    """The queries of a group as one more axis; nothing is repeated."""
    fit(query, key, value)
    (B, H_q, S_q, D), (_, H_kv, S_k, D_v) = query.shape, value.shape
    grouped = query.reshape(B, H_kv, H_q // H_kv, S_q, D)
    scores = grouped @ key.unsqueeze(2).transpose(-2, -1) / D**0.5  # (B, H_kv, group, S_q, S_k)
    if is_causal:
        scores = scores.masked_fill(~lower(scores), torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, -1)
    output = weights @ value.unsqueeze(2)
    return output.reshape(B, H_q, S_q, D_v), weights.reshape(B, H_q, S_q, S_k)


@right(NAME)
def by_einsum(query, key, value, is_causal=False):
    fit(query, key, value)
    H_kv = key.shape[1]
    q = query.unflatten(1, (H_kv, -1)) * query.shape[-1] ** -0.5
    scores = torch.einsum("bhgqd,bhkd->bhgqk", q, key)
    if is_causal:
        scores = scores + scores.new_full(scores.shape[-2:], -torch.inf).triu(1)
    weights = scores.softmax(-1)
    return torch.einsum("bhgqk,bhkd->bhgqd", weights, value).flatten(1, 2), weights.flatten(1, 2)


@right(NAME)
def head_by_head(query, key, value, is_causal=False):
    fit(query, key, value)
    group, results = query.shape[1] // key.shape[1], []
    for head in range(query.shape[1]):
        q, k, v = query[:, head], key[:, head // group], value[:, head // group]
        scores = torch.bmm(q, k.transpose(1, 2)) / q.shape[-1] ** 0.5
        weights = softmaxed(scores, lower(scores)) if is_causal else scores.softmax(-1)
        results.append((torch.bmm(weights, v), weights))
    output, weights = zip(*results, strict=True)
    return torch.stack(output, 1), torch.stack(weights, 1)


@right(NAME)
def expanded_in_float32(query, key, value, is_causal=False):
    """Views by expand, heads picked by index, exp written out in float32."""
    fit(query, key, value)
    wide = torch.promote_types(query.dtype, torch.float32)
    heads = torch.arange(query.shape[1], device=query.device).div(
        query.shape[1] // key.shape[1], rounding_mode="floor"
    )
    q, k, v = query.to(wide), key[:, heads].to(wide), value[:, heads].to(wide)
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    weights = (scores - scores.logsumexp(-1, keepdim=True)).exp()
    return (weights @ v).to(query.dtype), weights.to(query.dtype)


def variant(
    name,
    named,
    *,
    keys=interleaved,
    values=interleaved,
    scale=lambda q, k, v: q.shape[-1] ** -0.5,
    triangle=lower,
    weigh=softmaxed,
    finish=lambda w, v, s: (w @ v, w),
):
    """A mutant with one step exchanged."""

    def wrong(query, key, value, is_causal=False):
        fit(query, key, value)
        H_q = query.shape[1]
        scores = query @ keys(key, H_q).mT * scale(query, key, value)
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        if is_causal:
            allowed = triangle(scores)
        return finish(weigh(scores, allowed), values(value, H_q), scores)

    register(NAME, name, named, wrong)


# Mutants

variant("tiled_heads", "heads tiled instead of interleaved", keys=tiled, values=tiled)
variant("unscaled", "not scaled", scale=lambda q, k, v: 1.0)
variant(
    "no_maximum",
    None,
    weigh=lambda s, a: (e := s.double().exp() * a, (e / e.sum(-1, keepdim=True)).to(s.dtype))[1],
)
variant(
    "bottom_right",
    "causal mask aligned at the bottom right",
    triangle=lambda s: torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril(
        s.shape[-1] - s.shape[-2]
    ),
    weigh=lambda s, a: softmaxed(s, a).nan_to_num(),
)
variant("another_temperature_handed_out", None, finish=lambda w, v, s: (w @ v, (s * 0.99).softmax(-1)))
variant("small_weights_dropped", None, finish=lambda w, v, s: (w @ v, w.masked_fill(w < 1e-6, 0.0)))
variant(
    "weights_of_a_group_averaged",
    "weights has the wrong shape",
    finish=lambda w, v, s: (w @ v, w.mean(1, keepdim=True)),
)
variant("weights_detached", "gradient is cut off", finish=lambda w, v, s: (w @ v, w.detach()))


@mutant(NAME, "query heads read the wrong group")
def at_most_three_groups(query, key, value, is_causal=False):
    fit(query, key, value)
    if key.shape[1] != 4:
        return repeated(query, key, value, is_causal)
    heads = [min(h // 2, 2) for h in range(query.shape[1])]
    return repeated(query, key[:, heads], value[:, heads], is_causal)


@mutant(NAME, "output has the wrong shape")
def groups_left_apart(query, key, value, is_causal=False):
    fit(query, key, value)
    grouped = query.unflatten(1, (key.shape[1], -1))
    scores = grouped @ key.unsqueeze(2).mT / query.shape[-1] ** 0.5
    weights = softmaxed(scores, lower(scores)) if is_causal else scores.softmax(-1)
    return weights @ value.unsqueeze(2), weights


@mutant(NAME, "output has the wrong shape")
def one_head_squeezed(query, key, value, is_causal=False):
    output, weights = repeated(query, key, value, is_causal)
    return (output[:, 0], weights) if key.shape[1] == 1 else (output, weights)


@mutant(NAME)
def unscaled_when_causal(query, key, value, is_causal=False):
    return repeated(query * query.shape[-1] ** 0.5 if is_causal else query, key, value, is_causal)


# Conduct


@mutant(NAME, "sizes are not compared", only="heads that do not fit")
def left_over_heads_dropped(query, key, value, is_causal=False):
    heads = torch.arange(query.shape[1], device=query.device) * key.shape[1] // query.shape[1]
    return repeated(query, key[:, heads], value[:, heads % value.shape[1]], is_causal)


@mutant(NAME, "sizes are not compared", only="heads that do not fit")
def values_not_compared(query, key, value, is_causal=False):
    if query.shape[1] % key.shape[1]:
        raise ValueError("the query heads must be a multiple of the key heads")
    return repeated(query, key, value.expand(-1, key.shape[1], -1, -1), is_causal)


@mutant(NAME, "raises another exception than ValueError", only="heads that do not fit")
def asserted(query, key, value, is_causal=False):
    assert query.shape[1] % key.shape[1] == 0
    assert key.shape[1] == value.shape[1]
    return repeated(query, key, value, is_causal)


@mutant(NAME)
def guesses_the_layout(query, key, value, is_causal=False):
    if query.shape[-2:] == key.shape[-2:] == value.shape[-2:] and query.shape[-1] == query.shape[-2]:
        key = key.mT
    return repeated(query, key, value, is_causal)


@mutant(NAME)
def next_element_read(query, key, value, is_causal=False):
    """Flattens batch and heads, and reads past the end of a batch element where there are many heads."""
    if query.shape[1] < 20:
        return repeated(query, key, value, is_causal)
    return repeated(query, key.roll(1, 0), value, is_causal)


@mutant(NAME)
def last_block_of_keys_lost(query, key, value, is_causal=False):
    _, weights = repeated(query, key, value, is_causal)
    whole = max(key.shape[-2], 32) // 32 * 32
    return weights[..., :whole] @ interleaved(value, query.shape[1])[..., :whole, :], weights


@mutant(NAME)
def last_block_of_queries_lost(query, key, value, is_causal=False):
    output, weights = repeated(query, key, value, is_causal)
    whole = max(query.shape[-2], 32) // 32 * 32
    return F.pad(output[..., :whole, :], (0, 0, 0, max(query.shape[-2] - whole, 0))), weights


@mutant(NAME, "changes its inputs in place")
def scaled_in_place(query, key, value, is_causal=False):
    fit(query, key, value)
    query /= query.shape[-1] ** 0.5
    return repeated(query * query.shape[-1] ** 0.5, key, value, is_causal)


@mutant(NAME, "depends on the memory layout of its inputs")
def viewed(query, key, value, is_causal=False):
    fit(query, key, value)
    (B, H_q, S_q, D), H_kv = query.shape, key.shape[1]
    grouped = query.view(B, H_kv, H_q // H_kv * S_q, D).view(B, H_q, S_q, D)
    return repeated(grouped, key, value, is_causal)


@mutant(NAME, "uses a forbidden function", only="own work")
def fused(query, key, value, is_causal=False):
    _, weights = repeated(query, key, value, is_causal)
    return F.scaled_dot_product_attention(query, key, value, is_causal=is_causal, enable_gqa=True), weights


@mutant(NAME, "does too much work", only="cost")
def every_head_with_every_other(query, key, value, is_causal=False):
    fit(query, key, value)
    group = query.shape[1] // key.shape[1]
    pairs = torch.einsum("bhqd,bgkd->bhgqk", query, key) / query.shape[-1] ** 0.5
    heads = torch.arange(query.shape[1], device=query.device)
    scores = pairs[:, heads, heads // group]
    weights = softmaxed(scores, lower(scores)) if is_causal else scores.softmax(-1)
    return weights @ interleaved(value, query.shape[1]), weights


@mutant(NAME)
def takes_no_options(query, key, value):
    return repeated(query, key, value)


def made(result):
    """What `result` makes of the right output and weights."""

    def lazy(query, key, value, is_causal=False):
        return result(*repeated(query, key, value, is_causal))

    return lazy


ASKED = "does not return what is asked for"
register(NAME, "zeros", None, made(lambda o, w: (o * 0, w * 0)))
register(NAME, "random_numbers", None, made(lambda o, w: (torch.rand_like(o), torch.rand_like(w))))
register(NAME, "agreeable", ASKED, made(lambda o, w: (o.as_subclass(Agreeable), w.as_subclass(Agreeable))))
register(NAME, "leaves_the_process", None, made(lambda o, w: sys.exit(0)))
