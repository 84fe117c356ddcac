"""`recurrent_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.conduct import in_a_wrong_manner, of_function, without_an_attempt
from tests.exercises.shared_attention.lazy import register

NAME = "recurrent_attention"


def tail(rows, length):
    return rows[..., max(rows.shape[-2] - length, 0) :, :]


def weigh(scores, M):
    ones = torch.ones(scores.shape[-2:], dtype=torch.bool)
    return scores.masked_fill(~ones.tril(M), -torch.inf).softmax(-1)


def before(x, memory):
    return x[..., :0, :] if memory is None else memory.detach()


@right(NAME)
def plainly(x, memory, W_q, W_k, W_v, memory_length):
    old = before(x, memory)
    context = torch.cat([old, x], -2)
    scores = x @ W_q @ (context @ W_k).mT / W_q.shape[-1] ** 0.5
    return weigh(scores, old.shape[-2]) @ (context @ W_v), tail(context, memory_length).detach()


@right(NAME)
def two_parts(x, memory, W_q, W_k, W_v, memory_length):
    """Memory and segment apart, their scores side by side; the memory never joined to x for the attention."""
    old = before(x, memory)
    query = x @ W_q / W_k.shape[-1] ** 0.5
    far, near = query @ (old @ W_k).mT, query @ (x @ W_k).mT
    near = near + torch.full(near.shape[-2:], -torch.inf, dtype=x.dtype).triu(1)
    weights = torch.cat([far, near], -1).softmax(-1)
    M = old.shape[-2]
    output = weights[..., :M] @ (old @ W_v) + weights[..., M:] @ (x @ W_v)
    with torch.no_grad():
        new = torch.cat([old, x], -2)
    return output, tail(new, memory_length)


@right(NAME)
def row_by_row(x, memory, W_q, W_k, W_v, memory_length):
    old = before(x, memory)
    M, S = old.shape[-2], x.shape[-2]
    context = torch.cat((old, x), dim=-2)
    key, value, rows = context @ W_k, context @ W_v, []
    for i in range(S):
        scores = ((x[..., i : i + 1, :] @ W_q) * key[..., : M + i + 1, :]).sum(-1) / W_q.shape[1] ** 0.5
        weights = (scores - scores.logsumexp(-1, keepdim=True)).exp()
        rows.append((weights.unsqueeze(-1) * value[..., : M + i + 1, :]).sum(-2))
    kept = min(memory_length, M + S)
    return torch.stack(rows, -2), context.detach().narrow(-2, M + S - kept, kept).clone()


@right(NAME)
def float32_inside(x, memory, W_q, W_k, W_v, memory_length):
    wide = torch.promote_types(x.dtype, torch.float32)
    given = [None if t is None else t.to(wide) for t in (x, memory, W_q, W_k, W_v)]
    return tuple(t.to(x.dtype) for t in plainly(*given, memory_length))


def variant(
    name,
    named,
    *,
    only=None,
    context=lambda old, x: torch.cat([old, x], -2),
    attend=weigh,
    scale=lambda D: D**-0.5,
    keep=lambda old, x, n: tail(torch.cat([old, x], -2), n),
    swap=lambda q, k, v: (q, k, v),
    detach=True,
):
    """A mutant with one step exchanged."""

    def wrong(x, memory, W_q, W_k, W_v, memory_length):
        old = before(x, memory) if detach or memory is None else memory
        rows = context(old, x)
        W_q, W_k, W_v = swap(W_q, W_k, W_v)
        scores = x @ W_q @ (rows @ W_k).mT * scale(W_q.shape[-1])
        return attend(scores, old.shape[-2]) @ (rows @ W_v), keep(old, x, memory_length).detach()

    register(NAME, name, named, wrong, only)


def tril(offset):
    def masked(scores, M):
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool)
        return scores.masked_fill(~ones.tril(offset(M)), -torch.inf).softmax(-1).nan_to_num()

    return masked


variant("memory_unread", "memory not read", context=lambda old, x: x, attend=tril(lambda M: 0))
variant("memory_last", "memory after the segment", context=lambda old, x: torch.cat([x, old], -2))
variant("no_offset", "causal mask without the memory's offset", attend=tril(lambda M: 0))
variant("no_mask", "nothing is masked", attend=lambda s, M: s.softmax(-1))
variant("not_itself", "a position does not see itself", attend=tril(lambda M: M - 1))
variant("the_next", "one position of the future is seen", attend=tril(lambda M: M + 1))
variant("unscaled", "not scaled", scale=lambda D: 1.0, only="agrees with the formula")
variant("by_width", "divided by D", scale=lambda D: 1 / D)
variant(
    "raw_scores",
    "no softmax",
    attend=lambda s, M: s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(M), 0.0),
)
variant(
    "over_queries",
    "softmax over the queries",
    attend=lambda s, M: (
        s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(M), -torch.inf)
        .softmax(-2)
        .nan_to_num()
    ),
)
variant(
    "first_rows",
    "first rows kept instead of the last",
    keep=lambda old, x, n: torch.cat([old, x], -2)[..., :n, :],
)
variant("segment_alone", "old memory dropped", keep=lambda old, x, n: tail(x, n))
variant("old_again", "old memory returned", keep=lambda old, x, n: tail(old, n))
variant("endless", "memory grows without end", keep=lambda old, x, n: torch.cat([old, x], -2))
variant("one_more", "one row too many kept", keep=lambda old, x, n: tail(torch.cat([old, x], -2), n + 1))
variant(
    "segment_first",
    "segment before the memory in what is kept",
    keep=lambda old, x, n: tail(torch.cat([x, old], -2), n),
)
variant(
    "rounded_memory",
    None,
    keep=lambda old, x, n: tail(torch.cat([old, x], -2), n) + 1.0,
    only="the new memory",
)
variant(
    "minus_zero",
    "the new memory is not the last rows",
    keep=lambda old, x, n: torch.cat([old, x], -2)[..., -n:, :],
    only="any length",
)
variant("values_by_W_k", "keys and values made by the other's matrix", swap=lambda q, k, v: (q, v, k))
variant("keys_by_W_q", "keys made by W_q", swap=lambda q, k, v: (q, q, v))
variant("attached", "gradient flows into the memory", detach=False, only="no gradient into the memory")
variant(
    "no_maximum",
    "overflows or underflows for large scores",
    only="huge scores",
    attend=lambda s, M: (e := s.exp().tril(M)) / e.sum(-1, keepdim=True),
)


def new_memory_attached(x, memory, W_q, W_k, W_v, memory_length):
    output, _ = plainly(x, memory, W_q, W_k, W_v, memory_length)
    return output, tail(torch.cat([before(x, memory), x], -2), memory_length)


mutant(NAME, "the new memory is not detached", only="no gradient into the memory")(new_memory_attached)


@mutant(NAME, "new memory read instead of the old")
def updated_before_it_is_read(x, memory, W_q, W_k, W_v, memory_length):
    new = tail(torch.cat([before(x, memory), x], -2), memory_length).detach()
    return plainly(x, new, W_q, W_k, W_v, memory_length)[0], new


@mutant(NAME, "old memory cut before it is read", only="old memory read")
def cut_before_it_is_read(x, memory, W_q, W_k, W_v, memory_length):
    old = before(x, memory)
    output, _ = plainly(x, tail(old, memory_length), W_q, W_k, W_v, memory_length)
    return output, tail(torch.cat([old, x], -2), memory_length).detach()


@mutant(NAME, "outputs kept instead of x")
def outputs_kept(x, memory, W_q, W_k, W_v, memory_length):
    output, _ = plainly(x, memory, W_q, W_k, W_v, memory_length)
    return output, tail(output, memory_length).detach()


@mutant(NAME, only="no memory yet")
def needs_a_memory(x, memory, W_q, W_k, W_v, memory_length):
    return plainly(x, memory.detach(), W_q, W_k, W_v, memory_length)


@mutant(NAME, "wrong gradient", only="gradient")
def keys_detached(x, memory, W_q, W_k, W_v, memory_length):
    """No gradient into the memory, and none into W_k and W_v from it, either."""
    old = before(x, memory)
    key, value = (torch.cat([(old @ W).detach(), x @ W], -2) for W in (W_k, W_v))
    weights = weigh(x @ W_q @ key.mT / W_q.shape[-1] ** 0.5, old.shape[-2])
    return weights @ value, tail(torch.cat([old, x], -2), memory_length).detach()


@mutant(NAME, "uses a forbidden function", only="own work")
def fused(x, memory, W_q, W_k, W_v, memory_length):
    old = before(x, memory)
    context = torch.cat([old, x], -2)
    allowed = torch.ones(x.shape[-2], context.shape[-2], dtype=torch.bool).tril(old.shape[-2])
    output = F.scaled_dot_product_attention(x @ W_q, context @ W_k, context @ W_v, attn_mask=allowed)
    return output, tail(context, memory_length).detach()


make = of_function(plainly)
without_an_attempt(NAME, make, "x has no effect")
in_a_wrong_manner(NAME, make)
