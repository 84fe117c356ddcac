"""Exercise `flash_backward`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from autograder.case import Recipe
from autograder.checks import Target
from autograder.exercises.exercise import Exercise
from autograder.exercises.gpu_kernels import cases
from autograder.exercises.gpu_kernels.cases import TERM, backward_inputs, long_inputs
from autograder.exercises.gpu_kernels.conduct import (
    GPU,
    HALF_AND_SINGLE,
    LEFT_OUT,
    LONG,
    NAMES,
    SOME,
    calls,
    conduct,
    dtypes,
    heads,
    own_kernel,
    shortened,
    sizes,
    tiles,
)
from autograder.exercises.gpu_kernels.tiles import (
    CAUSAL_SLIPS,
    ORDER,
    SCALE_SLIPS,
    TILES,
    interleaved,
    modulo,
)
from autograder.mistakes import Slips, slips
from autograder.oracle.kernels import flash_backward as formula
from autograder.situations import CAUSAL, Factor, Situations, groups, without

__all__ = ["FLASH_BACKWARD", "GRADIENTS"]

GRADIENTS = ("grad_query", "grad_key", "grad_value")


def _halves(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys that point the same way, and values that point one way in the first half, and the other way in the second."""
    value = value * 0.1
    value[..., :150, :] += 1.0
    value[..., 150:, :] -= 1.0
    return query * 0.05, key * 0.1 + 1.0, value


LENGTHS = {**cases.LENGTHS, "whole tiles": {"S_q": 32, "S_k": 32, "heads": (1, 1)}}
HEADS = without(cases.HEADS, "seventeen heads on one")

TERMS: Factor = {
    "ordinary terms": {},
    TERM: {
        "S_q": 200, "S_k": 3, "heads": (1, 1), "dtype": torch.float16, "size": 3000.0,
        "shaped": lambda query, key, value: (query * 0.1, key, value * 0.01),
    },
    "over 200 keys in float16, whose parts cancel": {
        "S_q": 2, "S_k": 300, "heads": (1, 1), "dtype": torch.float16, "shaped": _halves,
    },
}  # fmt: skip
"""grad_key and grad_value add up to 100,000 on the way, which float16 cannot hold, and then cancel; grad_query to much more
than is left in the end."""

DTYPES: Factor = {
    **HALF_AND_SINGLE,
    "float16, values far from zero": {
        "dtype": torch.float16,
        "shaped": lambda query, key, value: (query, key, value + 50.0),
    },
}
"""grad_P and delta are a hundred times their difference there: what delta is rounded to shows."""

Combine = Callable[[Tensor, int], Tensor]
"""Gradients of all query heads and the number of key heads -> those of the key heads."""


def _added(gradient: Tensor, H_kv: int) -> Tensor:
    return gradient.unflatten(1, (H_kv, -1)).sum(2)


def gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    log_sum_exp: Tensor,
    grad_output: Tensor,
    is_causal: bool = False,
    *,
    scale: Callable[[int], float] = lambda D: 1 / math.sqrt(D),
    keys: Callable[[Tensor, int], Tensor] = interleaved,
    values: Callable[[Tensor, int], Tensor] = interleaved,
    sees: Callable[[Tensor, Tensor, int, int], Tensor] = lambda row, column, S_q, S_k: column <= row,
    causal: bool | None = None,
    base: float = 1.0,
    sharpness: float = 1.0,
    delta: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda o, grad_o, v: (o * grad_o).sum(-1, True),
    weighted: bool = True,
    scaled: tuple[float, float] = (1.0, 1.0),
    shared: Combine = _added,
    last_tile: int | None = None,
) -> Mapping[str, Tensor]:
    """The gradients with knobs. base, sharpness: the log-sum-exp and the scores are multiplied by them.

    delta: of output, grad_output and values. weighted: whether grad_S has the factor P. scaled: exponents of 1 / sqrt(D)
    in grad_query and grad_key. shared: how query heads' gradients make a key head's. last_tile: keys a tile, where
    grad_query is that of the last one alone.
    """
    H_q, S_q, D = query.shape[1:]
    H_kv, S_k = key.shape[1:3]
    wide_key, wide_value = keys(key, H_q), values(value, H_q)
    scores = query @ wide_key.mT * scale(D) * sharpness
    if is_causal if causal is None else causal:
        seen = sees(torch.arange(S_q)[:, None], torch.arange(S_k)[None, :], S_q, S_k)
        scores = scores.masked_fill(~seen, -torch.inf)
    weights = torch.exp(scores - base * log_sum_exp.unsqueeze(-1))
    grad_scores = grad_output @ wide_value.mT - delta(output, grad_output, wide_value)
    if weighted:
        grad_scores = weights * grad_scores
    seen_scores = grad_scores
    if last_tile is not None:
        seen_scores = grad_scores.clone()
        seen_scores[..., : (S_k - 1) // last_tile * last_tile] = 0.0
    of_query, of_key = (scale(D) ** power for power in scaled)
    return {
        "grad_query": seen_scores @ wide_key * of_query,
        "grad_key": shared(grad_scores.mT @ query, H_kv) * of_key,
        "grad_value": shared(weights.mT @ grad_output, H_kv),
    }


DELTA = "Every row of grad_P loses its weighted mean, delta = sum of grad_output * output, before it meets P."
SCALE = "The factor 1 / sqrt(D) of the scores stands in both gradients, once."
UNITS = "P = exp(score - log_sum_exp), both in natural units; with exp2 both times log2(e)."
GROUP = "A key head serves several query heads: their gradients add up."

BACKWARD_SLIPS: Slips = {
    DELTA: {
        "delta is missing": {"delta": lambda o, grad_o, v: torch.zeros_like(o[..., :1])},
        "delta is added": {"delta": lambda o, grad_o, v: -(o * grad_o).sum(-1, True)},
        "delta is a mean over D": {"delta": lambda o, grad_o, v: (o * grad_o).mean(-1, True)},
    },
    SCALE: {
        "grad_key is not scaled": {"scaled": (1.0, 0.0)},
        "grad_query is not scaled": {"scaled": (0.0, 1.0)},
        "neither gradient is scaled": {"scaled": (0.0, 0.0)},
        "gradients scaled twice": {"scaled": (2.0, 2.0)},
    },
    "grad_S = P * (grad_P - delta). Is the factor P there?": {"grad_S without the weights": {"weighted": False}},
    UNITS: {
        "log-sum-exp taken in the wrong base": {"base": math.log2(math.e)},
        "log-sum-exp multiplied by ln 2": {"base": math.log(2)},
        "exp2 without log2(e)": {"base": math.log(2), "sharpness": math.log(2)},
    },
    GROUP: {
        "gradients of a group averaged": {"shared": lambda g, n: g.unflatten(1, (n, -1)).mean(2)},
        "only the last head of a group counts": {"shared": lambda g, n: g.unflatten(1, (n, -1))[:, :, -1]},
        "only the first head of a group counts": {"shared": lambda g, n: g.unflatten(1, (n, -1))[:, :, 0]},
    },
    ORDER: {
        "heads tiled instead of interleaved":
            {"keys": modulo, "values": modulo, "shared": lambda g, n: g.unflatten(1, (-1, n)).sum(1)},
    },
    "Each tile of keys adds its part to grad_query. Is it accumulated, or stored over the last one?": {
        "only the last tile of keys counts in grad_query": [{"last_tile": tile} for tile in TILES],
    },
}  # fmt: skip

FLASH_BACKWARD = Exercise(
    name="flash_backward",
    assignment="gpu_kernels",
    target=Target("flash_backward", GRADIENTS, formula),
    positional=("query", "key", "value", "output", "log_sum_exp", "grad_output"),
    kernels=True,
    situations=Situations(
        draw=backward_inputs,
        factors={"causal": CAUSAL, "lengths": LENGTHS, "width": cases.WIDTHS, "heads": HEADS,
                 "scores": cases.SCORES, "dtype": DTYPES, "terms": TERMS},
        axes={**dict.fromkeys(("query", "output", "grad_output"), "... H S_q D"), "log_sum_exp": "... H S_q",
              **dict.fromkeys(("key", "value"), "... K S_k D")},
        groups=groups(
            "the gradients of query, key and value, from what forward has kept", 2.75,
            (sizes(0.75), heads(0.75), dtypes(0.75), calls(0.5)),
            causal=1.0, scores=0.5,
        ),
        left_out=LEFT_OUT,
        meet=cases.MEET,
        never=(
            *cases.NEVER,
            *({"terms": tuple(TERMS)[1:], name: tuple(of)[1:]}
              for name, of in (("lengths", LENGTHS), ("width", cases.WIDTHS), ("heads", HEADS))),
            {"dtype": "float16, values far from zero", "scores": tuple(cases.SCORES)[1:]},
        ),
        kernels=True,
        names={**NAMES, ("dtype", "float16, values far from zero"): NAMES["terms", ""]},
    ),
    recipes=(
        Recipe("plain", backward_inputs),
        Recipe("several tiles", partial(backward_inputs, heads=(1, 1), S_q=(18, 24), S_k=(33, 40))),
        Recipe("causal, many tiles", partial(backward_inputs, heads=(1, 1), S_q=70, S_k=75, is_causal=True)),
        Recipe(GPU, partial(backward_inputs, width=8, dtype=torch.float16)),
        Recipe("70,000 keys", lambda draw: long_inputs(SOME, LONG, backward=True)),
        Recipe("70,000 queries", lambda draw: long_inputs(LONG, SOME, backward=True)),
    ),
    checks=(
        own_kernel("plain", passes=4),
        tiles("causal, many tiles", *GRADIENTS),
        *conduct(
            "plain", "several tiles", long=("70,000 keys", "70,000 queries"),
            shorter=shortened(dict.fromkeys(("query", "key", "value", "output", "log_sum_exp", "grad_output"), 2)),
        ),
    ),
    mistakes=(
        *slips(gradients, BACKWARD_SLIPS),
        *slips(gradients, SCALE_SLIPS, without=("exp2 without log2(e)", "log2(e) without exp2")),
        *slips(gradients, CAUSAL_SLIPS, without=("causal mask aligned at the bottom right",)),
    ),
    hints=(
        "Two loops are needed: one program a tile of keys, which visits all queries and collects grad_key and "
        "grad_value; and one program a tile of queries, which visits all keys and collects grad_query. Then nothing "
        "has to be added into memory that another program writes.",
        "In both: weights = exp(scores - log_sum_exp), masked as in forward; grad_P = grad_output value^T; grad_S = "
        "weights * (grad_P - delta), delta from a small kernel of its own. A query beyond the end gets log_sum_exp "
        "= inf, and so weights of 0. With shared heads the first program loops over its group's query heads as well.",
        "For a tile of keys, everything turned round: `scores = tl.dot(k, tl.trans(q)) * scale`; `weights = "
        "tl.exp(scores - normaliser[None, :])`; `grad_v = tl.dot(weights.to(grad_o.dtype), grad_o, grad_v)`; "
        "`grad_scores = weights * (tl.dot(v, tl.trans(grad_o)) - delta[None, :])`; `grad_k = "
        "tl.dot(grad_scores.to(q.dtype), q, grad_k)`; at the end `grad_k * scale`.",
    ),
)  # fmt: skip
