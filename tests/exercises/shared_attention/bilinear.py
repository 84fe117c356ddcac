"""`shared_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import register

NAME = "shared_attention"


def fit(query, key, value, weight):
    if tuple(weight.shape) != (query.shape[-1], key.shape[-1]):
        raise ValueError("weight must be (D_q, D_k)")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError("key and value must be equally long")


@right(NAME)
def plainly(query, key, value, weight):
    fit(query, key, value, weight)
    weights = F.softmax(query @ weight @ key.mT, dim=-1)
    return weights @ value, weights


@right(NAME)
def by_einsum(query, key, value, weight):
    fit(query, key, value, weight)
    scores = torch.einsum("...qi,ij,...kj->...qk", query, weight, key)
    weights = scores.softmax(-1)
    return torch.einsum("...qk,...kv->...qv", weights, value), weights


@right(NAME)
def keys_first(query, key, value, weight):
    """The matrix meets the keys, and exp is written out."""
    fit(query, key, value, weight)
    scores = query @ (key @ weight.mT).mT
    weights = torch.exp(scores - scores.logsumexp(-1, keepdim=True))
    return weights @ value, weights


@right(NAME)
def through_a_linear_layer(query, key, value, weight):
    fit(query, key, value, weight)
    scores = torch.matmul(F.linear(query, weight.t()), key.transpose(-1, -2))
    shifted = (scores - scores.amax(-1, keepdim=True)).exp()
    weights = shifted / shifted.sum(-1, keepdim=True)
    return torch.matmul(weights, value), weights


@right(NAME)
def query_by_query(query, key, value, weight):
    fit(query, key, value, weight)
    rows = []
    for i in range(query.shape[-2]):
        projected = query[..., i, :] @ weight  # (..., D_k)
        rows.append(((projected.unsqueeze(-2) * key).sum(-1)).softmax(-1))
    weights = torch.stack(rows, -2)
    return (weights.unsqueeze(-1) * value.unsqueeze(-3)).sum(-2), weights


@right(NAME)
def float32_inside(query, key, value, weight):
    fit(query, key, value, weight)
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k, v, w = (t.to(wide) for t in (query, key, value, weight))
    weights = (q @ w @ k.mT).softmax(-1)
    return (weights @ v).to(query.dtype), weights.to(query.dtype)


def variant(
    name,
    named,
    *,
    only=None,
    score=lambda q, k, w: q @ w @ k.mT,
    weigh=lambda s: s.softmax(-1),
    finish=lambda w, v, s: (w @ v, w),
    check=fit,
):
    """A mutant with one step exchanged."""

    def wrong(query, key, value, weight):
        check(query, key, value, weight)
        scores = score(query, key, weight)
        return finish(weigh(scores), value, scores)

    register(NAME, name, named, wrong, only)


def unchecked(query, key, value, weight):
    pass


# What the formula is

variant("keys_not_used", "keys never used", score=lambda q, k, w: q @ w, check=unchecked)
variant("matrix_turned", "weight applied transposed", score=lambda q, k, w: q @ w.mT @ k.mT)
variant("scaled_by_d_k", "divided by sqrt(D_k)", score=lambda q, k, w: q @ w @ k.mT / k.shape[-1] ** 0.5)
variant("over_axis_1", "softmax over the second axis", weigh=lambda s: s.softmax(1))
variant("two_softmaxes", "softmax applied twice", weigh=lambda s: s.softmax(-1).softmax(-1))
variant("scores_handed_out", "scores returned as weights", finish=lambda w, v, s: (w @ v, s))
variant(
    "no_maximum",
    "overflows or underflows for large scores",
    weigh=lambda s: s.exp() / s.exp().sum(-1, keepdim=True),
)
variant("small_weights_dropped", None, finish=lambda w, v, s: (w @ v, w.masked_fill(w < 1e-6, 0.0)))
variant("clamped", None, finish=lambda w, v, s: ((w @ v).clamp(-50, 50), w))
variant("weights_detached", "gradient is cut off", finish=lambda w, v, s: (w @ v, w.detach()))
variant("values_shifted", "depends on the order of the keys", finish=lambda w, v, s: (w @ v.roll(1, -2), w))

# What is refused

variant("nothing_compared", "sizes are not compared", only="sizes that do not fit", check=unchecked)


@mutant(NAME, "sizes are not compared", only="sizes that do not fit")
def a_matrix_for_each_batch_element(query, key, value, weight):
    if weight.shape[-2:] != (query.shape[-1], key.shape[-1]) or key.shape[-2] != value.shape[-2]:
        raise ValueError("sizes do not fit")
    weights = (query @ weight @ key.mT).softmax(-1)
    return weights @ value, weights


@mutant(NAME, "sizes are not compared", only="sizes that do not fit")
def one_value_for_all_keys(query, key, value, weight):
    return plainly(query, key, value.expand(*value.shape[:-2], key.shape[-2], -1), weight)


@mutant(NAME, "raises another exception than ValueError", only="sizes that do not fit")
def asserted(query, key, value, weight):
    assert weight.shape == (query.shape[-1], key.shape[-1])
    assert key.shape[-2] == value.shape[-2]
    return plainly(query, key, value, weight)


@mutant(NAME, "sizes are not compared", only="sizes that do not fit")
def matrix_turned_to_fit(query, key, value, weight):
    if weight.shape == (key.shape[-1], query.shape[-1]) != (query.shape[-1], key.shape[-1]):
        weight = weight.mT
    return plainly(query, key, value, weight)


@mutant(NAME)
def asymmetric_example_mirrored(query, key, value, weight):
    """Guesses the layout where one column would fit both ways."""
    if weight.shape[-1] == 1 and query.dim() == 2:
        query = query.flip(-1)
    return plainly(query, key, value, weight)


@mutant(NAME, "fixed number of leading axes")
def at_most_one_leading_axis(query, key, value, weight):
    fit(query, key, value, weight)
    letters = {2: "qi,ij,kj->qk", 3: "bqi,ij,bkj->bqk"}[query.dim()]
    weights = torch.einsum(letters, query, weight, key).softmax(-1)
    return weights @ value, weights


@mutant(NAME, "depends on the order of the keys")
def last_block_of_keys_lost(query, key, value, weight):
    _, weights = plainly(query, key, value, weight)
    whole = max(key.shape[-2], 32) // 32 * 32
    return weights[..., :whole] @ value[..., :whole, :], weights


@mutant(NAME, "depends on the order of the queries")
def last_block_of_queries_lost(query, key, value, weight):
    output, weights = plainly(query, key, value, weight)
    whole = max(query.shape[-2], 32) // 32 * 32
    return F.pad(output[..., :whole, :], (0, 0, 0, max(query.shape[-2] - whole, 0))), weights


@mutant(NAME)
def equal_keys_counted_once(query, key, value, weight):
    fit(query, key, value, weight)
    scores = query @ weight @ key.mT
    twin = torch.zeros(key.shape[:-1], dtype=torch.bool, device=key.device)  # (..., S_k)
    twin[..., 1:] = (key[..., 1:, :] == key[..., :-1, :]).all(-1)
    weights = scores.masked_fill(twin.unsqueeze(-2), -torch.inf).softmax(-1)
    return weights @ value, weights


@mutant(NAME, "output has the wrong shape")
def squeezed(query, key, value, weight):
    output, weights = plainly(query, key, value, weight)
    return (output.squeeze(-2), weights) if query.dim() == 3 else (output, weights)


@mutant(NAME, "depends on the memory layout of its inputs")
def viewed(query, key, value, weight):
    fit(query, key, value, weight)
    projected = (query.view(-1, query.shape[-1]) @ weight).view(*query.shape[:-1], key.shape[-1])
    weights = (projected @ key.mT).softmax(-1)
    return weights @ value, weights


@mutant(NAME, None)
def matrix_of_the_first_call(query, key, value, weight, kept={}):  # noqa: B006
    first = kept.setdefault((weight.shape, weight.dtype), weight.detach().clone())
    return plainly(query, key, value, first)


@mutant(NAME, "uses a forbidden function", only="own work")
def fused(query, key, value, weight):
    _, weights = plainly(query, key, value, weight)
    return F.scaled_dot_product_attention(query @ weight, key, value, scale=1.0), weights


@mutant(NAME, "does too much work", only="cost")
def every_element_with_every_other(query, key, value, weight):
    if query.dim() != 3:
        return plainly(query, key, value, weight)
    fit(query, key, value, weight)
    pairs = torch.einsum("nqd,mkd->nmqk", query @ weight, key)
    weights = pairs.diagonal(dim1=0, dim2=1).movedim(-1, 0).softmax(-1)
    return weights @ value, weights


@mutant(NAME)
class AClass:
    def __init__(self, query, key, value, weight):
        self.weight = weight
