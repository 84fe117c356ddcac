"""`low_rank_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as functional

from tests.exercises.catalogue import mutant, right

NAME = "low_rank_attention"


def fit(key, E, F):
    if E.shape != F.shape:
        raise ValueError(f"E {tuple(E.shape)} and F {tuple(F.shape)} differ")
    if E.shape[1] != key.shape[-2]:
        raise ValueError(f"E is for {E.shape[1]} keys; there are {key.shape[-2]}")


@right(NAME)
def plainly(query, key, value, E, F):
    fit(key, E, F)
    weights = (query @ (E @ key).mT / query.shape[-1] ** 0.5).softmax(-1)
    return weights @ (F @ value)


@right(NAME)
def by_einsum(query, key, value, E, F):
    fit(key, E, F)
    keys = torch.einsum("ks,...sd->...kd", E, key)
    values = torch.einsum("ks,...sv->...kv", F, value)
    scores = torch.einsum("...qd,...kd->...qk", query * query.shape[-1] ** -0.5, keys)
    weights = torch.exp(scores - scores.logsumexp(-1, keepdim=True))
    return torch.einsum("...qk,...kv->...qv", weights, values)


@right(NAME)
def through_linear_layers(query, key, value, E, F):
    fit(key, E, F)
    keys = functional.linear(key.transpose(-2, -1), E)  # (..., D, k)
    values = functional.linear(value.transpose(-2, -1), F)  # (..., D_v, k)
    scores = torch.matmul(query, keys) / query.size(-1) ** 0.5
    growing = (scores - scores.amax(-1, keepdim=True)).exp()
    return torch.matmul(growing / growing.sum(-1, keepdim=True), values.transpose(-2, -1))


@right(NAME)
def mixture_by_mixture(query, key, value, E, F):
    fit(key, E, F)
    keys = torch.stack([(row.unsqueeze(-1) * key).sum(-2) for row in E], -2)
    values = torch.stack([(row.unsqueeze(-1) * value).sum(-2) for row in F], -2)
    return functional.softmax(query @ keys.mT / query.shape[-1] ** 0.5, dim=-1) @ values


@right(NAME)
def float32_inside(query, key, value, E, F):
    wide = torch.promote_types(query.dtype, torch.float32)
    return plainly(*(t.to(wide) for t in (query, key, value, E, F))).to(query.dtype)


@mutant(NAME, "E and F exchanged")
def exchanged(query, key, value, E, F):
    fit(key, E, F)
    scores = torch.einsum("...qd,ks,...sd->...qk", query, F, key) / query.shape[-1] ** 0.5
    return torch.einsum("...qk,ks,...sv->...qv", scores.softmax(-1), E, value)


@mutant(NAME, "overflows or underflows for large scores")
def no_maximum(query, key, value, E, F):
    fit(key, E, F)
    seen = (query @ (E @ key).mT / query.shape[-1] ** 0.5).exp()
    return seen / seen.sum(-1, keepdim=True) @ (F @ value)


@mutant(NAME, "sizes are not compared", only="sizes that do not fit")
def unchecked(query, key, value, E, F):
    return (query @ (E @ key).mT / query.shape[-1] ** 0.5).softmax(-1) @ (F @ value)


@mutant(NAME, "does too much work", only="linear cost")
def scores_of_all_keys_first(query, key, value, E, F):
    fit(key, E, F)
    return (query @ key.mT @ E.mT / query.shape[-1] ** 0.5).softmax(-1) @ (F @ value)


@mutant(NAME, "raises another exception than ValueError", only="sizes that do not fit")
def asserted(query, key, value, E, F):
    assert E.shape == F.shape
    assert E.shape[-1] == key.shape[-2]
    return plainly(query, key, value, E, F)


@mutant(NAME, "sizes are not compared", only="sizes that do not fit")
def cut_to_fit(query, key, value, E, F):
    k, S = min(len(E), len(F)), key.shape[-2]
    return plainly(query, key, value, E[:k, :S], F[:k, :S])


@mutant(NAME, "uses a forbidden function", only="own work")
def fused(query, key, value, E, F):
    fit(key, E, F)
    return functional.scaled_dot_product_attention(query, E @ key, F @ value)


@mutant(NAME, "output has the wrong shape")
def one_mixture_squeezed(query, key, value, E, F):
    output = plainly(query, key, value, E, F)
    return output if len(E) > 1 else output.squeeze(-2).mean(-2)
