"""`cosine_scores`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right

HALF = (torch.float16, torch.bfloat16)


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


@mutant("cosine_scores", "norm of absolute values, not of squares")
def norm_of_order_one(query, key, eps=1e-8):
    return F.normalize(query, p=1, dim=-1, eps=eps) @ F.normalize(key, p=1, dim=-1, eps=eps).mT


@mutant("cosine_scores", "norm along the second axis")
def normalize_with_its_default_axis(query, key, eps=1e-8):
    return F.normalize(query, eps=eps) @ F.normalize(key, eps=eps).mT


@mutant("cosine_scores", "eps fixed at 1e-8")
def eps_written_down(query, key, eps=1e-8):
    return F.cosine_similarity(query.unsqueeze(-2), key.unsqueeze(-3), dim=-1, eps=1e-8)


@mutant("cosine_scores", "eps is not 1e-8 when left out")
def default_of_zero(query, key, eps=0.0):
    return by_normalize(query, key, eps)


@mutant("cosine_scores", "short vectors score zero")
def short_vectors_dropped(query, key, eps=1e-8):
    scores = by_normalize(query, key)
    short = (query.norm(dim=-1) < eps).unsqueeze(-1) | (key.norm(dim=-1) < eps).unsqueeze(-2)
    return scores.masked_fill(short, 0.0)


@mutant("cosine_scores", "an argument that it does not take")
def no_eps_in_the_signature(query, key):
    return by_normalize(query, key)


@mutant("cosine_scores", "fixed number of leading axes")
def batch_axis_named(query, key, eps=1e-8):
    unit_query, unit_key = F.normalize(query, dim=3, eps=eps), F.normalize(key, dim=3, eps=eps)
    return unit_query @ unit_key.mT


@mutant("cosine_scores", "wrong gradient")
def norms_detached(query, key, eps=1e-8):
    q_norm, k_norm = query.detach().norm(dim=-1, keepdim=True), key.detach().norm(dim=-1, keepdim=True)
    return query / q_norm.clamp_min(eps) @ (key / k_norm.clamp_min(eps)).mT


@mutant("cosine_scores", "changes its inputs in place")
def normalised_in_place(query, key, eps=1e-8):
    scores = by_normalize(query.clone(), key, eps)
    query /= query.norm(dim=-1, keepdim=True).clamp_min(eps).detach()
    return scores


@mutant("cosine_scores", "depends on the memory layout of its inputs")
def cosines_of_views(query, key, eps=1e-8):
    *lead, S_q, D = query.shape
    flat_query, flat_key = query.view(-1, S_q, D), key.view(-1, key.shape[-2], D)
    return by_normalize(flat_query, flat_key, eps).view(*lead, S_q, -1)
