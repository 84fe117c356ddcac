"""Exercises on scores without parameters: dot, scaled dot and cosine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from autograder.case import Draw
from autograder.checks import Probe, Target
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle import Quantity
from autograder.oracle import scores as formulas
from autograder.situations import AXES, DTYPES, LENGTHS, Factor, Group, Situations, drawn_by, groups, without
from autograder.situations.space import GRADIENT

__all__ = ["COSINE_SCORES", "DIAGNOSES", "DOT_SCORES", "FINISHES", "PRODUCTS", "SCALED_DOT_SCORES", "compare", "itself", "named",
           "rounded", "size_of"]  # fmt: skip

Inputs = dict[str, Any]
OUTPUTS = ("scores",)
SHAPES = {"query": "... S_q D", "key": "... S_k D"}


def named(formula: Callable[..., Quantity]) -> Callable[..., Mapping[str, Quantity]]:
    """A formula of one result, by name."""
    return lambda **inputs: {"scores": formula(**inputs)}


# Situations


def size_of(large: float, in_float16: float) -> Factor:
    """Ordinary, large and small queries; `large` is the factor, which float16 cannot hold."""

    def times(factor: float, half: float) -> Callable[[Draw, Inputs], Inputs]:
        def sized(draw: Draw, given: Inputs) -> Inputs:
            query = given["query"]
            return {**given, "query": query * (half if query.dtype == torch.float16 else factor)}

        return sized

    return {
        "ordinary numbers": {},
        "large numbers": times(large, in_float16),
        "small numbers": times(1e-2, 1e-2),
    }


def rounded(*numbers: str) -> Mapping[str, Any]:
    """Half precision leaves nothing of a gradient of such numbers, in some right writings."""
    return {"numbers": numbers, "dtype": ("bfloat16", "float16"), "gradient": GRADIENT}


def itself(**sizes: str) -> Any:
    """Keys and queries are the same object."""
    return {"S_k": "S_q", **sizes}, lambda draw, given: {**given, "key": given["query"]}


def _tried(formula: str, points: float, more: Group, numbers: Factor, **worth: Any) -> Situations:
    """The situations of a score between two batches of vectors, with the points of their groups."""
    never, factors = worth.pop("never", ()), worth.pop("factors", {})
    lengths = {**without(LENGTHS, "one tensor for several"), "a sequence against itself": itself()}
    return Situations(
        draw=drawn_by(SHAPES),
        factors={"lengths": lengths, **factors, "numbers": numbers, "dtype": DTYPES, "axes": AXES},
        axes=SHAPES,
        groups=groups(formula, points, (more,), **worth),
        never=(rounded("large numbers", "small numbers"), *never),
    )


DIAGNOSES: Mapping[str, tuple[Probe, ...]] = {
    "": (responds({"query": OUTPUTS, "key": OUTPUTS}), agrees_with_slices({"query": 2, "key": 2}, OUTPUTS)),
}  # fmt: skip
"""What to try on a failing case, for a name."""
NUMBERS = Group("numbers", "no score is too large or too small", 0.25, ("numbers",))

# Scores in steps, and what goes wrong in them


def _unit(vectors: Tensor, eps: float) -> Tensor:
    return vectors / vector_norm(vectors, dim=-1, keepdim=True).clamp_min(eps)


def _dots(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.mT


def _root(query: Tensor, key: Tensor) -> float:
    return float(query.shape[-1] ** -0.5)


def compare(
    query: Tensor,
    key: Tensor,
    eps: float = 1e-8,
    *,
    prepare: Callable[[Tensor, float], Tensor] = lambda x, eps: x,
    product: Callable[[Tensor, Tensor], Tensor] = _dots,
    scale: Callable[[Tensor, Tensor], float] = lambda q, k: 1.0,
    finish: Callable[[Tensor], Tensor] = lambda scores: scores,
) -> Tensor:
    """query (..., S_q, D), key (..., S_k, D) -> scores (..., S_q, S_k): each prepared, multiplied, scaled."""
    return finish(product(prepare(query, eps), prepare(key, eps)) * scale(query, key))


PRODUCTS: Slips = {
    "A matrix product pairs the last axis of one with the last but one of the other. Should it be key.transpose(-2, -1)?": {
        "keys not transposed": {"product": lambda q, k: q @ k},
    },
    "reshape keeps the order of the numbers. Should it be key.transpose(-2, -1)?": {
        "keys reshaped where they must be transposed": {"product": lambda q, k: q @ k.reshape(k.mT.shape)},
    },
    "Does .T turn the batch axes round as well? Only the last two should swap.": {
        "all axes of the keys reversed": {"product": lambda q, k: q @ k.permute(*reversed(range(k.dim())))},
    },
    "Is it * where @ is meant?": {
        "elementwise product where a matrix product is meant": [{"product": torch.mul}, {"product": lambda q, k: q * k.mT}],
    },
    "Rows belong to queries, columns to keys. Which comes first in the product?": {
        "query and key exchanged": {"product": lambda q, k: k @ q.mT},
    },
    "Should every query meet every key, for a table of (S_q, S_k)?": {
        "position i paired with position i": {"product": lambda q, k: (q * k).sum(-1)},
    },
    "Where do the keys enter?": {"queries scored against queries": {"product": lambda q, k: q @ q.mT}},
    "Where is the score computed?": {"query returned unchanged": {"product": lambda q, k: q}},
    "Is it the product that is asked for, not the distance?": {
        "negative distance": [{"product": lambda q, k: -torch.cdist(q, k)}, {"product": lambda q, k: -torch.cdist(q, k) ** 2}],
    },
    "Should query and key be multiplied, before the sum over the width?": {
        "sum of both in place of their product": {"product": lambda q, k: (q.unsqueeze(-2) + k.unsqueeze(-3)).sum(-1)},
    },
}  # fmt: skip

FINISHES: Slips = {
    "Scores are what goes into the softmax. Is it applied here already?": {
        "softmax applied to the scores": {"finish": lambda s: s.softmax(-1)},
    },
    "Does a key that points away from the query score as high as one that points along it?": {
        "absolute values": {"finish": torch.abs},
    },
    "Does a key that points along the query score lowest? Is there a minus sign too many?": {
        "sign turned round": {"finish": torch.neg},
    },
}  # fmt: skip

DOT_SLIPS: Slips = {
    "Scaling is the next exercise. Is it done here already?": {"divided by sqrt(D)": {"scale": _root}},
    "Is it a mean where a sum is meant?": {"divided by D": {"scale": lambda q, k: 1 / q.shape[-1]}},
    "Are the vectors normalised? Their length should count here.": {
        "cosine where the dot product is meant": {"prepare": _unit},
    },
}  # fmt: skip

DOT_SCORES = Exercise(
    name="dot_scores",
    assignment="basic_attention",
    target=Target("dot_scores", OUTPUTS, named(formulas.dot)),
    positional=("query", "key"),
    situations=_tried("the dot product of every query with every key", 1.0, NUMBERS, size_of(1e5, 300.0),
                      lengths=0.75, gradient=0.5, dtypes=0.25, calls=0.25),
    recipes=(),
    checks=(),
    diagnoses=DIAGNOSES,
    mistakes=slips(compare, PRODUCTS, FINISHES, DOT_SLIPS, output="scores"),
    hints=(
        "All pairs of queries and keys at once: which single operation gives an (S_q, S_k) table from (S_q, D) and (S_k, D)?",
        "A matrix product of the query with the transposed key. With leading axes, transpose the last two axes only; `.T` "
        "turns all of them round.",
        "`key.transpose(-2, -1)` has shape (..., D, S_k). The product `query @ ...` with it is the answer.",
    ),
)  # fmt: skip

WHOLE = "Is the root cut off by int() or //? It need not be whole."
AXIS = "Which axis is the width: the last, or the last but one?"
SCALED_SLIPS: Slips = {
    "Is the division by sqrt(D) missing?": {"not scaled": {"scale": lambda q, k: 1.0}},
    "Should the variance shrink or grow?": {"multiplied by sqrt(D)": {"scale": lambda q, k: q.shape[-1] ** 0.5}},
    "The variance of a sum of D products is D. What is its standard deviation?": {
        "divided by D": {"scale": lambda q, k: 1 / q.shape[-1]},
    },
    AXIS: {
        "divided by sqrt(S_k)": {"scale": lambda q, k: k.shape[-2] ** -0.5},
        "divided by sqrt(S_q)": {"scale": lambda q, k: q.shape[-2] ** -0.5},
    },
    "Is the square root taken twice, or only one of the factors scaled?": {
        "divided by the fourth root of D": {"scale": lambda q, k: q.shape[-1] ** -0.25},
    },
    "Is it divided by the norms in place of sqrt(D)?": {
        "cosine where the scaled dot product is meant": {"prepare": _unit, "scale": lambda q, k: 1.0},
    },
    "Which axis is the width? Count from the end: shape[-1].": {
        "divided by the size of another axis": [
            {"scale": lambda q, k: q.shape[1] ** -0.5},
            {"scale": lambda q, k: q.shape[0] ** -0.5},
        ],
    },
    "Is the width written down as a number? It differs from call to call.": {
        "divided by sqrt(64)": {"scale": lambda q, k: 1 / 8},
    },
    "Is it a mean over the width that is scaled once more? One division by sqrt(D) is enough.": {
        "divided by D and by its root": {"scale": lambda q, k: q.shape[-1] ** -1.5},
    },
    "D ** 1 / 2 is (D ** 1) / 2, and x / D ** 1 / 2 is x / D / 2. Is it D ** 0.5?": {
        "half of D where the root is meant": [{"scale": lambda q, k: 2 / q.shape[-1]}, {"scale": lambda q, k: 0.5 / q.shape[-1]}],
    },
    WHOLE: {
        "root of D rounded to a whole number": [
            {"scale": lambda q, k: 1 / math.floor(q.shape[-1] ** 0.5)},
            {"scale": lambda q, k: 1 / math.ceil(q.shape[-1] ** 0.5)},
            {"scale": lambda q, k: 1 / round(q.shape[-1] ** 0.5)},
        ],
    },
    "Is the scale taken from the scores? It depends on D alone.": {
        "divided by the standard deviation": {"finish": lambda s: s / s.std()},
    },
    "What stands under the root: D alone?": {
        "root of the scores": {"scale": lambda q, k: 1 / q.shape[-1], "finish": lambda s: s.sqrt().nan_to_num(0.0)},
    },
}  # fmt: skip
scaled = partial(compare, scale=_root)

SCALED_DOT_SCORES = Exercise(
    name="scaled_dot_scores",
    assignment="basic_attention",
    target=Target("scaled_dot_scores", OUTPUTS, named(formulas.scaled_dot)),
    positional=("query", "key"),
    situations=_tried("dot products divided by the square root of the width D", 1.25, NUMBERS, size_of(1e5, 300.0),
                      lengths=0.75, gradient=0.5, dtypes=0.5, calls=0.25),
    recipes=(),
    checks=(),
    diagnoses=DIAGNOSES,
    mistakes=(
        *slips(scaled, SCALED_SLIPS, PRODUCTS, FINISHES, output="scores"),
        *slips(compare, PRODUCTS, FINISHES, output="scores", without=("absolute values", "sign turned round")),
    ),
    hints=(
        "Begin with the dot scores. By which number do you divide, so that the variance is 1 for every width?",
        "By the square root of D, where D is the width of one query: the size of its last axis, not the number of keys and "
        "not D itself.",
        "`math.sqrt(query.shape[-1])` is the divisor of the same matrix product as in `dot_scores`.",
    ),
)  # fmt: skip

# cosine_scores


def _first(change: Callable[[Tensor, float], Tensor]) -> Callable[[Draw, Inputs], Inputs]:
    """The first query and the last key changed, by eps."""

    def changed(draw: Draw, given: Inputs) -> Inputs:
        query, key = given["query"].clone(), given["key"].clone()
        query[..., 0, :], key[..., -1, :] = (
            change(x, given.get("eps", 1e-8)) for x in (query[..., 0, :], key[..., -1, :])
        )
        return {**given, "query": query, "key": key}

    return changed


def _about(draw: Draw, given: Inputs) -> Inputs:
    """Vectors of 0.3 eps, and of 3 eps where there are several."""
    eps = given.get("eps", 1e-8)

    def brought(vectors: Tensor) -> Tensor:
        wanted = torch.full_like(vectors[..., :1], 0.3 * eps)
        wanted[..., 1::2, :] = 3 * eps
        return vectors / vector_norm(vectors, dim=-1, keepdim=True) * wanted

    query = given["query"].clone()
    query[..., :2, :] = brought(query[..., :2, :])
    return {**given, "query": query, "key": brought(given["key"])}


DIRECTIONS: Factor = {
    **{name: level for name, level in size_of(1e3, 4.0).items() if name != "small numbers"},
    "zero vectors": _first(lambda x, eps: x * 0),
    "vectors about as short as eps": _about,
}


def _eps(eps: float) -> Callable[[Draw, Inputs], Inputs]:
    return lambda draw, given: {**given, "eps": eps}


EPS: Factor = {
    "eps left out": {},
    "eps of 1e-6": _eps(1e-6),
    "eps of 0.25": _eps(0.25),
    "eps of 1e-12": _eps(1e-12),
}
NO_FLOOR = {"numbers": tuple(DIRECTIONS)[2:], "dtype": "float16"}
"""float16 turns an eps of 1e-8 to zero."""
NO_DERIVATIVE = (
    {"numbers": tuple(DIRECTIONS)[2:], "gradient": GRADIENT},
    {"eps": "eps of 0.25", "gradient": GRADIENT},
)
"""A root has none at zero, and torch's own cosine_similarity another one than the formula below eps."""


def _over(norms: Callable[[Tensor], Tensor]) -> Callable[[Tensor, float], Tensor]:
    """Divided by other norms, at least eps."""
    return lambda x, eps: x / norms(x).clamp_min(eps)


def _length(x: Tensor, dim: Any = -1, ord: float = 2) -> Tensor:
    found: Tensor = vector_norm(x, ord, dim=dim, keepdim=True)
    return found


def _each(
    query: Callable[[Tensor, float], Tensor], key: Callable[[Tensor, float], Tensor]
) -> Callable[..., Tensor]:
    """Queries and keys prepared in two ways."""
    return lambda query, key, eps=1e-8, _q=query, _k=key: _dots(_q(query, eps), _k(key, eps))


def _together(floor: Callable[[Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """The dot product over both norms, which `floor` keeps from zero together."""
    return lambda query, key, eps=1e-8: _dots(query, key) / floor(_length(query) * _length(key).mT, eps)


OWN = "Has each vector a norm of its own? dim=-1, with keepdim=True."
PASSED = "Is eps passed on for the queries and for the keys?"
UNDER = "Should the norm be at least eps, not the root of its square plus something?"
COSINE_SLIPS: Slips = {
    "Where are the norms divided out?": {"not normalised": {"prepare": lambda x, eps: x}},
    "Is it divided by the norms of the vectors, or by sqrt(D)?": {
        "divided by sqrt(D)": {"prepare": lambda x, eps: x, "scale": _root},
    },
    "Do long keys still win?": {"only the queries normalised": _each(_unit, lambda x, eps: x)},
    "Do long queries still give large scores?": {"only the keys normalised": _each(lambda x, eps: x, _unit)},
    "Is the square root missing from the norm?": {"squared norms": {"prepare": _over(lambda x: _length(x).square())}},
    "Which norm makes a cosine: ord=1 or ord=2?": {
        "norm of absolute values, not of squares": {"prepare": _over(lambda x: _length(x, ord=1))},
    },
    "Is the norm taken over the width (the last axis), with keepdim=True?": {
        "norm along the wrong axis": {"prepare": _over(lambda x: _length(x, -2))},
    },
    "F.normalize takes axis 1 if none is given. Is it dim=-1 here?": {
        "norm along the second axis": {"prepare": _over(lambda x: _length(x, 1))},
    },
    OWN: {
        "one norm for the whole tensor": {"prepare": _over(torch.norm)},
        "one norm for each matrix": {"prepare": _over(lambda x: _length(x, (-2, -1)))},
    },
    "What is 0 / 0? eps should keep the norm away from zero.": {
        "nan for a zero vector": {"prepare": lambda x, eps: x / _length(x)},
    },
    "Is the argument eps used?": {"eps fixed at 1e-8": {"prepare": lambda x, eps: _unit(x, 1e-8)}},
    "Adding eps changes every score a little. Should the norm be max(norm, eps)?": {
        "eps added, not a floor": {"prepare": lambda x, eps: x / (_length(x) + eps)},
    },
    "Should each norm have its own floor?": {
        "eps under the product of the norms": [_together(torch.clamp_min), _together(lambda norms, eps: norms + eps)],
    },
    UNDER: {
        "eps under the root": [
            {"prepare": lambda x, eps: x / _length(x).square().clamp_min(eps).sqrt()},
            {"prepare": lambda x, eps: x / (_length(x).square() + eps).sqrt()},
            {"prepare": lambda x, eps: x / (_length(x).square() + eps**2).sqrt()},
        ],
    },
    PASSED: {
        "eps for one of the two alone": [
            _each(_unit, lambda x, eps: _unit(x, 1e-8)), _each(lambda x, eps: _unit(x, 1e-8), _unit),
        ],
    },
    "Which default does the signature name?": {
        "eps is not 1e-8 when left out": [
            lambda query, key, eps=other: compare(query, key, eps, prepare=_unit)
            for other in (1e-12, 1e-10, 1e-7, 1e-6, 1e-5, 1e-4)
        ],
    },
    "Is eps raised to some least number before it is used?": {
        "eps raised first": [
            lambda query, key, eps=1e-8, least=least: compare(query, key, max(eps, least), prepare=_unit)
            for least in (1e-8, 1e-6, 1e-4)
        ],
    },
    "Should a short vector be divided by eps, not dropped?": {
        "short vectors score zero": {"prepare": lambda x, eps: _unit(x, eps) * (_length(x) >= eps)},
    },
    "Should equal directions score 1, not 0?": {"cosine distance": {"finish": lambda s: 1 - s}},
    "A cosine lies in [-1, 1] at every width. What is the scale for?": {"cosine divided by sqrt(D) as well": {"scale": _root}},
    "Is the mean subtracted? That makes a correlation.": {
        "centred first": {"prepare": lambda x, eps: _unit(x - x.mean(-1, keepdim=True), eps)},
    },
    "Is acos applied? The score should rise as the vectors come closer; their angle falls.": {
        "angle in place of its cosine": {"finish": lambda s: s.clamp(-1, 1).acos()},
    },
    "Should opposite directions score -1?": {"brought to [0, 1]": {"finish": lambda s: (s + 1) / 2}},
}  # fmt: skip

COSINE_SCORES = Exercise(
    name="cosine_scores",
    assignment="basic_attention",
    target=Target("cosine_scores", OUTPUTS, named(formulas.cosine)),
    positional=("query", "key"),
    situations=_tried(
        "the cosine between every query and every key", 1.5,
        Group("eps", "a norm below eps counts as eps: a zero vector scores zero", 1.25, ("eps", "numbers")), DIRECTIONS,
        lengths=0.5, gradient=0.5, dtypes=0.5, calls=0.25, factors={"eps": EPS}, never=(NO_FLOOR, *NO_DERIVATIVE),
    ),
    recipes=(),
    checks=(),
    diagnoses=DIAGNOSES,
    mistakes=(
        *slips(partial(compare, prepare=_unit), COSINE_SLIPS, PRODUCTS, FINISHES, output="scores"),
        *slips(compare, PRODUCTS, output="scores"),
    ),
    hints=(
        "If both vectors had length 1, their dot product would be the cosine. How do you give a vector length 1?",
        "Divide query and key by their own norm along the last axis, keeping that axis. Raise each norm to at least `eps` "
        "first, so that a zero vector is not divided by zero.",
        "`query / query.norm(dim=-1, keepdim=True).clamp_min(eps)` has length 1. Do the same with the key, then take all dot "
        "products.",
    ),
)  # fmt: skip
