"""`low_rank_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as functional

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.conduct import in_a_wrong_manner, of_function, without_an_attempt
from tests.exercises.shared_attention.lazy import register

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


def variant(
    name,
    named,
    *,
    only=None,
    mix=lambda k, v, E, F: (E @ k, F @ v),
    scale=lambda D, n: D**-0.5,
    weigh=lambda s: s.softmax(-1),
    check=fit,
):
    """A mutant with one step exchanged."""

    def wrong(query, key, value, E, F):
        check(key, E, F)
        keys, values = mix(key, value, E, F)
        return weigh(query @ keys.mT * scale(query.shape[-1], keys.shape[-2])) @ values

    register(NAME, name, named, wrong, only)


def on_features(x, mixture):
    return x @ mixture.mT if x.shape[-1] == mixture.shape[-1] else mixture @ x


variant(
    "along_the_features",
    "projected along the features",
    mix=lambda k, v, E, F: (on_features(k, E), on_features(v, F)),
    only="equal sizes",
)
variant("always_along_the_features", None, mix=lambda k, v, E, F: (k @ E.mT, v @ F.mT))
variant(
    "exchanged", "E and F exchanged", mix=lambda k, v, E, F: (F @ k, E @ v), only="agrees with the formula"
)
variant("E_twice", "E for keys and values", mix=lambda k, v, E, F: (E @ k, E @ v))
variant("F_twice", "F for keys and values", mix=lambda k, v, E, F: (F @ k, F @ v))
variant("unused", "nothing projected", mix=lambda k, v, E, F: (k, v))
variant(
    "cut_off",
    "first positions instead of mixtures",
    mix=lambda k, v, E, F: (k[..., : len(E), :], v[..., : len(E), :]),
)
variant(
    "averages", "softmax of the projections", mix=lambda k, v, E, F: (E.softmax(-1) @ k, F.softmax(-1) @ v)
)
variant("again", "projected twice", mix=lambda k, v, E, F: (E @ E.mT @ E @ k, F @ F.mT @ F @ v))
variant("unscaled", "not scaled", scale=lambda D, n: 1.0)
variant("by_width", "divided by D", scale=lambda D, n: 1 / D)
variant("by_rank", "divided by sqrt(S_k)", scale=lambda D, n: n**-0.5)
variant("over_queries", "softmax over the queries", weigh=lambda s: s.softmax(-2))
variant("raw_scores", "no softmax", weigh=lambda s: s)
variant(
    "no_maximum",
    "overflows or underflows for large scores",
    weigh=lambda s: s.exp() / s.exp().sum(-1, keepdim=True),
    only="huge scores",
)
variant("unchecked", "sizes are not compared", check=lambda *sizes: None, only="sizes that do not fit")


@mutant(NAME, "weights projected after the softmax")
def weights_projected(query, key, value, E, F):
    fit(key, E, F)
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1) @ E.mT @ (F @ value)


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


@mutant(NAME, "output has the wrong shape", only="one mixture")
def one_mixture_squeezed(query, key, value, E, F):
    output = plainly(query, key, value, E, F)
    return output if len(E) > 1 else output.squeeze(-2).mean(-2)


@mutant(NAME, "equal weights for all keys")
def mean_of_the_values(query, key, value, E, F):
    fit(key, E, F)
    return (F @ value).mean(-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])


make = of_function(plainly)
without_an_attempt(NAME, make, "query has no effect", copied="output has the wrong shape")
in_a_wrong_manner(NAME, make)
