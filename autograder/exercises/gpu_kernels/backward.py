"""Exercise `flash_backward`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.fused import agrees_here, float32_sums
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.gpu_kernels.cases import HARD, backward_inputs, long_inputs
from autograder.exercises.gpu_kernels.conduct import (
    COUNTS,
    GPU,
    LONG,
    OWN,
    SOME,
    conduct,
    own_kernel,
    shortened,
)
from autograder.exercises.gpu_kernels.forward import CAUSAL_SLIPS
from autograder.exercises.gpu_kernels.tiles import COLUMN_SLIPS, SCALE_SLIPS, TILES, interleaved
from autograder.oracle.kernels import flash_backward as formula

__all__ = ["FLASH_BACKWARD", "GRADIENTS"]

GRADIENTS = ("grad_query", "grad_key", "grad_value")
DIFFER = "the gradients differ from the formula"


def _tiles(draw: Draw) -> tuple[int, int]:
    return draw.integer(18, 24), draw.integer(33, 40)


def _long_keys(draw: Draw) -> tuple[int, int]:
    return 3, draw.integer(140, 150)


def _steep(draw: Draw, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of several hundreds, below and above zero."""
    return query * 100.0, key, value


def _far(draw: Draw, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """grad_P and delta are a hundred times their difference: what delta is rounded to shows there."""
    return query, key, value + 50.0


def _cancelling(draw: Draw) -> dict[str, Any]:
    """In float16, 200 queries whose gradients add up to 100,000 on the way, which float16 cannot hold, and then cancel."""
    inputs = backward_inputs(
        draw,
        batch=1,
        heads=(1, 1),
        lengths=lambda draw: (200, 3),
        shaped=lambda draw, q, k, v: (q * 0.1, k, v * 0.01),
    )
    inputs["grad_output"][..., :100, :] += 3000.0
    inputs["grad_output"][..., 100:, :] -= 3000.0
    return {n: v.half() if isinstance(v, Tensor) and n != "log_sum_exp" else v for n, v in inputs.items()}


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(backward_inputs, **options))


CAUSAL = (
    "causal, fewer queries than keys",
    "causal, more queries than keys",
    "causal, heads shared",
    "causal, many tiles",
)

RECIPES = (
    _recipe("unequal sizes"),
    _recipe("several tiles", batch=1, heads=(1, 1), lengths=_tiles),
    _recipe("many tiles of keys", batch=1, heads=(1, 1), lengths=_long_keys),
    _recipe("many tiles of queries", batch=1, heads=(1, 1), lengths=lambda d: _long_keys(d)[::-1]),
    _recipe("odd lengths", batch=1, heads=(1, 1), lengths=lambda d: ((1, 17), (33, 1), (17, 33))[d.integer(0, 2)]),
    _recipe("wider than a power of two", batch=1, heads=(1, 1), width=130),
    _recipe("four heads on two", heads=(4, 2)),
    _recipe("causal, fewer queries than keys", is_causal=True, batch=1, heads=(1, 1), lengths=lambda d: (5, 20)),
    _recipe("causal, more queries than keys", is_causal=True, batch=1, heads=(1, 1), lengths=lambda d: (20, 9)),
    _recipe("steep scores", batch=1, shaped=_steep),
    _recipe("float16", dtype=torch.float16, batch=1),
    Recipe("200 queries, float16", _cancelling),
    _recipe("eight wide", heads=(2, 1), width=8, lengths=lambda draw: (5, 9)),
    _recipe(GPU, batch=1, width=8, dtype=torch.float16, lengths=lambda draw: (5, 9)),
    _recipe("causal, heads shared", is_causal=True, heads=(2, 1), lengths=lambda d: (18, 20)),
    _recipe("causal, many tiles", is_causal=True, batch=1, heads=(1, 1), lengths=lambda d: (70, 75)),
    _recipe("values far from zero, float16", dtype=torch.float16, batch=1, heads=(1, 1), shaped=_far),
    _recipe("scores far below zero", batch=1, heads=(1, 1), shaped=HARD["scores far below zero"]),
    Recipe("70,000 keys", lambda draw: long_inputs(SOME, LONG, backward=True)),
    Recipe("70,000 queries", lambda draw: long_inputs(LONG, SOME, backward=True)),
)  # fmt: skip

Combine = Callable[[Tensor, int], Tensor]
"""Gradients of all query heads and the number of key heads -> those of the key heads."""


def _added(gradient: Tensor, H_kv: int) -> Tensor:
    return gradient.unflatten(1, (H_kv, -1)).sum(2)


def _variant(
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


def _mistakes() -> tuple[Mistake, ...]:
    delta = (
        "Every row of grad_P loses its weighted mean, delta = sum of grad_output * output, before it meets P."
    )
    scale = "The factor 1 / sqrt(D) of the scores stands in both gradients, once."
    again = "P = exp(score - log_sum_exp), both in natural units; with exp2 both times log2(e)."
    name, question, tiled_heads = COLUMN_SLIPS[0]
    group = "A key head serves several query heads: their gradients add up."
    slips: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("delta is missing", delta, {"delta": lambda o, grad_o, v: torch.zeros_like(o[..., :1])}),
        ("delta is added", delta, {"delta": lambda o, grad_o, v: -(o * grad_o).sum(-1, True)}),
        ("delta is a mean over D", delta, {"delta": lambda o, grad_o, v: (o * grad_o).mean(-1, True)}),
        ("grad_key is not scaled", scale, {"scaled": (1.0, 0.0)}),
        ("grad_query is not scaled", scale, {"scaled": (0.0, 1.0)}),
        ("neither gradient is scaled", scale, {"scaled": (0.0, 0.0)}),
        ("gradients scaled twice", scale, {"scaled": (2.0, 2.0)}),
        (
            "grad_S without the weights",
            "grad_S = P * (grad_P - delta). Is the factor P there?",
            {"weighted": False},
        ),
        ("log-sum-exp taken in the wrong base", again, {"base": math.log2(math.e)}),
        ("log-sum-exp multiplied by ln 2", again, {"base": math.log(2)}),
        ("gradients of a group averaged", group, {"shared": lambda g, n: g.unflatten(1, (n, -1)).mean(2)}),
        (
            "only the last head of a group counts",
            group,
            {"shared": lambda g, n: g.unflatten(1, (n, -1))[:, :, -1]},
        ),
        (
            "only the first head of a group counts",
            group,
            {"shared": lambda g, n: g.unflatten(1, (n, -1))[:, :, 0]},
        ),
        ("exp2 without log2(e)", again, {"base": math.log(2), "sharpness": math.log(2)}),
        (name, question, {**tiled_heads, "shared": lambda g, n: g.unflatten(1, (-1, n)).sum(1)}),
        *SCALE_SLIPS[:3],
        *CAUSAL_SLIPS[:3],
    )
    return (
        *(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in slips),
        *(
            Mistake(
                "only the last tile of keys counts in grad_query",
                "Each tile of keys adds its part to grad_query. Is it accumulated, or stored over the last one?",
                partial(_variant, last_tile=tile),
            )
            for tile in TILES
        ),
    )


FLASH_BACKWARD = Exercise(
    name="flash_backward",
    assignment="gpu_kernels",
    target=Target("flash_backward", GRADIENTS, formula),
    positional=("query", "key", "value", "output", "log_sum_exp", "grad_output"),
    recipes=RECIPES,
    kernels=True,
    checks=(
        Check(
            COUNTS,
            "the gradients change with what they depend on",
            0.25,
            ("unequal sizes",),
            responds({"query": GRADIENTS, "value": GRADIENTS[:2], "grad_output": GRADIENTS}),
        ),
        own_kernel("unequal sizes", "eight wide", passes=4),
        Check(
            "grad_value",
            "P^T grad_output",
            1.0,
            ("unequal sizes", "many tiles of queries"),
            agrees("grad_value"),
            OWN,
        ),
        Check(
            "grad_key",
            "grad_S^T query / sqrt(D)",
            1.0,
            ("unequal sizes", "many tiles of queries"),
            agrees("grad_key"),
            OWN,
        ),
        Check(
            "grad_query",
            "grad_S key / sqrt(D), added up over all keys",
            1.0,
            ("unequal sizes", "many tiles of keys"),
            agrees("grad_query"),
            OWN,
        ),
        Check(
            "any size",
            "several tiles both ways, odd lengths and widths",
            0.5,
            ("several tiles", "odd lengths", "wider than a power of two"),
            agrees_here(f"at this size {DIFFER}", *GRADIENTS, mistake="fails at some sizes"),
            GRADIENTS,
        ),
        Check(
            "heads",
            "a key head's gradient adds up those of its group",
            0.75,
            ("four heads on two",),
            agrees_here(f"with shared heads {DIFFER}", *GRADIENTS, mistake="reads the wrong heads"),
            GRADIENTS,
        ),
        Check(
            "causal",
            "what a query does not see has no part in any gradient",
            0.75,
            CAUSAL,
            agrees_here(
                f"with is_causal=True {DIFFER}", *GRADIENTS, mistake="goes wrong under the causal mask"
            ),
            (*GRADIENTS, "heads"),
        ),
        Check(
            "hard inputs",
            "scores of hundreds, above and below zero",
            0.5,
            ("steep scores", "scores far below zero"),
            agrees_here(
                f"for such inputs {DIFFER}",
                *GRADIENTS,
                finite="overflows or underflows for large scores",
                question="Is it exp(score - log_sum_exp) in one step, and is the score of what is masked -inf before it?",
            ),
            GRADIENTS,
        ),
        Check(
            "sums in float32",
            "200 large terms in float16, which cancel, do not overflow on the way",
            0.25,
            ("200 queries, float16",),
            float32_sums("grad_value"),
            GRADIENTS,
        ),
        Check(
            "delta in float32",
            "grad_P and delta nearly cancel where values are far from zero",
            0.25,
            ("values far from zero, float16",),
            float32_sums("grad_query", "grad_key"),
            GRADIENTS,
        ),
        *conduct(
            GRADIENTS,
            GRADIENTS,
            "eight wide",
            tiles="several tiles",
            long=("70,000 keys", "70,000 queries"),
            shorter=shortened(
                dict.fromkeys(("query", "key", "value", "output", "log_sum_exp", "grad_output"), 2)
            ),
        ),
    ),
    mistakes=_mistakes(),
    hints=(
        (
            "Two loops are needed: one program a tile of keys, which visits all queries and collects grad_key and "
            "grad_value; and one program a tile of queries, which visits all keys and collects grad_query. Then "
            "nothing has to be added into memory that another program writes."
        ),
        (
            "In both: weights = exp(scores - log_sum_exp), masked as in forward; grad_P = grad_output value^T; "
            "grad_S = weights * (grad_P - delta), delta from a small kernel of its own. A query beyond the end "
            "gets log_sum_exp = inf, and so weights of 0. With shared heads the first program loops over its "
            "group's query heads as well."
        ),
        (
            "For a tile of keys, everything turned round: `scores = tl.dot(k, tl.trans(q)) * scale`; `weights = "
            "tl.exp(scores - normaliser[None, :])`; `grad_v = tl.dot(weights.to(grad_o.dtype), grad_o, grad_v)`; "
            "`grad_scores = weights * (tl.dot(v, tl.trans(grad_o)) - delta[None, :])`; `grad_k = "
            "tl.dot(grad_scores.to(q.dtype), q, grad_k)`; at the end `grad_k * scale`."
        ),
    ),
)
