"""Exercise `chunked_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.tiling import tiled
from autograder.exercises.efficient_attention.sequences import (
    COUNTS,
    DEEP,
    FORMULA,
    TRIPLE,
    behaviour,
    counts,
    deep,
    leading,
    triple,
)
from autograder.exercises.efficient_attention.streaming import STREAM_SLIPS, blocks_of, stream
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.attention import allowed_keys
from autograder.oracle.tiles import chunked_attention

__all__ = ["CHUNKED_ATTENTION"]

OUTPUTS = ("output", "log_sum_exp")
SUM = "log-sum-exp"
RESULTS = (FORMULA, SUM)
COST = "linear memory"


def _inputs(
    draw: Draw, *, block_size: int = 0, blocks: int = 0, is_causal: bool = False, **options: Any
) -> dict[str, Any]:
    """Attention in blocks of 3, or of block_size. blocks: so many whole blocks of keys, of 2 to 4 each."""
    size = block_size or 3
    if blocks:
        size = draw.integer(2, 4)
        options |= {"S_k": blocks * size}
    inputs = triple(draw, **options) | {"block_size": size}
    return inputs | ({"is_causal": True} if is_causal else {})


def _long(draw: Draw, is_causal: bool) -> dict[str, Any]:
    """Some 350 positions in blocks of 7: the table of all pairs is forty times as large as what is allowed."""
    inputs = triple(draw, axes=0, low=330, high=370, widths=4)
    return inputs | {"block_size": 7} | ({"is_causal": True} if is_causal else {})


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


def _sizes(inputs: Mapping[str, Any]) -> tuple[int, int, int, int]:
    query, value = inputs["query"], inputs["value"]
    return query.shape[-2], value.shape[-2], query.shape[-1], value.shape[-1]


def _largest(inputs: Mapping[str, Any]) -> int:
    S_q, S_k, D, D_v = _sizes(inputs)
    return 2 * leading(inputs) * max(S_q, S_k) * max(D, D_v, inputs["block_size"])


def _flops(inputs: Mapping[str, Any]) -> int:
    S_q, S_k, D, D_v = _sizes(inputs)
    rows, columns = (-(-S // inputs["block_size"]) * inputs["block_size"] for S in (S_q, S_k))
    return 2 * leading(inputs) * rows * columns * (D + D_v)


def _table(inputs: Mapping[str, Any]) -> int:
    S_q, S_k, *_ = _sizes(inputs)
    return S_q * S_k


def _variant(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_size: int,
    is_causal: bool = False,
    *,
    allow: Callable[[int, int, int], Tensor] | None = None,
    always: bool = False,
    pad: bool = False,
    fit: bool = False,
    dead: tuple[float, float] | None = None,
    **knobs: Any,
) -> Mapping[str, Tensor]:
    """Chunked attention with knobs; the rest are those of `stream`.

    allow: S_q, S_k, block_size -> another idea of what is_causal allows; always: also without it. pad: the last block is
    filled up with keys and values of zero. fit: only whole blocks are read. dead: what a query that sees no key gets.
    """
    S_k = key.shape[-2]
    if pad:
        missing = -S_k % block_size
        key, value = (torch.nn.functional.pad(x, (0, 0, 0, missing)) for x in (key, value))
    if fit:
        key, value = (x[..., : S_k // block_size * block_size, :] for x in (key, value))
    shape = (query.shape[-2], key.shape[-2])
    allowed = allowed_keys(shape, None, is_causal or always)
    if is_causal and allow is not None:
        allowed = allow(*shape, block_size)
    results = stream(query, key, value, allowed, blocks_of(key.shape[-2], block_size), **knobs)
    if dead is None:
        return results
    alive = allowed.any(-1)
    return {
        "output": results["output"].masked_fill(~alive.unsqueeze(-1), dead[0]),
        "log_sum_exp": results["log_sum_exp"].masked_fill(~alive, dead[1]),
    }


def _triangle(diagonal: int) -> Callable[[int, int, int], Tensor]:
    return lambda S_q, S_k, block: torch.ones(S_q, S_k, dtype=torch.bool).tril(diagonal)


def _counted_in_the_block(S_q: int, S_k: int, block: int) -> Tensor:
    return torch.arange(S_k) % block <= torch.arange(S_q).unsqueeze(-1)


def _one_block_less(S_q: int, S_k: int, block: int) -> Tensor:
    start = torch.arange(S_k) // block * block
    return torch.ones(S_q, S_k, dtype=torch.bool).tril() & ((start < S_q - 1) | (start == 0))


def _by_blocks(strict: bool) -> Callable[[int, int, int], Tensor]:
    def allow(S_q: int, S_k: int, block: int) -> Tensor:
        rows, columns = torch.arange(S_q).unsqueeze(-1) // block, torch.arange(S_k) // block
        return columns < rows if strict else columns <= rows

    return allow


def _mistakes() -> tuple[Mistake, ...]:
    scale = "Dot products of width D have variance D. Is the score divided by sqrt(D), once?"
    aligned = "With is_causal, query i sees keys 0..i, counted from the start of both sequences."
    tail = "The block size need not divide the length. How long is the last block, and what stands behind its end?"
    rows: tuple[tuple[str, str, dict[str, Any]], ...] = (
        *(
            (name, question, dict(way))
            for question, rows in STREAM_SLIPS.items()
            for name, way in rows.items()
        ),  # type: ignore
        ("not scaled", scale, {"scale": lambda D: 1.0}),
        ("divided by D", scale, {"scale": lambda D: 1 / D}),
        ("divided by the fourth root of D", scale, {"scale": lambda D: D**-0.25}),
        ("tail of the last block not masked", tail + " A key of zero has score 0, not -inf.", {"pad": True}),
        ("keys behind the last whole block left out", tail, {"fit": True}),
        ("is_causal ignored", "Is is_causal used at all?", {"allow": lambda q, k, b: _triangle(k)(q, k, b)}),
        ("always causal", "Should keys be hidden only if is_causal is True?", {"always": True}),
        ("causal mask shows one key of the future", aligned, {"allow": _triangle(1)}),
        (
            "causal mask counted from the start of the block",
            "Column j of a block is key start + j. Is the start added?",
            {"allow": _counted_in_the_block},
        ),
        (
            "a block is skipped that the last query may see",
            "A block may be skipped only if all of it lies in the future of all queries. Is it start >= S_q?",
            {"allow": _one_block_less},
        ),
        (
            "causal only between whole blocks",
            "Inside the block on the diagonal some keys still lie in the future of some queries.",
            {"allow": _by_blocks(strict=False)},
        ),
    )
    # These leave queries without any key, whose results depend on the writing.
    blind: tuple[tuple[str, str, Callable[[int, int, int], Tensor]], ...] = (
        ("causal mask hides the present", "May a position see itself? " + aligned, _triangle(-1)),
        ("causal mask aligned at the bottom right", aligned, lambda q, k, b: _triangle(k - q)(q, k, b)),
        (
            "the block on the diagonal is skipped",
            "A block may be skipped only if all of it lies in the future. " + aligned,
            _by_blocks(strict=True),
        ),
    )
    return (
        *(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in rows),
        *(
            Mistake(name, question, partial(_variant, allow=allow, dead=dead))
            for name, question, allow in blind
            for dead in ((0.0, -torch.inf), (torch.nan, -torch.inf), (torch.nan, torch.nan))
        ),
    )


CHUNKED_ATTENTION = Exercise(
    name="chunked_attention",
    assignment="efficient_attention",
    target=Target("chunked_attention", OUTPUTS, chunked_attention),
    positional=(*TRIPLE, "block_size"),
    recipes=(
        _recipe("unequal sizes", blocks=3),
        _recipe("large scores", blocks=4, size=4.0),
        _recipe("the last block is shorter", block_size=4, S_k=11),
        _recipe("one block larger than the sequence", block_size=17),
        _recipe("blocks of one key", block_size=1),
        _recipe("one query", S_q=1, S_k=8),
        _recipe("causal", is_causal=True, blocks=3, S_q=15),
        _recipe("causal, more keys than queries", is_causal=True, block_size=4, S_q=9, S_k=14, zero=True),
        _recipe("two leading axes", axes=2, blocks=3),
        _recipe("huge scores", size=1e3, blocks=4),
        Recipe(DEEP, lambda draw: deep(draw, _inputs(draw, is_causal=True, blocks=3))),
        _recipe("small, float64", axes=0, dtype=torch.float64, blocks=2),
        _recipe("float64", dtype=torch.float64, blocks=3),
        _recipe("bfloat16", dtype=torch.bfloat16, blocks=3),
        _recipe("float16", dtype=torch.float16, blocks=3),
        _recipe("no block size", block_size=-1),
        Recipe("a long sequence", partial(_long, is_causal=False)),
        Recipe("a long sequence, causal", partial(_long, is_causal=True)),
        _recipe("causal, in one block", is_causal=True, block_size=20, S_q=6, S_k=9),
        _recipe("causal, float64", is_causal=True, axes=0, dtype=torch.float64, block_size=2, S_q=5, S_k=8),
        _recipe("causal, float16", is_causal=True, dtype=torch.float16, blocks=3),
    ),
    checks=(
        counts(OUTPUTS),
        Check(
            FORMULA,
            "softmax(query key^T / sqrt(D)) value, where the blocks fit",
            0.5,
            ("unequal sizes", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            SUM,
            "the second result is the logarithm of each row's sum of exponentials",
            0.25,
            ("unequal sizes", "large scores"),
            agrees("log_sum_exp"),
            COUNTS,
        ),
        Check(
            "any block size",
            "blocks that do not divide the length, of one key, or larger than all; a single query",
            0.25,
            (
                "the last block is shorter",
                "one block larger than the sequence",
                "blocks of one key",
                "one query",
            ),
            agrees(*OUTPUTS),
            RESULTS,
        ),
        Check(
            "causal",
            "query i sees keys 0..i",
            0.5,
            ("causal", "causal, more keys than queries", "causal, in one block"),
            agrees(*OUTPUTS),
            RESULTS,
        ),
        Check(
            "no block size",
            "is refused with a ValueError",
            0.25,
            ("no block size",),
            raises_value_error("block_size is not checked"),
            FORMULA,
        ),
        Check(
            COST,
            "no tensor grows with the square of the length, and no work is wasted",
            5.75,
            ("a long sequence", "a long sequence, causal"),
            tiled(_largest, _flops, _table, OUTPUTS),
            (*RESULTS, "any block size", "causal"),
        ),
        *behaviour(
            (*RESULTS, COST),
            OUTPUTS,
            differentiated=("small, float64", "causal, float64"),
            halves=("bfloat16", "float16", "causal, float16"),
        ),
    ),
    mistakes=_mistakes(),
    hints=(
        "You have a softmax that reads its scores in blocks. What must be rescaled together with its running sum?",
        (
            "Carry three things for each query: the running maximum, the running sum, and the running output, not yet "
            "divided. A new block shrinks the last two by exp(old maximum - new maximum) and adds its own."
        ),
        (
            "For each block of keys: `scores = query @ keys.mT / sqrt(D)`, future ones -inf; `new = maximum(old, "
            "scores.amax(-1, keepdim=True))`; `p = exp(scores - new)`; `total = total * exp(old - new) + p.sum(-1, "
            "keepdim=True)`; `output = output * exp(old - new) + p @ values`. Return output / total and new + log(total)."
        ),
    ),
)
