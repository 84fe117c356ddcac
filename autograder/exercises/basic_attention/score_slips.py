"""Mistakes of the five kinds of scores: mutants of the formulas, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autograder.exercises.basic_attention.slip_table import Slip
from autograder.oracle import scores as formulas

__all__ = ["ADDITIVE_SLIPS", "COSINE_SLIPS", "DOT_SLIPS", "MULTIPLICATIVE_SLIPS", "SCALED_DOT_SLIPS"]


def _dots(query: Tensor, key: Tensor, **_: Any) -> Tensor:
    return query @ key.mT


def _scaled(query: Tensor, key: Tensor) -> Tensor:
    return _dots(query, key) / math.sqrt(query.shape[-1])


def _cosine(query: Tensor, key: Tensor, eps: float = 1e-8) -> Tensor:
    return formulas.cosine(query, key, eps).value


def _distance(query: Tensor, key: Tensor, **_: Any) -> Tensor:
    return -torch.cdist(query, key)


def _norm(values: Tensor, **options: Any) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dim=-1, keepdim=True, **options)
    return norm


def _inside(query: Tensor, key: Tensor, W_q: Tensor, W_k: Tensor) -> Tensor:
    return (query @ W_q.mT).unsqueeze(-2) + (key @ W_k.mT).unsqueeze(-3)


RESHAPED: Slip = (
    "keys reshaped where they must be transposed",
    "reshape keeps the order of the numbers. Should it be key.transpose(-2, -1)?",
    lambda query, key, **_: query @ key.reshape(*key.shape[:-2], key.shape[-1], key.shape[-2]),
)
NOT_TRANSPOSED: Slip = (
    "keys not transposed",
    "Matrix multiplication pairs the last axis of one with the last but one of the other. "
    "Should it be key.transpose(-2, -1)?",
    lambda query, key, **_: query @ key,
)
ALL_REVERSED: Slip = (
    "all axes of the keys reversed",
    "Does .T turn the batch axes round as well? Only the last two should swap.",
    lambda query, key, **_: query @ key.permute(*reversed(range(key.dim()))),
)
ELEMENTWISE: Slip = (
    "elementwise product where a matrix product is meant",
    "Is it * where @ is meant?",
    lambda query, key, **_: query * key,
)
ELEMENTWISE_TRANSPOSED: Slip = (
    "elementwise product where a matrix product is meant",
    "Is it * where @ is meant?",
    lambda query, key, **_: query * key.mT,
)
NORMALISED: Slip = (
    "softmax applied to the scores",
    "Scores are what goes into the softmax. Is it applied here already?",
    lambda query, key, **_: _dots(query, key).softmax(-1),
)
NORMALISED_SCALED: Slip = (
    "softmax applied to the scores",
    "Scores are what goes into the softmax. Is it applied here already?",
    lambda query, key, **_: (_dots(query, key) / math.sqrt(query.shape[-1])).softmax(-1),
)
ROLES: Slip = (
    "query and key exchanged",
    "Rows belong to queries, columns to keys. Which comes first in the product?",
    lambda query, key, **_: key @ query.mT,
)
DISTANCE: Slip = ("negative distance", "Is it the product that is asked for, not the distance?", _distance)
DISTANCE_SQUARED: Slip = (
    "negative distance",
    "Is it the product that is asked for, not the distance?",
    lambda query, key, **_: -_distance(query, key).square(),
)
OPPOSITE = "Does a key that points along the query score lowest? Is there a minus sign too many?"
SIGNLESS = "Does a key that points away from the query score as high as one that points along it?"
SUM: Slip = (
    "sum of both in place of their product",
    "Should query and key be multiplied, before the sum over the width?",
    lambda query, key, **_: (query.unsqueeze(-2) + key.unsqueeze(-3)).sum(-1),
)
SAME_POSITION: Slip = (
    "position i paired with position i",
    "Should every query meet every key, for a table of (S_q, S_k)?",
    lambda query, key, **_: (query * key).sum(-1),
)
QUERIES_TWICE: Slip = (
    "queries scored against queries",
    "Where do the keys enter?",
    lambda query, key, **_: query @ query.mT,
)
RETURNED: Slip = ("query returned unchanged", "Where is the score computed?", lambda query, key, **_: query)
SHAPE_SLIPS: tuple[Slip, ...] = (
    NOT_TRANSPOSED,
    ALL_REVERSED,
    ELEMENTWISE,
    ELEMENTWISE_TRANSPOSED,
    ROLES,
    SAME_POSITION,
    QUERIES_TWICE,
    RETURNED,
)

DOT_SLIPS: tuple[Slip, ...] = (
    (
        "divided by sqrt(D)",
        "Scaling is the next exercise. Is it done here already?",
        lambda query, key: _dots(query, key) / math.sqrt(query.shape[-1]),
    ),
    (
        "divided by D",
        "Is it a mean where a sum is meant?",
        lambda query, key: _dots(query, key) / query.shape[-1],
    ),
    (
        "cosine where the dot product is meant",
        "Are the vectors normalised? Their length should count here.",
        _cosine,
    ),
    *SHAPE_SLIPS,
    RESHAPED,
    NORMALISED,
    DISTANCE,
    DISTANCE_SQUARED,
    SUM,
    ("absolute values", SIGNLESS, lambda query, key: _dots(query, key).abs()),
    ("sign turned round", OPPOSITE, lambda query, key: -_dots(query, key)),
)


def _rooted(name: str, question: str, formula: Callable[..., Tensor]) -> Slip:
    """The same slip, with the scale that belongs to it."""
    return name, question, lambda query, key: formula(query, key) / math.sqrt(query.shape[-1])


def _rounded(whole: Callable[[float], int]) -> Slip:
    """The root as a whole number."""
    return (
        "root of D rounded to a whole number",
        "Is the root cut off by int() or //? It need not be whole.",
        lambda query, key: _dots(query, key) / whole(math.sqrt(query.shape[-1])),
    )


SCALED_DOT_SLIPS: tuple[Slip, ...] = (
    ("not scaled", "Is the division by sqrt(D) missing?", _dots),
    (
        "multiplied by sqrt(D)",
        "Should the variance shrink or grow?",
        lambda query, key: _dots(query, key) * math.sqrt(query.shape[-1]),
    ),
    (
        "divided by D",
        "The variance of a sum of D products is D. What is its standard deviation?",
        lambda query, key: _dots(query, key) / query.shape[-1],
    ),
    (
        "divided by sqrt(S_k)",
        "Which axis is the width: the last, or the last but one?",
        lambda query, key: _dots(query, key) / math.sqrt(key.shape[-2]),
    ),
    (
        "divided by sqrt(S_q)",
        "Which axis is the width: the last, or the last but one?",
        lambda query, key: _dots(query, key) / math.sqrt(query.shape[-2]),
    ),
    (
        "divided by the fourth root of D",
        "Is the square root taken twice, or only one of the factors scaled?",
        lambda query, key: _dots(query, key) / query.shape[-1] ** 0.25,
    ),
    (
        "cosine where the scaled dot product is meant",
        "Is it divided by the norms in place of sqrt(D)?",
        _cosine,
    ),
    (
        "divided by the size of another axis",
        "Which axis is the width? Count from the end: shape[-1].",
        lambda query, key: _dots(query, key) / math.sqrt(query.shape[1]),
    ),
    (
        "divided by the size of another axis",
        "Which axis is the width? Count from the end: shape[-1].",
        lambda query, key: _dots(query, key) / math.sqrt(query.shape[0]),
    ),
    (
        "divided by sqrt(64)",
        "Is the width written down as a number? It differs from call to call.",
        lambda query, key: _dots(query, key) / 8,
    ),
    (
        "divided by D and by its root",
        "Is it a mean over the width that is scaled once more? One division by sqrt(D) is enough.",
        lambda query, key: _dots(query, key) / query.shape[-1] ** 1.5,
    ),
    (
        "half of D where the root is meant",
        "D ** 1 / 2 is (D ** 1) / 2. Is it D ** 0.5?",
        lambda query, key: _dots(query, key) / (query.shape[-1] / 2),
    ),
    (
        "half of D where the root is meant",
        "x / D ** 1 / 2 is x / D / 2. Is it D ** 0.5?",
        lambda query, key: _dots(query, key) / query.shape[-1] / 2,
    ),
    _rounded(math.floor),
    _rounded(math.ceil),
    _rounded(round),
    (
        "divided by the standard deviation",
        "Is the scale taken from the scores? It depends on D alone.",
        lambda query, key: _dots(query, key) / _dots(query, key).std(),
    ),
    (
        "root of the scores",
        "What stands under the root: D alone?",
        lambda query, key: (_dots(query, key) / query.shape[-1]).sqrt().nan_to_num(0.0),
    ),
    *SHAPE_SLIPS,
    *(_rooted(*slip) for slip in (*SHAPE_SLIPS, RESHAPED)),
    NORMALISED,
    NORMALISED_SCALED,
    DISTANCE,
    DISTANCE_SQUARED,
    SUM,
    ("absolute values", SIGNLESS, lambda query, key: _scaled(query, key).abs()),
    ("sign turned round", OPPOSITE, lambda query, key: -_scaled(query, key)),
)


def _default_eps(other: float) -> Slip:
    return (
        "eps is not 1e-8 when left out",
        "Which default does the signature name?",
        lambda query, key, eps=other: _cosine(query, key, eps),
    )


COSINE_SLIPS: tuple[Slip, ...] = (
    ("not normalised", "Where are the norms divided out?", _dots),
    (
        "divided by sqrt(D)",
        "Is it divided by the norms of the vectors, or by sqrt(D)?",
        lambda query, key, eps=1e-8: _dots(query, key) / math.sqrt(query.shape[-1]),
    ),
    (
        "only the queries normalised",
        "Do long keys still win?",
        lambda query, key, eps=1e-8: _dots(query / _norm(query).clamp_min(eps), key),
    ),
    (
        "only the keys normalised",
        "Do long queries still give large scores?",
        lambda query, key, eps=1e-8: _dots(query, key / _norm(key).clamp_min(eps)),
    ),
    (
        "squared norms",
        "Is the square root missing from the norm?",
        lambda query, key, eps=1e-8: _dots(
            query / query.square().sum(-1, keepdim=True).clamp_min(eps),
            key / key.square().sum(-1, keepdim=True).clamp_min(eps),
        ),
    ),
    (
        "norm of absolute values, not of squares",
        "Which norm makes a cosine: ord=1 or ord=2?",
        lambda query, key, eps=1e-8: _dots(
            query / _norm(query, ord=1).clamp_min(eps), key / _norm(key, ord=1).clamp_min(eps)
        ),
    ),
    (
        "norm along the wrong axis",
        "Is the norm taken over the width (the last axis), with keepdim=True?",
        lambda query, key, eps=1e-8: _dots(
            query / query.norm(dim=-2, keepdim=True).clamp_min(eps),
            key / key.norm(dim=-2, keepdim=True).clamp_min(eps),
        ),
    ),
    (
        "one norm for the whole tensor",
        "Has each vector a norm of its own?",
        lambda query, key, eps=1e-8: _dots(
            query / query.norm().clamp_min(eps), key / key.norm().clamp_min(eps)
        ),
    ),
    (
        "nan for a zero vector",
        "What is 0 / 0? eps should keep the norm away from zero.",
        lambda query, key, eps=1e-8: _dots(query / _norm(query), key / _norm(key)),
    ),
    ("eps fixed at 1e-8", "Is the argument eps used?", lambda query, key, eps=1e-8: _cosine(query, key)),
    (
        "eps added, not a floor",
        "Adding eps changes every score a little. Should the norm be max(norm, eps)?",
        lambda query, key, eps=1e-8: _dots(query / (_norm(query) + eps), key / (_norm(key) + eps)),
    ),
    (
        "eps under the product of the norms",
        "Should each norm have its own floor?",
        lambda query, key, eps=1e-8: _dots(query, key) / (_norm(query) * _norm(key).mT).clamp_min(eps),
    ),
    (
        "eps under the product of the norms",
        "Should each norm have its own floor?",
        lambda query, key, eps=1e-8: _dots(query, key) / (_norm(query) * _norm(key).mT + eps),
    ),
    (
        "cosine distance",
        "Should equal directions score 1, not 0?",
        lambda query, key, eps=1e-8: 1 - _cosine(query, key, eps),
    ),
    (
        "norm along the second axis",
        "F.normalize takes axis 1 if none is given. Is it dim=-1 here?",
        lambda query, key, eps=1e-8: _dots(
            query / query.norm(dim=1, keepdim=True).clamp_min(eps),
            key / key.norm(dim=1, keepdim=True).clamp_min(eps),
        ),
    ),
    (
        "eps under the root",
        "Should the norm be at least eps, not its square?",
        lambda query, key, eps=1e-8: _dots(
            query / _norm(query).square().clamp_min(eps).sqrt(),
            key / _norm(key).square().clamp_min(eps).sqrt(),
        ),
    ),
    (
        "eps under the root",
        "Should the norm be at least eps, not its square plus something?",
        lambda query, key, eps=1e-8: _dots(
            query / (_norm(query).square() + eps).sqrt(), key / (_norm(key).square() + eps).sqrt()
        ),
    ),
    (
        "eps under the root",
        "Should the norm be at least eps, not the root of its square plus something?",
        lambda query, key, eps=1e-8: _dots(
            query / (_norm(query).square() + eps**2).sqrt(), key / (_norm(key).square() + eps**2).sqrt()
        ),
    ),
    (
        "eps for one of the two alone",
        "Is eps passed on for the queries and for the keys?",
        lambda query, key, eps=1e-8: _dots(
            query / _norm(query).clamp_min(eps), key / _norm(key).clamp_min(1e-8)
        ),
    ),
    (
        "eps for one of the two alone",
        "Is eps passed on for the queries and for the keys?",
        lambda query, key, eps=1e-8: _dots(
            query / _norm(query).clamp_min(1e-8), key / _norm(key).clamp_min(eps)
        ),
    ),
    *(_default_eps(other) for other in (1e-12, 1e-10, 1e-7, 1e-6, 1e-5, 1e-4)),
    (
        "one norm for each matrix",
        "Has each vector a norm of its own? dim=-1, with keepdim=True.",
        lambda query, key, eps=1e-8: _dots(
            query / query.norm(dim=(-2, -1), keepdim=True).clamp_min(eps),
            key / key.norm(dim=(-2, -1), keepdim=True).clamp_min(eps),
        ),
    ),
    (
        *RESHAPED[:2],
        lambda query, key, eps=1e-8: RESHAPED[2](
            query / _norm(query).clamp_min(eps), key / _norm(key).clamp_min(eps)
        ),
    ),
    (
        "cosine divided by sqrt(D) as well",
        "A cosine lies in [-1, 1] at every width. What is the scale for?",
        lambda query, key, eps=1e-8: _cosine(query, key, eps) / math.sqrt(query.shape[-1]),
    ),
    (
        "short vectors score zero",
        "Should a short vector be divided by eps, not dropped?",
        lambda query, key, eps=1e-8: (
            _cosine(query, key, eps) * (_norm(query) >= eps) * (_norm(key) >= eps).mT
        ),
    ),
    (
        "centred first",
        "Is the mean subtracted? That makes a correlation.",
        lambda query, key, eps=1e-8: _cosine(
            query - query.mean(-1, keepdim=True), key - key.mean(-1, keepdim=True), eps
        ),
    ),
    (
        "angle in place of its cosine",
        "Is acos applied? The score should rise as the vectors come closer; their angle falls.",
        lambda query, key, eps=1e-8: _cosine(query, key, eps).clamp(-1, 1).acos(),
    ),
    (
        "brought to [0, 1]",
        "Should opposite directions score -1?",
        lambda query, key, eps=1e-8: (_cosine(query, key, eps) + 1) / 2,
    ),
    (
        "softmax applied to the scores",
        "Scores are what goes into the softmax. Is it applied here already?",
        lambda query, key, eps=1e-8: _cosine(query, key, eps).softmax(-1),
    ),
    ("sign turned round", OPPOSITE, lambda query, key, eps=1e-8: -_cosine(query, key, eps)),
    *SHAPE_SLIPS,
    DISTANCE,
    DISTANCE_SQUARED,
    (
        "absolute values",
        "Opposite directions score -1. Is the sign lost?",
        lambda query, key, eps=1e-8: _cosine(query, key, eps).abs(),
    ),
)

ADDITIVE_SLIPS: tuple[Slip, ...] = (
    (
        "no tanh",
        "Without the nonlinearity a query shifts all its scores alike, and the softmax undoes that. "
        "Is tanh missing?",
        lambda query, key, W_q, W_k, v: _inside(query, key, W_q, W_k) @ v,
    ),
    (
        "tanh of the score",
        "Is tanh applied before the product with v?",
        lambda query, key, W_q, W_k, v: torch.tanh(_inside(query, key, W_q, W_k) @ v),
    ),
    (
        "tanh twice",
        "Is tanh applied once inside and once more to the score?",
        lambda query, key, W_q, W_k, v: torch.tanh(torch.tanh(_inside(query, key, W_q, W_k)) @ v),
    ),
    (
        "tanh of each projection",
        "Should the two projections be added before the tanh?",
        lambda query, key, W_q, W_k, v: (
            (torch.tanh(query @ W_q.mT).unsqueeze(-2) + torch.tanh(key @ W_k.mT).unsqueeze(-3)) @ v
        ),
    ),
    (
        "product of the projections",
        "Should the two projections be added, not multiplied?",
        lambda query, key, W_q, W_k, v: (
            torch.tanh((query @ W_q.mT).unsqueeze(-2) * (key @ W_k.mT).unsqueeze(-3)) @ v
        ),
    ),
    (
        "difference of the projections",
        "Is it a plus between the two projections?",
        lambda query, key, W_q, W_k, v: (
            torch.tanh((query @ W_q.mT).unsqueeze(-2) - (key @ W_k.mT).unsqueeze(-3)) @ v
        ),
    ),
    (
        "sigmoid in place of tanh",
        "Which nonlinearity does the formula name?",
        lambda query, key, W_q, W_k, v: torch.sigmoid(_inside(query, key, W_q, W_k)) @ v,
    ),
    (
        "relu in place of tanh",
        "Which nonlinearity does the formula name?",
        lambda query, key, W_q, W_k, v: torch.relu(_inside(query, key, W_q, W_k)) @ v,
    ),
    (
        "gelu in place of tanh",
        "Which nonlinearity does the formula name?",
        lambda query, key, W_q, W_k, v: nn.functional.gelu(_inside(query, key, W_q, W_k)) @ v,
    ),
    (
        "query and key exchanged",
        "Rows belong to queries, columns to keys. Which of the two gets unsqueeze(-2)?",
        lambda query, key, W_q, W_k, v: (torch.tanh(_inside(query, key, W_q, W_k)) @ v).mT,
    ),
    (
        "v never applied",
        "Are the hidden values summed without their weights v?",
        lambda query, key, W_q, W_k, v: torch.tanh(_inside(query, key, W_q, W_k)).sum(-1),
    ),
    (
        "v never applied",
        "Are the hidden values averaged without their weights v?",
        lambda query, key, W_q, W_k, v: torch.tanh(_inside(query, key, W_q, W_k)).mean(-1),
    ),
    (
        "scaled by sqrt(d_hidden)",
        "Does the formula scale additive scores?",
        lambda query, key, W_q, W_k, v: (
            torch.tanh(_inside(query, key, W_q, W_k)) @ v / math.sqrt(W_q.shape[0])
        ),
    ),
    (
        "softmax applied to the scores",
        "Scores are what goes into the softmax. Is it applied here already?",
        lambda query, key, W_q, W_k, v: (torch.tanh(_inside(query, key, W_q, W_k)) @ v).softmax(-1),
    ),
    (
        "keys left out",
        "Where does W_k k enter?",
        lambda query, key, W_q, W_k, v: (
            (torch.tanh(query @ W_q.mT) @ v).unsqueeze(-1).expand(*query.shape[:-1], key.shape[-2])
        ),
    ),
    (
        "queries left out",
        "Where does W_q q enter?",
        lambda query, key, W_q, W_k, v: (
            (torch.tanh(key @ W_k.mT) @ v).unsqueeze(-2).expand(*query.shape[:-1], key.shape[-2])
        ),
    ),
    (
        "dot product of the projections",
        "This is the multiplicative score. Should the projections be added and go through tanh?",
        lambda query, key, W_q, W_k, v: (query @ W_q.mT) @ (key @ W_k.mT).mT,
    ),
    (
        "position i paired with position i",
        "Does every query meet every key? Try unsqueeze(-2) and unsqueeze(-3).",
        lambda query, key, W_q, W_k, v: torch.tanh(query @ W_q.mT + key @ W_k.mT) @ v,
    ),
)

MULTIPLICATIVE_SLIPS: tuple[Slip, ...] = (
    (
        "W transposed",
        "W has shape (d_query, d_key). Which side does the query multiply?",
        lambda query, key, W: query @ W.mT @ key.mT,
    ),
    ("W never applied", "Is W used in forward?", lambda query, key, W: query @ key.mT),
    (
        "scaled by sqrt(d_key)",
        "Does the formula scale multiplicative scores?",
        lambda query, key, W: query @ W @ key.mT / math.sqrt(key.shape[-1]),
    ),
    (
        "scaled by sqrt(d_query)",
        "Does the formula scale multiplicative scores?",
        lambda query, key, W: query @ W @ key.mT / math.sqrt(query.shape[-1]),
    ),
    (
        "tanh of the score",
        "tanh belongs to the additive score. Is this one bilinear?",
        lambda query, key, W: torch.tanh(query @ W @ key.mT),
    ),
    (
        "tanh of the projected query",
        "tanh belongs to the additive score. Is this one bilinear?",
        lambda query, key, W: torch.tanh(query @ W) @ key.mT,
    ),
    (
        "softmax applied to the scores",
        "Scores are what goes into the softmax. Is it applied here already?",
        lambda query, key, W: (query @ W @ key.mT).softmax(-1),
    ),
    (
        "elementwise product where a matrix product is meant",
        "Is it * where @ is meant?",
        lambda query, key, W: (query @ W) * key,
    ),
    (
        "position i paired with position i",
        "Should every query meet every key, for a table of (S_q, S_k)?",
        lambda query, key, W: ((query @ W) * key).sum(-1),
    ),
    (
        "sum of both in place of their product",
        "Should the projected query be multiplied with the key?",
        lambda query, key, W: ((query @ W).unsqueeze(-2) + key.unsqueeze(-3)).sum(-1),
    ),
    ("sign turned round", OPPOSITE, lambda query, key, W: -(query @ W @ key.mT)),
    ("keys not transposed", "Should it be key.transpose(-2, -1)?", lambda query, key, W: query @ W @ key),
    (
        "all axes of the keys reversed",
        "Does .T turn the batch axes round as well?",
        lambda query, key, W: query @ W @ key.permute(*reversed(range(key.dim()))),
    ),
    (
        "query and key exchanged",
        "Rows belong to queries, columns to keys.",
        lambda query, key, W: (query @ W @ key.mT).mT,
    ),
    ("absolute values", "Is the sign of the score lost?", lambda query, key, W: (query @ W @ key.mT).abs()),
    (
        "projected vectors normalised",
        "Is it a cosine where a product is meant?",
        lambda query, key, W: _cosine(query @ W, key),
    ),
)
