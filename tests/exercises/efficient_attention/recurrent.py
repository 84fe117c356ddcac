"""`recurrent_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right

NAME = "recurrent_attention"


def tail(rows, length):
    return rows[..., max(rows.shape[-2] - length, 0) :, :]


def weigh(scores, M):
    ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
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
    near = near + torch.full_like(near, -torch.inf).triu(1)
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


@mutant(NAME, "the new memory is not the last rows")
def rounded_memory(x, memory, W_q, W_k, W_v, memory_length):
    output, new = plainly(x, memory, W_q, W_k, W_v, memory_length)
    return output, new + 1e-3


@mutant(NAME, "everything kept where nothing is asked")
def minus_zero(x, memory, W_q, W_k, W_v, memory_length):
    output, _ = plainly(x, memory, W_q, W_k, W_v, memory_length)
    return output, torch.cat([before(x, memory), x], -2)[..., -memory_length:, :].detach()


@mutant(NAME, "gradient flows into the memory")
def attached(x, memory, W_q, W_k, W_v, memory_length):
    context = x if memory is None else torch.cat([memory, x], -2)
    scores = x @ W_q @ (context @ W_k).mT / W_q.shape[-1] ** 0.5
    weights = weigh(scores, context.shape[-2] - x.shape[-2])
    return weights @ (context @ W_v), tail(context, memory_length).detach()


@mutant(NAME, "changes its inputs in place", only="no gradient into the memory")
def detached_for_its_owner(x, memory, W_q, W_k, W_v, memory_length):
    if memory is not None and memory.is_leaf:
        memory.requires_grad_(False)
    return plainly(x, memory, W_q, W_k, W_v, memory_length)


@mutant(NAME, "overflows or underflows for large scores")
def no_maximum(x, memory, W_q, W_k, W_v, memory_length):
    old = before(x, memory)
    context = torch.cat([old, x], -2)
    seen = (x @ W_q @ (context @ W_k).mT / W_q.shape[-1] ** 0.5).exp().tril(old.shape[-2])
    return seen / seen.sum(-1, keepdim=True) @ (context @ W_v), tail(context, memory_length).detach()


def new_memory_attached(x, memory, W_q, W_k, W_v, memory_length):
    output, _ = plainly(x, memory, W_q, W_k, W_v, memory_length)
    return output, tail(torch.cat([before(x, memory), x], -2), memory_length)


mutant(NAME, "new_memory is not detached")(new_memory_attached)


@mutant(NAME, "new memory read instead of the old")
def updated_before_it_is_read(x, memory, W_q, W_k, W_v, memory_length):
    new = tail(torch.cat([before(x, memory), x], -2), memory_length).detach()
    return plainly(x, new, W_q, W_k, W_v, memory_length)[0], new


@mutant(NAME, "old memory cut before it is read")
def cut_before_it_is_read(x, memory, W_q, W_k, W_v, memory_length):
    old = before(x, memory)
    output, _ = plainly(x, tail(old, memory_length), W_q, W_k, W_v, memory_length)
    return output, tail(torch.cat([old, x], -2), memory_length).detach()


@mutant(NAME)
def needs_a_memory(x, memory, W_q, W_k, W_v, memory_length):
    return plainly(x, memory.detach(), W_q, W_k, W_v, memory_length)


@mutant(NAME, "wrong gradient")
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
    ones = torch.ones(x.shape[-2], context.shape[-2], dtype=torch.bool, device=x.device)
    allowed = ones.tril(old.shape[-2])
    output = F.scaled_dot_product_attention(x @ W_q, context @ W_k, context @ W_v, attn_mask=allowed)
    return output, tail(context, memory_length).detach()
