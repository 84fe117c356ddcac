"""`linear_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right

NAME = "linear_attention"


def phi(x):
    return F.elu(x) + 1


@right(NAME)
def plainly(query, key, value):
    q, k = phi(query), phi(key)
    return q @ (k.mT @ value) / (q @ k.sum(-2).unsqueeze(-1))


@right(NAME)
def by_einsum(query, key, value):
    q, k = phi(query), phi(key)
    kv = torch.einsum("...kd,...kv->...dv", k, value)
    normaliser = 1 / torch.einsum("...qd,...d->...q", q, k.sum(-2))
    return torch.einsum("...qd,...dv,...q->...qv", q, kv, normaliser)


@right(NAME)
def features_by_cases(query, key, value):
    q, k = (torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0))) for x in (query, key))
    return torch.matmul(q, torch.matmul(k.transpose(-1, -2), value)) / (q * k.sum(-2, keepdim=True)).sum(
        -1, keepdim=True
    )


@right(NAME)
def a_column_of_ones(query, key, value):
    """The normaliser is what the values 1 average to."""
    both = torch.cat([value, torch.ones_like(value[..., :1])], -1)
    result = phi(query) @ (phi(key).mT @ both)
    return result[..., :-1] / result[..., -1:]


@right(NAME)
def multiplied_and_summed(query, key, value):
    k = phi(key)
    kv = (k.unsqueeze(-1) * value.unsqueeze(-2)).sum(-3)
    q = phi(query)
    return (q.unsqueeze(-1) * kv.unsqueeze(-3)).sum(-2) / (q * k.sum(-2).unsqueeze(-2)).sum(-1, keepdim=True)


@right(NAME)
def float32_inside(query, key, value):
    wide = torch.promote_types(query.dtype, torch.float32)
    return plainly(query.to(wide), key.to(wide), value.to(wide)).to(query.dtype)


@mutant(NAME, "does too much work", only="linear cost")
def quadratic(query, key, value):
    weights = phi(query) @ phi(key).mT
    return weights @ value / weights.sum(-1, keepdim=True)


@mutant(NAME, "softmax attention")
def softmax_attention(query, key, value):
    return F.scaled_dot_product_attention(query, key, value)


@mutant(NAME, "always causal")
def causal(query, key, value):
    w = (phi(query) @ phi(key).mT).tril()
    return w @ value / w.sum(-1, keepdim=True)


@mutant(NAME, "not normalised")
def forgotten_normaliser(query, key, value):
    return phi(query) @ (phi(key).mT @ value)


@mutant(NAME, "uses too much memory", only="linear cost")
def table_by_broadcasting(query, key, value):
    w = (phi(query).unsqueeze(-2) * phi(key).unsqueeze(-3)).sum(-1)
    return (w.unsqueeze(-1) * value.unsqueeze(-3)).sum(-2) / w.sum(-1, keepdim=True)


@mutant(NAME, "output has the wrong shape")
def squeezed(query, key, value):
    output = plainly(query, key, value)
    return output.squeeze(-2) if query.dim() == 3 else output


@mutant(NAME, "fixed number of leading axes")
def summed_over_the_batch(query, key, value):
    output = plainly(query, key, value)
    if query.dim() < 4:
        return output
    k = phi(key).sum(0, keepdim=True)
    return output * 0 + phi(query) @ (k.mT @ value) / (phi(query) @ k.sum(-2).unsqueeze(-1))


@mutant(NAME)
def roles_guessed_by_the_lengths(query, key, value):
    return plainly(key, query, value) if query.shape == key.shape else plainly(query, key, value)


@mutant(NAME)
def a_small_number_added(query, key, value):
    q, k = phi(query), phi(key)
    return q @ (k.mT @ value) / (q @ k.sum(-2).unsqueeze(-1) + 1e-11)


@mutant(NAME, "does too much work", only="linear cost")
def row_by_row(query, key, value):
    """Every pair, but never as a table, and without a matrix product."""
    q, k = phi(query), phi(key)
    rows = [(row.unsqueeze(-2) * k).sum(-1, keepdim=True) for row in q.unbind(-2)]
    return torch.stack([(row * value).sum(-2) / row.sum(-2) for row in rows], -2)
