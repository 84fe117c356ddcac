"""`linear_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.conduct import in_a_wrong_manner, of_function, without_an_attempt
from tests.exercises.shared_attention.lazy import register

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


def table(name, named, *, of_query=phi, of_key=phi, average=None, only=None):
    """A mutant by the whole table of weights."""
    finish = average or (lambda w, v: w @ v / w.sum(-1, keepdim=True))

    def wrong(query, key, value):
        return finish(of_query(query) @ of_key(key).mT, value)

    register(NAME, name, named, wrong, only)


def both(feature):
    return {"of_query": feature, "of_key": feature}


table("elu_alone", "elu without the 1", **both(F.elu))
table("relu", "relu as the feature map", **both(F.relu))
table("exp", "exp as the feature map", **both(torch.exp))
table("softmax_features", "softmax as the feature map", **both(lambda x: x.softmax(-1)))
table("raw_queries", "queries without the feature map", of_query=lambda x: x)
table("raw_keys", "keys without the feature map", of_key=lambda x: x)
table("raw", "no feature map", **both(lambda x: x))
table("no_normaliser", "not normalised", average=lambda w, v: w @ v)
table("mean", "divided by the number of keys", average=lambda w, v: w @ v / v.shape[-2])
table("over_queries", "normalised over the queries", average=lambda w, v: (w / w.sum(-2, keepdim=True)) @ v)
table(
    "over_everything",
    "normalised by the sum over everything",
    average=lambda w, v: w @ v / w.sum((-2, -1), keepdim=True),
)
table("quadratic", "does too much work", only="linear cost")


@mutant(NAME, "softmax attention")
def softmax_attention(query, key, value):
    return F.scaled_dot_product_attention(query, key, value)


@mutant(NAME, "always causal")
def causal(query, key, value):
    w = (phi(query) @ phi(key).mT).tril()
    return w @ value / w.sum(-1, keepdim=True)


@mutant(NAME, "not normalised", only="agrees with the formula")
def forgotten_normaliser(query, key, value):
    return phi(query) @ (phi(key).mT @ value)


@mutant(NAME, "uses too much memory", only="linear cost")
def table_by_broadcasting(query, key, value):
    w = (phi(query).unsqueeze(-2) * phi(key).unsqueeze(-3)).sum(-1)
    return (w.unsqueeze(-1) * value.unsqueeze(-3)).sum(-2) / w.sum(-1, keepdim=True)


@mutant(NAME, "output has the wrong shape", only="one of a kind")
def squeezed(query, key, value):
    output = plainly(query, key, value)
    return output.squeeze(-2) if query.dim() == 3 else output


@mutant(NAME, "batch elements influence each other", only="leading axes")
def summed_over_the_batch(query, key, value):
    output = plainly(query, key, value)
    if query.dim() < 4:
        return output
    k = phi(key).sum(0, keepdim=True)
    return output * 0 + phi(query) @ (k.mT @ value) / (phi(query) @ k.sum(-2).unsqueeze(-1))


@mutant(NAME, "mean of the values")
def mean_of_the_values(query, key, value):
    return value.mean(-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])


@mutant(NAME, only="agrees with the formula")
def roles_guessed_by_the_lengths(query, key, value):
    return plainly(key, query, value) if query.shape == key.shape else plainly(query, key, value)


@mutant(NAME, "less precise than its dtype", only="dtype")
def a_small_number_added(query, key, value):
    q, k = phi(query), phi(key)
    return q @ (k.mT @ value) / (q @ k.sum(-2).unsqueeze(-1) + 1e-11)


make = of_function(plainly)
without_an_attempt(NAME, make, "query has no effect", copied="output has the wrong shape")
in_a_wrong_manner(NAME, make)


@mutant(NAME, "does too much work", only="linear cost")
def row_by_row(query, key, value):
    """Every pair, but never as a table, and without a matrix product."""
    q, k = phi(query), phi(key)
    rows = [(row.unsqueeze(-2) * k).sum(-1, keepdim=True) for row in q.unbind(-2)]
    return torch.stack([(row * value).sum(-2) / row.sum(-2) for row in rows], -2)
