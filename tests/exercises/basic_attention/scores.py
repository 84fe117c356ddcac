"""`dot_scores` and `scaled_dot_scores`: right writings and mutants; lazy answers to all products."""

from __future__ import annotations

import math
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.exercises.catalogue import mutant, right

HALF = (torch.float16, torch.bfloat16)
DOTS = ("dot_scores", "scaled_dot_scores")
PRODUCTS = (*DOTS, "cosine_scores")


def every(exercises, *args, **options):
    """`mutant` for several exercises at once."""

    def register(obj):
        for exercise in exercises:
            mutant(exercise, *args, **options)(obj)
        return obj

    return register


# dot_scores and scaled_dot_scores: right writings


@right("dot_scores")
def by_einsum(query, key):
    return torch.einsum("...qd,...kd->...qk", query, key)


@right("dot_scores")
def keys_first_then_turned(query, key):
    return torch.matmul(key, query.mT).mT


@right("dot_scores")
def multiply_and_sum(query, key):
    return (query.unsqueeze(-2) * key.unsqueeze(-3)).sum(dim=-1)


@right("dot_scores")
def bmm_with_reshapes(query, key):
    *lead, S_q, D = query.shape
    scores = torch.bmm(query.reshape(-1, S_q, D), key.reshape(-1, key.shape[-2], D).transpose(1, 2))
    return scores.reshape(*lead, S_q, key.shape[-2])


@right("dot_scores")
def loop_over_pairs(query, key):
    rows = [
        torch.stack([(query[..., i, :] * key[..., j, :]).sum(-1) for j in range(key.shape[-2])], -1)
        for i in range(query.shape[-2])
    ]
    return torch.stack(rows, -2)


@right("dot_scores")
def loop_over_the_width(query, key):
    total = query.new_zeros(*query.shape[:-1], key.shape[-2])
    for d in range(query.shape[-1]):
        total = total + query[..., d].unsqueeze(-1) * key[..., d].unsqueeze(-2)
    return total


@right("dot_scores")
def linear_without_bias(query, key):
    if query.dim() == 2:
        return F.linear(query, key)
    return torch.stack([linear_without_bias(q, k) for q, k in zip(query, key, strict=True)])


@right("dot_scores")
def tensordot_and_diagonal(query, key):
    if query.dim() == 2:
        return torch.tensordot(query, key, dims=([1], [1]))
    return torch.stack(
        [tensordot_and_diagonal(q, k) for q, k in zip(query.unbind(0), key.unbind(0), strict=True)]
    )


@right("scaled_dot_scores")
def scores_scaled(query, key):
    return torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(key.size(-1))


@right("scaled_dot_scores")
def query_scaled(query, key):
    return (query * query.shape[-1] ** -0.5) @ key.mT


@right("scaled_dot_scores")
def key_scaled(query, key):
    return query @ (key / math.sqrt(key.shape[-1])).mT


@right("scaled_dot_scores")
def both_scaled_by_the_fourth_root(query, key):
    root = query.shape[-1] ** 0.25
    return torch.einsum("...qd,...kd->...qk", query / root, key / root)


@right("scaled_dot_scores")
def divided_by_a_tensor(query, key):
    D = torch.tensor(query.shape[-1], dtype=query.dtype)
    return query @ key.mT / torch.sqrt(D)


@right("scaled_dot_scores")
def broadcast_and_scaled(query, key):
    return (query[..., :, None, :] * key[..., None, :, :]).sum(-1).div(query.shape[-1] ** 0.5)


@right("scaled_dot_scores")
def baddbmm_with_alpha(query, key):
    *lead, S_q, D = query.shape
    S_k = key.shape[-2]
    flat_query, flat_key = query.reshape(-1, S_q, D), key.reshape(-1, S_k, D)
    start = query.new_zeros(flat_query.shape[0], S_q, S_k)
    return torch.baddbmm(start, flat_query, flat_key.mT, beta=0, alpha=1 / math.sqrt(D)).view(*lead, S_q, S_k)


@right("scaled_dot_scores")
def float32_inside(query, key):
    dtype = query.dtype
    if dtype in HALF:
        query, key = query.float(), key.float()
    return (query @ key.mT / math.sqrt(query.shape[-1])).to(dtype)


@right("scaled_dot_scores")
def loop_over_queries(query, key):
    rows = [(key @ query[..., i, :].unsqueeze(-1)).squeeze(-1) for i in range(query.shape[-2])]
    return torch.stack(rows, dim=-2) / math.sqrt(query.shape[-1])


# Mistakes of products


@mutant("dot_scores", "divided by D")
@mutant("scaled_dot_scores", "divided by D")
def mean_of_products(query, key):
    return (query.unsqueeze(-2) * key.unsqueeze(-3)).mean(-1)


@mutant("dot_scores", "cosine where the dot product is meant")
@mutant("scaled_dot_scores", "cosine where the scaled dot product is meant")
def cosines(query, key):
    return F.cosine_similarity(query.unsqueeze(-2), key.unsqueeze(-3), dim=-1)


@mutant("scaled_dot_scores", "divided by the standard deviation")
def empirical(query, key):
    scores = query @ key.mT
    return scores / scores.std()


@mutant("dot_scores")
def the_first_64_keys(query, key):
    scores = query @ key[..., :64, :].mT
    return F.pad(scores, (0, key.shape[-2] - scores.shape[-1]))


@mutant("scaled_dot_scores")
def the_first_64_features(query, key):
    return query[..., :64] @ key[..., :64].mT / math.sqrt(query.shape[-1])


# Mistakes that one check finds


@mutant("dot_scores", "fixed number of leading axes")
def letters_for_four_axes(query, key):
    return torch.einsum("bhqd,bhkd->bhqk", query, key)


@mutant("dot_scores", "fixed number of leading axes")
def axes_two_and_three(query, key):
    return query @ key.transpose(2, 3)


@mutant("dot_scores", "scores has the wrong shape")
def squeezed(query, key):
    return (query @ key.mT).squeeze()


@mutant("dot_scores", "wrong gradient")
def half_detached(query, key):
    scores = query @ key.mT
    return scores / 2 + (scores / 2).detach()


@mutant("scaled_dot_scores", "gradient is cut off")
@torch.no_grad()
def never_learns(query, key):
    return query @ key.mT / math.sqrt(query.shape[-1])


@mutant("scaled_dot_scores", "does not keep the dtype")
def scaled_by_a_float64_tensor(query, key):
    scale = torch.rsqrt(torch.full((1,), query.shape[-1], dtype=torch.float64))
    return query @ key.mT * scale


@mutant("dot_scores", "changes its inputs in place")
def key_cleared_afterwards(query, key):
    scores = query @ key.mT
    if not key.requires_grad:
        key.zero_()
    return scores


@mutant("scaled_dot_scores", "depends on the memory layout of its inputs")
def strides_taken_for_granted(query, key):
    flat = query.view(-1, query.shape[-1])
    return flat.view(query.shape) @ key.mT / math.sqrt(query.shape[-1])


TRANSPOSED: dict[tuple[int, ...], Tensor] = {}


@mutant("scaled_dot_scores")
def transposed_keys_remembered_by_shape(query, key):
    return (
        query @ TRANSPOSED.setdefault(tuple(key.shape), key.detach().clone()).mT / math.sqrt(query.shape[-1])
    )


# Lazy answers


@every(PRODUCTS, "another result at every call")
def random_numbers(query, key, **options):
    return torch.randn(*query.shape[:-1], key.shape[-2], dtype=query.dtype)


@every(PRODUCTS, "does not return what is asked for")
def scores_and_more(query, key, **options):
    return query @ key.mT, query


@every(PRODUCTS)
def leaves_the_program(query, key, **options):
    sys.exit(0)
