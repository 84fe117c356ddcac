"""Exercise `chunked_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import raises_value_error
from autograder.checks.structure import agrees_with_slices
from autograder.checks.tiling import far_from_zero, tiled
from autograder.exercises.efficient_attention.pieces import (
    NEVER,
    PIECE_AXES,
    SHAPES,
    TRIPLE,
    growing_values,
    kinds_of_scores,
    leading,
    own_work,
)
from autograder.exercises.efficient_attention.streaming import STREAM_SLIPS, blocks_of, stream
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.attention import allowed_keys
from autograder.oracle.tiles import chunked_attention
from autograder.situations import CAUSAL, DTYPES, HUNDREDS, Factor, Group, Situations, drawn_by, groups

__all__ = ["CHUNKED_ATTENTION"]

OUTPUTS = ("output", "log_sum_exp")
FORMULA = "agrees with the formula"
drawn = drawn_by(SHAPES, leading=1)


def draw(draw: Draw, *, block: str | int = "whole", **options: Any) -> dict[str, Any]:
    """Attention in blocks of some size: "whole", so that they divide the keys, with a shorter "tail",
    with "more" than all keys, or of that number."""
    inputs = drawn(draw, **options)
    S_k = inputs["key"].shape[-2]
    fitting = [size for size in range(2, S_k // 2 + 1) if S_k % size == 0]
    unfit = [size for size in range(2, S_k) if S_k % size]
    size = S_k + draw.integer(0, 5)
    if block in ("whole", "tail"):
        sizes = (fitting if block == "whole" else unfit) or [max(1, S_k - 1)]
        size = sizes[draw.integer(0, len(sizes) - 1)]
    return {**inputs, "block_size": size if isinstance(block, str) else block}


BLOCKS: Factor = {
    "whole blocks": {},
    "a shorter last block": {"block": "tail"},
    "blocks of one key": {"block": 1},
    "a block of all keys, or larger": {"block": "more"},
}
LENGTHS: Factor = {
    "more keys than queries": {"S_q": (3, 5), "S_k": [6, 8, 9]},
    "one query, many keys": {"S_q": 1, "S_k": [8, 10]},
    "more queries than keys": {"S_q": (7, 9), "S_k": [4, 6]},
    "all sizes equal": {"S_q": [4, 6], **dict.fromkeys(("S_k", "D", "D_v"), "S_q")},
    "one key": {"S_k": 1},
    "wide vectors": {"D": [131, 137], "D_v": [137, 139]},
    "hundreds of keys": {"S_q": (2, 4), "S_k": HUNDREDS},
    "hundreds of queries": {"S_q": HUNDREDS, "S_k": (3, 5)},
    "over two thousand keys": {"S_q": 2, "S_k": [2053, 2063, 2081], "axes": 0, "block": 509},
    "over two thousand queries": {"S_q": [2053, 2063, 2081], "S_k": [4, 6], "axes": 0},
    "over 256 positions in bfloat16": (
        {"S_q": [263, 269, 271], "S_k": [277, 281, 283], "D": 2, "axes": 0, "block": 131, "dtype": torch.bfloat16},
        growing_values,
    ),
}  # fmt: skip
"""Whole numbers beyond 256 are no numbers of bfloat16: positions must not be held in the inputs' dtype."""
LONG = tuple(name for name in LENGTHS if name.startswith("over "))


def _no_size(draw: Draw, size: int) -> dict[str, Any]:
    return {**drawn(draw, S_q=4, S_k=6), "block_size": size}


def _long(draw: Draw, is_causal: bool) -> dict[str, Any]:
    """Some 200 positions in blocks of 13: the table of all pairs is seven times as large as what is allowed."""
    inputs = drawn(draw, axes=0, S_q=(190, 204), S_k=(205, 220), D=3, D_v=4)
    return {**inputs, "block_size": 13} | ({"is_causal": True} if is_causal else {})


def _batch(draw: Draw) -> dict[str, Any]:
    """Some 90 positions in blocks of 5, with two leading axes."""
    return {**drawn(draw, axes=2, S_q=(82, 90), S_k=(91, 99), D=3, D_v=4), "block_size": 5, "is_causal": True}


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
    return leading(inputs) * inputs["query"].shape[-2] * inputs["key"].shape[-2]


def chunked(
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
    **steps: Any,
) -> Mapping[str, Tensor]:
    """Chunked attention in steps; the rest are those of `stream`.

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
    results = stream(query, key, value, allowed, blocks_of(key.shape[-2], block_size), **steps)
    if dead is None:
        return results
    alive = allowed.any(-1)
    return {
        "output": results["output"].masked_fill(~alive.unsqueeze(-1), dead[0]),
        "log_sum_exp": results["log_sum_exp"].masked_fill(~alive, dead[1]),
    }


def _triangle(diagonal: int) -> Callable[[int, int, int], Tensor]:
    return lambda S_q, S_k, block: torch.ones(S_q, S_k, dtype=torch.bool).tril(diagonal)


def _one_block_less(S_q: int, S_k: int, block: int) -> Tensor:
    start = torch.arange(S_k) // block * block
    return torch.ones(S_q, S_k, dtype=torch.bool).tril() & ((start < S_q - 1) | (start == 0))


def _by_blocks(strict: bool) -> Callable[[int, int, int], Tensor]:
    def allow(S_q: int, S_k: int, block: int) -> Tensor:
        rows, columns = torch.arange(S_q).unsqueeze(-1) // block, torch.arange(S_k) // block
        return columns < rows if strict else columns <= rows

    return allow


def _blind(allow: Callable[[int, int, int], Tensor]) -> list[Any]:
    """Leaves queries without any key, whose results depend on the writing."""
    found = ((0.0, -torch.inf), (torch.nan, -torch.inf), (torch.nan, torch.nan))
    return [{"allow": allow, "dead": dead} for dead in found]


SCALE = "Dot products of width D have variance D. Is the score divided by sqrt(D), once?"
ALIGNED = "With is_causal, query i sees keys 0..i, counted from the start of both sequences."
TAIL = (
    "The block size need not divide the length. How long is the last block, and what stands behind its end?"
)

CHUNKED_SLIPS: Slips = {
    SCALE: {
        "not scaled": {"scale": lambda D: 1.0},
        "divided by D": {"scale": lambda D: 1 / D},
        "divided by the fourth root of D": {"scale": lambda D: D**-0.25},
    },
    f"{TAIL} A key of zero has score 0, not -inf.": {"tail of the last block not masked": {"pad": True}},
    TAIL: {"keys behind the last whole block left out": {"fit": True}},
    "Is is_causal used at all?": {"is_causal ignored": {"allow": lambda q, k, b: _triangle(k)(q, k, b)}},
    "Should keys be hidden only if is_causal is True?": {"always causal": {"always": True}},
    ALIGNED: {
        "causal mask shows one key of the future": {"allow": _triangle(1)},
        "causal mask aligned at the bottom right": _blind(lambda q, k, b: _triangle(k - q)(q, k, b)),
    },
    f"May a position see itself? {ALIGNED}": {"causal mask hides the present": _blind(_triangle(-1))},
    "Column j of a block is key start + j. Is the start added?": {
        "causal mask counted from the start of the block":
            {"allow": lambda q, k, b: torch.arange(k) % b <= torch.arange(q).unsqueeze(-1)},
    },
    "A block may be skipped only if all of it lies in the future of all queries. Is it start >= S_q?": {
        "a block is skipped that the last query may see": {"allow": _one_block_less},
    },
    "Inside the block on the diagonal some keys still lie in the future of some queries.": {
        "causal only between whole blocks": {"allow": _by_blocks(strict=False)},
    },
    f"A block may be skipped only if all of it lies in the future. {ALIGNED}": {
        "the block on the diagonal is skipped": _blind(_by_blocks(strict=True)),
    },
}  # fmt: skip

CHUNKED_ATTENTION = Exercise(
    name="chunked_attention",
    assignment="efficient_attention",
    target=Target("chunked_attention", OUTPUTS, chunked_attention),
    positional=(*TRIPLE, "block_size"),
    situations=Situations(
        draw=draw,
        factors={"dtype": DTYPES, "blocks": BLOCKS, "lengths": LENGTHS, "causal": CAUSAL, "scores": kinds_of_scores(),
                 "axes": PIECE_AXES},
        axes=SHAPES,
        groups=groups(
            "softmax(query key^T / sqrt(D)) value, and the logarithm of each row's sum of exponentials", 1.0,
            more=(Group("block sizes", "blocks that do not divide the keys, of one key, of all of them and of more", 0.5,
                        ("blocks",)),),
            causal=0.5, scores=0.5, lengths=0.25, gradient=0.5, dtypes=0.25, calls=0.5,
        ),
        together=(("blocks", "lengths", "causal"),),
        never=(
            *NEVER,
            {"lengths": LONG, "blocks": tuple(BLOCKS)[1:]},
            {"lengths": LONG[-1], "causal": "not causal"},
            {"lengths": "wide vectors", "axes": "three leading axes"},
            {"lengths": "one key", "blocks": "a shorter last block"},
            # A sum that is kept in half precision loses too much there.
            {"lengths": "hundreds of keys", "blocks": "blocks of one key", "dtype": ("bfloat16", "float16")},
        ),
    ),
    recipes=(
        Recipe("blocks of none", partial(_no_size, size=0)),
        Recipe("blocks of less than none", partial(_no_size, size=-1)),
        Recipe("plain", draw),
        Recipe("a long sequence", partial(_long, is_causal=False)),
        Recipe("a long sequence, causal", partial(_long, is_causal=True)),
        Recipe("a batch", _batch),
    ),
    checks=(
        Check("no block size", "is refused with a ValueError", 0.25, ("blocks of none", "blocks of less than none"),
              raises_value_error("block_size is not checked"), FORMULA),
        Check("linear memory", "no tensor grows with the square of the length, and no work is wasted", 5.75,
              ("a long sequence", "a long sequence, causal", "a batch"), tiled(_largest, _flops, _table, OUTPUTS),
              (FORMULA, "block sizes", "causal")),
        own_work("plain", FORMULA),
    ),
    diagnoses={"": (
        far_from_zero("query", lambda inputs: bool(inputs.get("is_causal"))),
        agrees_with_slices(dict.fromkeys(TRIPLE, 2), OUTPUTS),
    )},
    mistakes=slips(chunked, STREAM_SLIPS, CHUNKED_SLIPS),
    hints=(
        "You have a softmax that reads its scores in blocks. What must be rescaled together with its running sum?",
        "Carry three things for each query: the running maximum, the running sum, and the running output, not yet "
        "divided. A new block shrinks the last two by exp(old maximum - new maximum) and adds its own.",
        "For each block of keys: `scores = query @ keys.mT / sqrt(D)`, future ones -inf; `new = maximum(old, "
        "scores.amax(-1, keepdim=True))`; `p = exp(scores - new)`; `total = total * exp(old - new) + p.sum(-1, "
        "keepdim=True)`; `output = output * exp(old - new) + p @ values`. Return output / total and new + log(total).",
    ),
)  # fmt: skip
