"""Five kinds of scores: right writings and mutants."""

from __future__ import annotations

import math
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    total = torch.zeros(*query.shape[:-1], key.shape[-2], dtype=query.dtype)
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
    return torch.stack([tensordot_and_diagonal(q, k) for q, k in zip(query.unbind(0), key.unbind(0), strict=True)])


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
    start = torch.zeros(flat_query.shape[0], S_q, S_k, dtype=query.dtype)
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


@every(PRODUCTS, "keys not transposed")
def not_transposed(query, key, **options):
    return query @ key


@every(PRODUCTS, "all axes of the keys reversed")
def dot_T(query, key, **options):
    return torch.matmul(query, key.permute(*torch.arange(key.ndim - 1, -1, -1)))


@every(PRODUCTS, "elementwise product where a matrix product is meant")
def star(query, key, **options):
    return query * key


@every(PRODUCTS, "elementwise product where a matrix product is meant")
def star_with_the_transposed(query, key, **options):
    return query * key.transpose(-2, -1)


@every(PRODUCTS, "query and key exchanged")
def exchanged(query, key, **options):
    return key @ query.transpose(-2, -1)


@every(DOTS, "softmax applied to the scores")
def already_weights(query, key):
    return torch.softmax(query @ key.mT, -1)


@mutant("scaled_dot_scores", "softmax applied to the scores")
def scaled_and_already_weights(query, key):
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1)


@mutant("cosine_scores", "softmax applied to the scores")
def cosines_already_weights(query, key, eps=1e-8):
    return torch.softmax(F.normalize(query, dim=-1, eps=eps) @ F.normalize(key, dim=-1, eps=eps).mT, -1)


@every(PRODUCTS, "negative distance")
def distances(query, key, **options):
    return -torch.cdist(query, key)


@every(PRODUCTS, "negative distance")
def squared_distances(query, key, **options):
    return -(query.unsqueeze(-2) - key.unsqueeze(-3)).square().sum(-1)


@mutant("dot_scores", "absolute values")
def absolute_dots(query, key):
    return (query @ key.mT).abs()


@mutant("scaled_dot_scores", "absolute values")
def absolute_scaled_dots(query, key):
    return (query @ key.mT / math.sqrt(query.shape[-1])).abs()


@mutant("dot_scores", "divided by sqrt(D)")
def scaled_too_early(query, key):
    return query @ key.mT / math.sqrt(query.shape[-1])


@mutant("dot_scores", "divided by D")
@mutant("scaled_dot_scores", "divided by D")
def mean_of_products(query, key):
    return (query.unsqueeze(-2) * key.unsqueeze(-3)).mean(-1)


@mutant("dot_scores", "cosine where the dot product is meant")
@mutant("scaled_dot_scores", "cosine where the scaled dot product is meant")
def cosines(query, key):
    return F.cosine_similarity(query.unsqueeze(-2), key.unsqueeze(-3), dim=-1)


@every(PRODUCTS, "queries scored against queries")
def key_never_used(query, key, **options):
    return query @ query.transpose(-2, -1)


@every(DOTS, "sum of both in place of their product")
def sums(query, key):
    return (query.unsqueeze(-2) + key.unsqueeze(-3)).sum(-1)


@mutant("dot_scores", "sign turned round", only="agrees with the formula")
def negative(query, key):
    return -(query @ key.mT)


@mutant("scaled_dot_scores", "sign turned round")
def negative_and_scaled(query, key):
    return -(query @ key.mT) / math.sqrt(query.shape[-1])


@mutant("cosine_scores", "sign turned round")
def negative_cosines(query, key, eps=1e-8):
    return -F.cosine_similarity(query.unsqueeze(-2), key.unsqueeze(-3), dim=-1, eps=eps)


@every(PRODUCTS, "position i paired with position i")
def pairs_of_the_same_position(query, key, **options):
    return (query * key).sum(-1)


@every(PRODUCTS, "query returned unchanged")
def the_query(query, key, **options):
    return query


@mutant("scaled_dot_scores", "not scaled")
def unscaled(query, key):
    return query @ key.transpose(-2, -1)


@mutant("scaled_dot_scores", "multiplied by sqrt(D)")
def scaled_up(query, key):
    return query @ key.mT * math.sqrt(query.shape[-1])


@mutant("scaled_dot_scores", "divided by sqrt(S_k)")
def root_of_the_number_of_keys(query, key):
    return query @ key.mT / math.sqrt(key.shape[-2])


@mutant("scaled_dot_scores", "divided by sqrt(S_q)")
def root_of_the_number_of_queries(query, key):
    return query @ key.mT / query.shape[-2] ** 0.5


@mutant("scaled_dot_scores", "divided by the fourth root of D")
def only_the_query_by_the_fourth_root(query, key):
    return (query / query.shape[-1] ** 0.25) @ key.mT


@mutant("scaled_dot_scores", "divided by D")
def both_scaled_by_the_root(query, key):
    root = math.sqrt(query.shape[-1])
    return (query / root) @ (key / root).mT


@mutant("scaled_dot_scores", "divided by the size of another axis")
def root_of_axis_one(query, key):
    return query @ key.mT / math.sqrt(query.shape[1])


@mutant("scaled_dot_scores", "divided by sqrt(64)", only="agrees with the formula")
def root_of_64(query, key):
    return query @ key.mT / 8


@mutant("scaled_dot_scores", "divided by the standard deviation")
def empirical(query, key):
    scores = query @ key.mT
    return scores / scores.std()


@mutant("scaled_dot_scores", "root of the scores")
def root_of_everything(query, key):
    return torch.sqrt((query @ key.mT / query.shape[-1]).clamp_min(0.0))


@mutant("dot_scores")
def the_first_64_keys(query, key):
    scores = query @ key[..., :64, :].mT
    return F.pad(scores, (0, key.shape[-2] - scores.shape[-1]))


@mutant("scaled_dot_scores")
def the_first_64_features(query, key):
    return query[..., :64] @ key[..., :64].mT / math.sqrt(query.shape[-1])


# Mistakes that one check finds


@mutant("dot_scores", "fixed number of leading axes", only="leading axes")
def letters_for_four_axes(query, key):
    return torch.einsum("bhqd,bhkd->bhqk", query, key)


@mutant("dot_scores", "fixed number of leading axes", only="leading axes")
def axes_two_and_three(query, key):
    return query @ key.transpose(2, 3)


@mutant("scaled_dot_scores", "fixed number of leading axes", only="leading axes")
def scaled_axes_two_and_three(query, key):
    return query @ key.permute(0, 1, 3, 2) / math.sqrt(query.shape[-1])


@mutant("dot_scores", "scores has the wrong shape", only="leading axes")
def squeezed(query, key):
    return (query @ key.mT).squeeze()


@mutant("scaled_dot_scores", "scores has the wrong shape", only="leading axes")
def squeezed_queries(query, key):
    return (query @ key.mT).squeeze(-2) / math.sqrt(query.shape[-1])


@mutant("dot_scores", "wrong gradient", only="gradient")
def half_detached(query, key):
    scores = query @ key.mT
    return scores / 2 + (scores / 2).detach()


@mutant("dot_scores", "gradient is cut off", only="gradient")
def keys_detached(query, key):
    return query @ key.detach().mT


@mutant("scaled_dot_scores", "gradient is cut off", only="gradient")
@torch.no_grad()
def never_learns(query, key):
    return query @ key.mT / math.sqrt(query.shape[-1])


@mutant("dot_scores", "does not keep the dtype", only="dtype")
def stays_in_float32(query, key):
    if query.dtype in HALF:
        query, key = query.float(), key.float()
    return query @ key.mT


@mutant("scaled_dot_scores", "does not keep the dtype", only="dtype")
def scaled_by_a_float64_tensor(query, key):
    scale = torch.rsqrt(torch.full((1,), query.shape[-1], dtype=torch.float64))
    return query @ key.mT * scale


@mutant("dot_scores", "less precise than its dtype", only="dtype")
def through_float32(query, key):
    return (query.float() @ key.float().mT).to(query.dtype)


@mutant("dot_scores", "changes its inputs in place", only="inputs untouched")
def key_cleared_afterwards(query, key):
    scores = query @ key.mT
    if not key.requires_grad:
        key.zero_()
    return scores


@mutant("scaled_dot_scores", "changes its inputs in place", only="inputs untouched")
def query_scaled_in_place(query, key):
    query /= math.sqrt(query.shape[-1])
    return query @ key.transpose(-2, -1)


@mutant("dot_scores", "depends on the memory layout of its inputs", only="layout")
def views(query, key):
    *lead, S_q, D = query.shape
    return torch.bmm(query.view(-1, S_q, D), key.view(-1, key.shape[-2], D).mT).view(*lead, S_q, -1)


@mutant("scaled_dot_scores", "depends on the memory layout of its inputs", only="layout")
def strides_taken_for_granted(query, key):
    flat = query.view(-1, query.shape[-1])
    return flat.view(query.shape) @ key.mT / math.sqrt(query.shape[-1])


TRANSPOSED: dict[tuple[int, ...], Tensor] = {}


@mutant("scaled_dot_scores")
def transposed_keys_remembered_by_shape(query, key):
    return query @ TRANSPOSED.setdefault(tuple(key.shape), key.detach().clone()).mT / math.sqrt(query.shape[-1])


# Lazy answers


@every(PRODUCTS, "query has no effect")
def zeros(query, key, **options):
    return torch.zeros(*query.shape[:-1], key.shape[-2], dtype=query.dtype)


@every(PRODUCTS, "another result at every call")
def random_numbers(query, key, **options):
    return torch.randn(*query.shape[:-1], key.shape[-2], dtype=query.dtype)


@every(PRODUCTS, "nan or inf for ordinary inputs")
def not_a_number(query, key, **options):
    return torch.full((*query.shape[:-1], key.shape[-2]), math.nan, dtype=query.dtype)


@every(PRODUCTS, "does not return what is asked for")
def nothing(query, key, **options):
    """No return statement."""


@every(PRODUCTS, "does not return what is asked for")
def scores_and_more(query, key, **options):
    return query @ key.mT, query


@every(PRODUCTS, "does not return what is asked for")
def a_list(query, key, **options):
    return (query @ key.mT).tolist()


@every(PRODUCTS)
def leaves_the_program(query, key, **options):
    sys.exit(0)


# cosine_scores


@right("cosine_scores")
def by_normalize(query, key, eps=1e-8):
    return F.normalize(query, dim=-1, eps=eps) @ F.normalize(key, dim=-1, eps=eps).mT


@right("cosine_scores")
def by_cosine_similarity(query, key, eps=1e-8):
    return F.cosine_similarity(query.unsqueeze(-2), key.unsqueeze(-3), dim=-1, eps=eps)


@right("cosine_scores")
def dots_over_both_norms(query, key, eps=1e-8):
    q_norm = torch.linalg.norm(query, dim=-1, keepdim=True).clamp(min=eps)
    k_norm = torch.linalg.norm(key, dim=-1, keepdim=True).clamp(min=eps)
    return query @ key.mT / q_norm / k_norm.mT


@right("cosine_scores")
def dots_over_the_outer_product(query, key, eps=1e-8):
    q_norm, k_norm = (torch.linalg.vector_norm(x, dim=-1).clamp_min(eps) for x in (query, key))
    return torch.einsum("...qd,...kd->...qk", query, key) / (q_norm.unsqueeze(-1) * k_norm.unsqueeze(-2))


@right("cosine_scores")
def root_of_the_squares(query, key, eps=1e-8):
    def unit(x):
        return x / torch.sqrt((x * x).sum(-1, keepdim=True)).clamp_min(eps)

    return (unit(query).unsqueeze(-2) * unit(key).unsqueeze(-3)).sum(-1)


@right("cosine_scores")
def reciprocal_root(query, key, eps=1e-8):
    def scale(x):
        return torch.minimum(x.square().sum(-1, keepdim=True).rsqrt(), torch.tensor(1 / eps, dtype=x.dtype))

    return (query * scale(query)) @ (key * scale(key)).mT


@right("cosine_scores")
def row_by_row(query, key, eps=1e-8):
    rows = []
    for i in range(query.shape[-2]):
        q = query[..., i, :]
        q = q / torch.maximum(q.norm(dim=-1, keepdim=True), torch.tensor(eps, dtype=q.dtype))
        k = key / key.norm(dim=-1, keepdim=True).clamp_min(eps)
        rows.append((k @ q.unsqueeze(-1)).squeeze(-1))
    return torch.stack(rows, -2)


@right("cosine_scores")
def float32_inside_half(query, key, eps=1e-8):
    dtype = query.dtype
    if dtype in HALF:
        query, key = query.float(), key.float()
    return by_normalize(query, key, eps).to(dtype)


@mutant("cosine_scores", "not normalised")
def plain_dots(query, key, eps=1e-8):
    return query @ key.mT


@mutant("cosine_scores", "divided by sqrt(D)")
def scaled_dots(query, key, eps=1e-8):
    return query @ key.mT / math.sqrt(query.shape[-1])


@mutant("cosine_scores", "only the queries normalised")
def unit_queries(query, key, eps=1e-8):
    return F.normalize(query, dim=-1, eps=eps) @ key.mT


@mutant("cosine_scores", "only the keys normalised")
def unit_keys(query, key, eps=1e-8):
    return query @ F.normalize(key, dim=-1, eps=eps).mT


@mutant("cosine_scores", "squared norms")
def root_forgotten(query, key, eps=1e-8):
    q_norm, k_norm = query.square().sum(-1, keepdim=True), key.square().sum(-1, keepdim=True)
    return (query / q_norm.clamp_min(eps)) @ (key / k_norm.clamp_min(eps)).mT


@mutant("cosine_scores", "norm of the sum of absolute values")
def norm_of_order_one(query, key, eps=1e-8):
    return F.normalize(query, p=1, dim=-1, eps=eps) @ F.normalize(key, p=1, dim=-1, eps=eps).mT


@mutant("cosine_scores", "norm along the wrong axis")
def norm_of_the_columns(query, key, eps=1e-8):
    return F.normalize(query, dim=-2, eps=eps) @ F.normalize(key, dim=-2, eps=eps).mT


@mutant("cosine_scores", "norm along the second axis")
def normalize_with_its_default_axis(query, key, eps=1e-8):
    return F.normalize(query, eps=eps) @ F.normalize(key, eps=eps).mT


@mutant("cosine_scores", "one norm for the whole tensor")
def norm_without_axis(query, key, eps=1e-8):
    return query / query.norm().clamp_min(eps) @ (key / key.norm().clamp_min(eps)).mT


@mutant("cosine_scores", "nan for a zero vector", only="eps")
def eps_ignored(query, key, eps=1e-8):
    return query / query.norm(dim=-1, keepdim=True) @ (key / key.norm(dim=-1, keepdim=True)).mT


@mutant("cosine_scores", "eps fixed at 1e-8", only="eps")
def eps_written_down(query, key, eps=1e-8):
    return F.cosine_similarity(query.unsqueeze(-2), key.unsqueeze(-3), dim=-1, eps=1e-8)


@mutant("cosine_scores", "eps added, not a floor")
def eps_added(query, key, eps=1e-8):
    return query / (query.norm(dim=-1, keepdim=True) + eps) @ (key / (key.norm(dim=-1, keepdim=True) + eps)).mT


@mutant("cosine_scores", "eps under the product of the norms", only="eps")
def one_floor_for_both(query, key, eps=1e-8):
    norms = query.norm(dim=-1, keepdim=True) * key.norm(dim=-1, keepdim=True).mT
    return query @ key.mT / norms.clamp_min(eps)


@mutant("cosine_scores", "eps under the product of the norms")
def eps_added_to_the_product(query, key, eps=1e-8):
    norms = query.norm(dim=-1, keepdim=True) * key.norm(dim=-1, keepdim=True).mT
    return query @ key.mT / (norms + eps)


@mutant("cosine_scores", "eps under the root", only="eps")
def eps_under_the_root(query, key, eps=1e-8):
    def unit(x):
        return x / torch.sqrt(x.square().sum(-1, keepdim=True).clamp_min(eps))

    return unit(query) @ unit(key).mT


@mutant("cosine_scores")
def eps_added_under_the_root(query, key, eps=1e-8):
    def unit(x):
        return x / torch.sqrt(x.square().sum(-1, keepdim=True) + eps)

    return unit(query) @ unit(key).mT


@mutant("cosine_scores", "nan for a zero vector", only="eps")
def default_of_zero(query, key, eps=0.0):
    return by_normalize(query, key, eps)


@mutant("cosine_scores", "short vectors score zero", only="eps")
def short_vectors_dropped(query, key, eps=1e-8):
    scores = by_normalize(query, key)
    short = (query.norm(dim=-1) < eps).unsqueeze(-1) | (key.norm(dim=-1) < eps).unsqueeze(-2)
    return scores.masked_fill(short, 0.0)


@mutant("cosine_scores", only="eps")
def no_eps_in_the_signature(query, key):
    return by_normalize(query, key)


@mutant("cosine_scores", "cosine distance")
def one_minus_the_cosine(query, key, eps=1e-8):
    return 1 - by_normalize(query, key, eps)


@mutant("cosine_scores", "absolute values")
def absolute_cosines(query, key, eps=1e-8):
    return by_normalize(query, key, eps).abs()


@mutant("cosine_scores", "brought to [0, 1]", only="agrees with the formula")
def shifted_into_the_unit_interval(query, key, eps=1e-8):
    return (by_normalize(query, key, eps) + 1) / 2


@mutant("cosine_scores", "angle in place of its cosine")
def angles(query, key, eps=1e-8):
    return torch.acos(by_normalize(query, key, eps).clamp(-1, 1))


@mutant("cosine_scores", "centred first")
def pearson(query, key, eps=1e-8):
    query, key = query - query.mean(-1, keepdim=True), key - key.mean(-1, keepdim=True)
    return by_normalize(query, key, eps)


@mutant("cosine_scores", "fixed number of leading axes", only="leading axes")
def batch_axis_named(query, key, eps=1e-8):
    unit_query, unit_key = F.normalize(query, dim=3, eps=eps), F.normalize(key, dim=3, eps=eps)
    return unit_query @ unit_key.mT


@mutant("cosine_scores", "wrong gradient", only="gradient")
def norms_detached(query, key, eps=1e-8):
    q_norm, k_norm = query.detach().norm(dim=-1, keepdim=True), key.detach().norm(dim=-1, keepdim=True)
    return query / q_norm.clamp_min(eps) @ (key / k_norm.clamp_min(eps)).mT


@mutant("cosine_scores", "does not keep the dtype", only="dtype")
def float32_outside(query, key, eps=1e-8):
    if query.dtype in HALF:
        query, key = query.float(), key.float()
    return by_normalize(query, key, eps)


@mutant("cosine_scores", "changes its inputs in place", only="inputs untouched")
def normalised_in_place(query, key, eps=1e-8):
    scores = by_normalize(query.clone(), key, eps)
    query /= query.norm(dim=-1, keepdim=True).clamp_min(eps).detach()
    return scores


@mutant("cosine_scores", "depends on the memory layout of its inputs", only="layout")
def cosines_of_views(query, key, eps=1e-8):
    *lead, S_q, D = query.shape
    flat_query, flat_key = query.view(-1, S_q, D), key.view(-1, key.shape[-2], D)
    return by_normalize(flat_query, flat_key, eps).view(*lead, S_q, -1)


# AdditiveScores


class Additive(nn.Module):
    """Bahdanau's score, with the steps as methods, so that a right writing or a mutant changes one of them."""

    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.W_q = nn.Linear(d_query, d_hidden, bias=False)
        self.W_k = nn.Linear(d_key, d_hidden, bias=False)
        self.v = nn.Linear(d_hidden, 1, bias=False)

    def pair(self, query, key):
        return self.W_q(query).unsqueeze(-2) + self.W_k(key).unsqueeze(-3)

    def read(self, hidden):
        return self.v(hidden).squeeze(-1)

    def forward(self, query, key):
        return self.read(torch.tanh(self.pair(query, key)))


@right("AdditiveScores")
class AdditiveWithNone(Additive):
    def forward(self, query, key):
        hidden = torch.tanh(self.W_q(query)[..., :, None, :] + self.W_k(key)[..., None, :, :])
        return self.v(hidden)[..., 0]


@right("AdditiveScores")
class AdditiveLoop(Additive):
    def forward(self, query, key):
        keys = self.W_k(key)
        rows = [self.v(torch.tanh(self.W_q(query[..., i : i + 1, :]) + keys)) for i in range(query.shape[-2])]
        return torch.cat(rows, -1).mT


@right("AdditiveScores")
class AdditiveExpanded(Additive):
    def pair(self, query, key):
        S_q, S_k = query.shape[-2], key.shape[-2]
        queries = self.W_q(query).repeat_interleave(S_k, -2).unflatten(-2, (S_q, S_k))
        keys = self.W_k(key).unsqueeze(-3).expand(*query.shape[:-2], S_q, S_k, -1)
        return queries + keys


@right("AdditiveScores")
class AdditiveOfConcatenation(Additive):
    """tanh([W_q W_k] [q; k]), which is how the formula is often printed."""

    def pair(self, query, key):
        S_q, S_k = query.shape[-2], key.shape[-2]
        queries = query.unsqueeze(-2).expand(*query.shape[:-1], S_k, query.shape[-1])
        keys = key.unsqueeze(-3).expand(*key.shape[:-2], S_q, *key.shape[-2:])
        return F.linear(torch.cat([queries, keys], -1), torch.cat([self.W_q.weight, self.W_k.weight], -1))


@right("AdditiveScores")
class AdditiveEinsum(Additive):
    def forward(self, query, key):
        queries = torch.einsum("...qi,hi->...qh", query, self.W_q.weight)
        keys = torch.einsum("...ki,hi->...kh", key, self.W_k.weight)
        hidden = torch.tanh(queries.unsqueeze(-2) + keys.unsqueeze(-3))
        return torch.einsum("...qkh,h->...qk", hidden, self.v.weight.squeeze(0))


@right("AdditiveScores")
class AdditiveParameters(nn.Module):
    """Bare parameters, written for row vectors: x @ W."""

    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.W_q = nn.Parameter(torch.randn(d_query, d_hidden) / math.sqrt(d_query))
        self.W_k = nn.Parameter(torch.randn(d_key, d_hidden) / math.sqrt(d_key))
        self.v = nn.Parameter(torch.randn(d_hidden))

    def forward(self, query, key):
        return torch.tanh((query @ self.W_q).unsqueeze(-2) + (key @ self.W_k).unsqueeze(-3)) @ self.v


@right("AdditiveScores")
class AdditiveFloat32(Additive):
    def forward(self, query, key):
        hidden = self.pair(query, key)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        scores = (torch.tanh(hidden.to(wide)) * self.v.weight[0].to(wide)).sum(-1)
        return scores.to(query.dtype)


@right("AdditiveScores")
class AdditiveBySigmoid(Additive):
    def forward(self, query, key):
        return self.read(2 * torch.sigmoid(2 * self.pair(query, key)) - 1)


@mutant("AdditiveScores", "no tanh")
class AdditiveLinear(Additive):
    def forward(self, query, key):
        return self.read(self.pair(query, key))


@mutant("AdditiveScores", "tanh of the score")
class AdditiveTanhOutside(Additive):
    def forward(self, query, key):
        return torch.tanh(self.read(self.pair(query, key)))


@mutant("AdditiveScores", "tanh twice")
class AdditiveTanhTwice(Additive):
    def forward(self, query, key):
        return torch.tanh(super().forward(query, key))


@mutant("AdditiveScores", "tanh of each projection")
class AdditiveTanhOfEach(Additive):
    def forward(self, query, key):
        return self.read(torch.tanh(self.W_q(query)).unsqueeze(-2) + torch.tanh(self.W_k(key)).unsqueeze(-3))


@mutant("AdditiveScores", "product of the projections")
class AdditiveTimes(Additive):
    def pair(self, query, key):
        return self.W_q(query).unsqueeze(-2) * self.W_k(key).unsqueeze(-3)


@mutant("AdditiveScores", "difference of the projections")
class AdditiveMinus(Additive):
    def pair(self, query, key):
        return self.W_q(query).unsqueeze(-2) - self.W_k(key).unsqueeze(-3)


@mutant("AdditiveScores", "sigmoid in place of tanh")
class AdditiveSigmoid(Additive):
    def forward(self, query, key):
        return self.read(torch.sigmoid(self.pair(query, key)))


@mutant("AdditiveScores", "relu in place of tanh")
class AdditiveRelu(Additive):
    def forward(self, query, key):
        return self.read(F.relu(self.pair(query, key)))


@mutant("AdditiveScores", "gelu in place of tanh")
class AdditiveGelu(Additive):
    def forward(self, query, key):
        return self.read(F.gelu(self.pair(query, key)))


@mutant("AdditiveScores", "v never applied")
class AdditiveSum(Additive):
    def read(self, hidden):
        return hidden.sum(-1)


@mutant("AdditiveScores", "v never applied")
class AdditiveMean(Additive):
    def read(self, hidden):
        return hidden.mean(-1)


@mutant("AdditiveScores", "scaled by sqrt(d_hidden)")
class AdditiveScaled(Additive):
    def read(self, hidden):
        return super().read(hidden) / math.sqrt(hidden.shape[-1])


@mutant("AdditiveScores", "softmax applied to the scores")
class AdditiveWeights(Additive):
    def read(self, hidden):
        return torch.softmax(super().read(hidden), -1)


@mutant("AdditiveScores", "keys left out")
class AdditiveQueriesTwice(Additive):
    def pair(self, query, key):
        return self.W_q(query).unsqueeze(-2) + 0 * self.W_k(key).unsqueeze(-3)


@mutant("AdditiveScores", "queries left out")
class AdditiveKeysOnly(Additive):
    def pair(self, query, key):
        return 0 * self.W_q(query).unsqueeze(-2) + self.W_k(key).unsqueeze(-3)


@mutant("AdditiveScores", "dot product of the projections")
class AdditiveDot(Additive):
    def forward(self, query, key):
        return self.W_q(query) @ self.W_k(key).mT


@mutant("AdditiveScores", "position i paired with position i")
class AdditiveSamePosition(Additive):
    def pair(self, query, key):
        return self.W_q(query) + self.W_k(key)


@mutant("AdditiveScores", "query and key exchanged")
class AdditiveTransposed(Additive):
    def pair(self, query, key):
        return self.W_q(query).unsqueeze(-3) + self.W_k(key).unsqueeze(-2)


@mutant("AdditiveScores", "scores has the wrong shape")
class AdditiveUnsqueezed(Additive):
    def read(self, hidden):
        return self.v(hidden)


@mutant("AdditiveScores", "scores has the wrong shape", only="leading axes")
class AdditiveSqueezed(Additive):
    def read(self, hidden):
        return self.v(hidden).squeeze()


@mutant("AdditiveScores", "fixed number of leading axes", only="leading axes")
class AdditiveFixedAxes(Additive):
    def pair(self, query, key):
        return self.W_q(query).unsqueeze(3) + self.W_k(key).unsqueeze(2)


@mutant("AdditiveScores", "sigmoid in place of tanh", only="agrees with the formula")
class AdditiveSigmoidToo(AdditiveSigmoid):
    pass


@mutant("AdditiveScores", "gradient is cut off", only="gradient")
class AdditiveKeysDetached(Additive):
    def pair(self, query, key):
        return self.W_q(query).unsqueeze(-2) + self.W_k(key.detach()).unsqueeze(-3)


@mutant("AdditiveScores", "wrong gradient", only="gradient")
class AdditiveHalfDetached(Additive):
    def read(self, hidden):
        scores = super().read(hidden)
        return (scores + scores.detach()) / 2


@mutant("AdditiveScores", "does not keep the dtype", only="dtype")
class AdditiveWide(Additive):
    def read(self, hidden):
        scores = super().read(hidden)
        return scores.float() if scores.dtype in HALF else scores


@mutant("AdditiveScores", "changes its inputs in place", only="inputs untouched")
class AdditiveCentred(Additive):
    def forward(self, query, key):
        scores = super().forward(query, key.clone())
        key -= key.mean(-1, keepdim=True).detach()
        return scores


@mutant("AdditiveScores", "depends on the memory layout of its inputs", only="layout")
class AdditiveViews(Additive):
    def pair(self, query, key):
        return super().pair(query.view(-1, query.shape[-1]).view(query.shape), key)


@mutant("AdditiveScores", "keeps state between calls")
class AdditiveRemembers(Additive):
    """Projects the keys once for each shape, as a decoder might that sees the same keys at every step."""

    def forward(self, query, key):
        if torch.is_grad_enabled() and (query.requires_grad or self.v.weight.requires_grad):
            return super().forward(query, key)
        if not hasattr(self, "seen") or self.seen.shape[:-1] != key.shape[:-1]:
            self.seen = self.W_k(key)
        return self.read(torch.tanh(self.W_q(query).unsqueeze(-2) + self.seen.unsqueeze(-3)))


@mutant("AdditiveScores", "a parameter is never used", only="parameters")
class AdditiveSpareLayer(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.out = nn.Linear(d_hidden, d_hidden)


@mutant("AdditiveScores", "a parameter that the formula does not have", only="parameters")
class AdditiveBiasFromZero(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.b = nn.Parameter(torch.zeros(d_hidden))

    def pair(self, query, key):
        return super().pair(query, key) + self.b.to(query.dtype)


@mutant("AdditiveScores", "weights are not trainable", only="parameters")
class AdditiveFrozen(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.requires_grad_(False)


@mutant("AdditiveScores", "weights are not trainable", only="parameters")
class AdditiveBuffer(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        del self.v
        self.register_buffer("v", torch.randn(d_hidden))

    def read(self, hidden):
        return hidden @ self.v.to(hidden.dtype)


@mutant("AdditiveScores", "a bias where the formula has none")
class AdditiveBias(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.W_q = nn.Linear(d_query, d_hidden)


@mutant("AdditiveScores", "missing or misnamed parameter")
class AdditiveOtherNames(nn.Module):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.Wq, self.Wk = nn.Linear(d_query, d_hidden, bias=False), nn.Linear(d_key, d_hidden, bias=False)
        self.v = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, query, key):
        return self.v(torch.tanh(self.Wq(query).unsqueeze(-2) + self.Wk(key).unsqueeze(-3))).squeeze(-1)


@mutant("AdditiveScores", "missing or misnamed parameter")
class AdditiveLayersInForward(nn.Module):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.widths = d_query, d_key, d_hidden

    def forward(self, query, key):
        return Additive(*self.widths)(query, key)


@mutant("AdditiveScores", "parameter of the wrong shape")
class AdditiveWidthsExchanged(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_key, d_query, d_hidden)


@mutant("AdditiveScores", "another result at every call")
class AdditiveDropout(Additive):
    def read(self, hidden):
        return super().read(F.dropout(hidden, 0.1))


# MultiplicativeScores


class Multiplicative(nn.Module):
    """Luong's general score."""

    def __init__(self, d_query, d_key):
        super().__init__()
        self.W = nn.Parameter(torch.randn(d_query, d_key) / math.sqrt(d_query))

    def forward(self, query, key):
        return query @ self.W @ key.transpose(-2, -1)


@right("MultiplicativeScores")
class KeysFirst(Multiplicative):
    def forward(self, query, key):
        return query @ (self.W @ key.mT)


@right("MultiplicativeScores")
class BilinearEinsum(Multiplicative):
    def forward(self, query, key):
        return torch.einsum("...qi,ij,...kj->...qk", query, self.W, key)


@right("MultiplicativeScores")
class ProjectedKeys(Multiplicative):
    def forward(self, query, key):
        return torch.matmul(query, F.linear(key, self.W).transpose(-1, -2))


@right("MultiplicativeScores")
class BilinearBroadcast(Multiplicative):
    def forward(self, query, key):
        projected = (query.unsqueeze(-1) * self.W).sum(-2)
        return (projected.unsqueeze(-2) * key.unsqueeze(-3)).sum(-1)


@right("MultiplicativeScores")
class BilinearLoop(Multiplicative):
    def forward(self, query, key):
        columns = [query @ self.W @ key[..., j, :].unsqueeze(-1) for j in range(key.shape[-2])]
        return torch.cat(columns, -1)


@right("MultiplicativeScores")
class BilinearBmm(Multiplicative):
    def forward(self, query, key):
        *lead, S_q, d_query = query.shape
        projected = (query.reshape(-1, d_query) @ self.W).reshape(-1, S_q, self.W.shape[1])
        flat_key = key.reshape(-1, *key.shape[-2:])
        return torch.bmm(projected, flat_key.transpose(1, 2)).reshape(*lead, S_q, key.shape[-2])


@right("MultiplicativeScores")
class LayerOnTheKeys(nn.Module):
    """nn.Linear(d_key, d_query) holds its weight as (d_query, d_key): the shape that is asked for."""

    def __init__(self, d_query, d_key):
        super().__init__()
        self.W = nn.Linear(d_key, d_query, bias=False)

    def forward(self, query, key):
        return query @ self.W(key).mT


@right("MultiplicativeScores")
class BilinearFunction(Multiplicative):
    def forward(self, query, key):
        S_q, S_k = query.shape[-2], key.shape[-2]
        queries = query.unsqueeze(-2).expand(*query.shape[:-1], S_k, query.shape[-1])
        keys = key.unsqueeze(-3).expand(*key.shape[:-2], S_q, *key.shape[-2:])
        return F.bilinear(queries.contiguous(), keys.contiguous(), self.W.unsqueeze(0)).squeeze(-1)


@mutant("MultiplicativeScores", "W transposed")
class Transposed(Multiplicative):
    def forward(self, query, key):
        return query @ self.W.T @ key.mT


@mutant("MultiplicativeScores", "W never applied")
class WithoutW(Multiplicative):
    def forward(self, query, key):
        return query @ key.mT


@mutant("MultiplicativeScores", "scaled by sqrt(d_key)")
class ScaledByKeys(Multiplicative):
    def forward(self, query, key):
        return super().forward(query, key) / math.sqrt(key.shape[-1])


@mutant("MultiplicativeScores", "scaled by sqrt(d_query)")
class ScaledByQueries(Multiplicative):
    def forward(self, query, key):
        return super().forward(query, key) / math.sqrt(query.shape[-1])


@mutant("MultiplicativeScores", "tanh of the score")
class TanhOfTheScore(Multiplicative):
    def forward(self, query, key):
        return torch.tanh(super().forward(query, key))


@mutant("MultiplicativeScores", "tanh of the projected query")
class TanhOfTheQuery(Multiplicative):
    def forward(self, query, key):
        return torch.tanh(query @ self.W) @ key.mT


@mutant("MultiplicativeScores", "softmax applied to the scores", only="agrees with the formula")
class AlreadyWeights(Multiplicative):
    def forward(self, query, key):
        return super().forward(query, key).softmax(-1)


@mutant("MultiplicativeScores", "elementwise product where a matrix product is meant")
class Star(Multiplicative):
    def forward(self, query, key):
        return (query @ self.W) * key


@mutant("MultiplicativeScores", "position i paired with position i")
class StarAndSum(Multiplicative):
    def forward(self, query, key):
        return (query @ self.W * key).sum(-1)


@mutant("MultiplicativeScores", "keys not transposed")
class KeysNotTransposed(Multiplicative):
    def forward(self, query, key):
        return query @ self.W @ key


@mutant("MultiplicativeScores", "all axes of the keys reversed")
class AllReversed(Multiplicative):
    def forward(self, query, key):
        return query @ self.W @ key.permute(*reversed(range(key.dim())))


@mutant("MultiplicativeScores", "query and key exchanged")
class Exchanged(Multiplicative):
    def forward(self, query, key):
        return key @ self.W.T @ query.mT


@mutant("MultiplicativeScores", "absolute values")
class Absolute(Multiplicative):
    def forward(self, query, key):
        return super().forward(query, key).abs()


@mutant("MultiplicativeScores", "sign turned round")
class Negative(Multiplicative):
    def forward(self, query, key):
        return -super().forward(query, key)


@mutant("MultiplicativeScores", "projected vectors normalised")
class Normalised(Multiplicative):
    def forward(self, query, key):
        return F.cosine_similarity((query @ self.W).unsqueeze(-2), key.unsqueeze(-3), dim=-1)


@mutant("MultiplicativeScores", "sum of both in place of their product")
class Sums(Multiplicative):
    def forward(self, query, key):
        return ((query @ self.W).unsqueeze(-2) + key.unsqueeze(-3)).sum(-1)


@mutant("MultiplicativeScores", "scores has the wrong shape", only="leading axes")
class Squeezed(Multiplicative):
    def forward(self, query, key):
        return super().forward(query, key).squeeze()


@mutant("MultiplicativeScores", "fixed number of leading axes", only="leading axes")
class FourLetters(Multiplicative):
    def forward(self, query, key):
        return torch.einsum("bhqi,ij,bhkj->bhqk", query, self.W, key)


@mutant("MultiplicativeScores", "gradient is cut off", only="gradient")
class OnTheData(Multiplicative):
    def forward(self, query, key):
        return query.data @ self.W @ key.mT


@mutant("MultiplicativeScores", "gradient is cut off")
class WeightData(Multiplicative):
    def forward(self, query, key):
        return query @ self.W.data @ key.mT


@mutant("MultiplicativeScores", "does not keep the dtype", only="dtype")
class Wide(Multiplicative):
    def forward(self, query, key):
        scores = super().forward(query, key)
        return scores.float() if scores.dtype in HALF else scores


@mutant("MultiplicativeScores", "changes its inputs in place", only="inputs untouched")
class InPlace(Multiplicative):
    def forward(self, query, key):
        scores = super().forward(query.clone(), key)
        query.mul_(2)
        return scores


@mutant("MultiplicativeScores", "depends on the memory layout of its inputs", only="layout")
class Views(Multiplicative):
    def forward(self, query, key):
        return (query.view(-1, query.shape[-1]) @ self.W).view(*query.shape[:-1], -1) @ key.mT


@mutant("MultiplicativeScores", "a parameter is never used", only="parameters")
class SpareParameter(Multiplicative):
    def __init__(self, d_query, d_key):
        super().__init__(d_query, d_key)
        self.scale = nn.Parameter(torch.ones(1))


@mutant("MultiplicativeScores", "a parameter that the formula does not have", only="parameters")
class LearnedScale(Multiplicative):
    def __init__(self, d_query, d_key):
        super().__init__(d_query, d_key)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, query, key):
        return super().forward(query, key) * self.scale.to(query.dtype)


@mutant("MultiplicativeScores", "weights are not trainable", only="parameters")
class Buffer(Multiplicative):
    def __init__(self, d_query, d_key):
        super().__init__(d_query, d_key)
        del self.W
        self.register_buffer("W", torch.randn(d_query, d_key))


@mutant("MultiplicativeScores", "missing or misnamed parameter")
class PlainTensor(Multiplicative):
    def __init__(self, d_query, d_key):
        nn.Module.__init__(self)
        self.W = torch.randn(d_query, d_key)


@mutant("MultiplicativeScores", "a bias where the formula has none")
class LayerWithBias(nn.Module):
    def __init__(self, d_query, d_key):
        super().__init__()
        self.W = nn.Linear(d_key, d_query)

    def forward(self, query, key):
        return query @ self.W(key).mT


@mutant("MultiplicativeScores", "parameter of the wrong shape")
class SquareW(Multiplicative):
    def __init__(self, d_query, d_key):
        super().__init__(d_query, d_query)


# Lazy answers to both


@every(("AdditiveScores", "MultiplicativeScores"))
class NoConstructor(nn.Module):
    def forward(self, query, key):
        return query @ key.mT


@every(("AdditiveScores", "MultiplicativeScores"), "missing or misnamed parameter")
class NoParameters(nn.Module):
    def __init__(self, *widths):
        super().__init__()

    def forward(self, query, key):
        return torch.zeros(*query.shape[:-1], key.shape[-2], dtype=query.dtype)


@every(("AdditiveScores", "MultiplicativeScores"), "not an nn.Module")
class NotAModule:
    def __init__(self, *widths):
        self.widths = widths

    def __call__(self, query, key):
        return query


@every(("AdditiveScores", "MultiplicativeScores"))
class LeavesTheProgram(nn.Module):
    def __init__(self, *widths):
        sys.exit(0)


@every(("AdditiveScores", "MultiplicativeScores"))
def function_of_query_and_key(query, key):
    return query @ key.mT


@mutant("AdditiveScores", "query has no effect")
class AdditiveZeros(Additive):
    def forward(self, query, key):
        return 0 * super().forward(query, key)


@mutant("MultiplicativeScores", "query has no effect")
class Zeros(Multiplicative):
    def forward(self, query, key):
        return 0 * super().forward(query, key)


@mutant("MultiplicativeScores", "does not return what is asked for")
class Nothing(Multiplicative):
    def forward(self, query, key):
        """No return statement."""
