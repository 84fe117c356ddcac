"""Exercise `decode_attention`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.fused import agrees_here, any_splits, float32_sums, ignores_garbage
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.gpu_kernels.conduct import (
    COUNTS,
    FORMULA,
    GPU,
    LONG,
    OWN,
    SHORT,
    conduct,
    own_kernel,
    refuses_bfloat16,
    shortened,
)
from autograder.exercises.gpu_kernels.tiles import COLUMN_SLIPS, SCALE_SLIPS, Slip, decoded
from autograder.oracle.kernels import decode

__all__ = ["DECODE_ATTENTION", "DIFFERS", "FEW", "LENGTH_SLIPS", "OUTPUTS", "common_checks", "decode_inputs"]

OUTPUTS = ("output",)
DIFFERS = "it differs from the formula"
FEW = torch.tensor([SHORT], dtype=torch.int32)
"""The length of a short sequence."""


def decode_inputs(
    draw: Draw,
    *,
    heads: tuple[int, int] = (2, 2),
    lengths: Callable[[Draw], list[int]] = lambda draw: [9, 21],
    behind: int = 4,
    garbage: float | None = None,
    splits: int | None = 1,
    width: int | None = None,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    rise: float = 0.0,
) -> dict[str, Any]:
    """query (B, H_q, D), caches (B, H_kv, longest + behind, D), lengths (B,); garbage fills what lies behind a sequence."""
    (H_q, H_kv), taken = heads, torch.tensor(lengths(draw), dtype=torch.int32)
    B, S_max, D = len(taken), int(taken.max()) + behind, width or (10, 11, 13)[draw.integer(0, 2)]
    query = draw.normal(B, H_q, D, dtype=torch.float64) * size
    caches = [draw.normal(B, H_kv, S_max, D, dtype=torch.float64) for _ in range(2)]
    if rise:
        query[..., 0] = 1.0
        caches[0][..., 0] = rise * D**0.5 * torch.arange(S_max, dtype=torch.float64)
    if garbage is not None:
        beyond = torch.arange(S_max) >= taken[:, None]
        for cache in caches:
            cache.masked_fill_(beyond[:, None, :, None], garbage)
    inputs = {"query": query.to(dtype), "key_cache": caches[0].to(dtype), "value_cache": caches[1].to(dtype)}
    inputs["lengths"] = taken
    return inputs | ({} if splits is None else {"num_splits": splits})


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(decode_inputs, **options))


def _uniform(draw: Draw) -> dict[str, Any]:
    """300 keys of nearly equal weight, and values that add up to 150,000 on the way, too much for float16, and then cancel."""
    inputs = decode_inputs(draw, heads=(1, 1), lengths=lambda draw: [300], splits=None, size=0.05)
    inputs["value_cache"][:, :, :150] += 1000.0
    inputs["value_cache"][:, :, 150:] -= 1000.0
    return {n: v.half() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in inputs.items()}


def _long() -> dict[str, Any]:
    """Zeros for launches that do not run."""
    cache = torch.zeros(1, 2, LONG, 9, dtype=torch.float16)
    query, lengths = torch.zeros(1, 2, 9, dtype=torch.float16), torch.tensor([LONG], dtype=torch.int32)
    return {"query": query, "key_cache": cache, "value_cache": cache, "lengths": lengths, "num_splits": 2}


def _one_long(draw: Draw) -> list[int]:
    return [draw.integer(150, 170)]


RECIPES = (
    _recipe("unequal lengths"),
    _recipe("six heads on two", heads=(6, 2), lengths=lambda draw: [19, 17], splits=2),
    _recipe("one long sequence", heads=(1, 1), lengths=_one_long, splits=3),
    _recipe(
        "lengths of 1, 16, 17 and 33", heads=(1, 1), lengths=lambda draw: [1, 16, 17, 33], behind=0, width=130
    ),
    _recipe("nan behind the sequences", garbage=float("nan"), lengths=lambda draw: [5, 18]),
    _recipe("more splits than tiles", heads=(1, 1), lengths=lambda draw: [3, 20], splits=5),
    _recipe("huge scores", heads=(1, 1), size=300.0, lengths=lambda draw: [40], splits=3),
    _recipe("scores that rise steeply", heads=(1, 1), rise=8.0, lengths=lambda draw: [40], splits=3),
    _recipe("float16", dtype=torch.float16, heads=(1, 1)),
    Recipe("300 keys, float16", _uniform),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("eight wide", heads=(4, 2), width=8, lengths=lambda draw: [7, 3]),
    _recipe(GPU, heads=(4, 2), width=8, dtype=torch.float16, lengths=lambda draw: [7]),
    _recipe("twenty heads on one", heads=(20, 1), lengths=lambda draw: [6]),
    _recipe("300 keys in 33 parts", heads=(1, 1), lengths=lambda draw: [300], splits=33),
    Recipe("70,000 keys", lambda draw: _long()),
)

LENGTH_SLIPS: tuple[Slip, ...] = (
    (
        "length ignored",
        "Sequence b has lengths[b] keys. Does the program load its length?",
        {"length": lambda lengths, S_max: torch.full_like(lengths, S_max)},
    ),
    (
        "one key too few",
        "Keys 0..length-1 take part: is it < length?",
        {"length": lambda lengths, S_max: lengths - 1},
    ),
    (
        "one key too many",
        "Keys 0..length-1 take part: is it < length, not <=?",
        {"length": lambda lengths, S_max: lengths + 1},
    ),
    (
        "the first sequence's length for all",
        "Is the length loaded from lengths + sequence?",
        {"length": lambda lengths, S_max: lengths[:1].expand_as(lengths)},
    ),
)


def _shares() -> tuple[Callable[[Tensor, int, int], Tensor], ...]:
    """How students cut a sequence: by its length or the cache's, evenly or in whole tiles."""

    def by(own: bool, tile: int) -> Callable[[Tensor, int, int], Tensor]:
        def share(lengths: Tensor, S_max: int, num_splits: int) -> Tensor:
            whole = lengths.long() if own else torch.full_like(lengths, S_max, dtype=torch.long)
            even = -(-whole // num_splits)
            return -(-even // tile) * tile

        return share

    return tuple(by(own, tile) for own in (True, False) for tile in (1, 16, 32, 64))


_TOGETHER = (
    "Each part's output counts by exp(its log-sum-exp - the largest one), and these weights add up to 1."
)
TOGETHER_SLIPS: tuple[tuple[str, str, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("parts averaged without weights", _TOGETHER, lambda parts, sizes: parts.mean(0)),
    ("parts added up without weights", _TOGETHER, lambda parts, sizes: parts.sum(0)),
    ("only the first part counts", _TOGETHER, lambda parts, sizes: parts[0]),
    (
        "weights of the parts do not add up to 1",
        _TOGETHER,
        lambda parts, sizes: (parts * (sizes - sizes.amax(0)).exp().unsqueeze(-1)).sum(0),
    ),
    (
        "log-sum-exps of the parts in the wrong base",
        "Are they in bits (exp2, log2) in both kernels, or in natural units in both?",
        lambda parts, sizes: (parts * torch.softmax(sizes * 1.4426950408889634, 0).unsqueeze(-1)).sum(0),
    ),
    (
        "log-sum-exps of the parts multiplied by ln 2",
        "Are they in bits (exp2, log2) in both kernels, or in natural units in both?",
        lambda parts, sizes: (parts * torch.softmax(sizes * 0.6931471805599453, 0).unsqueeze(-1)).sum(0),
    ),
)


def _decode_mistakes() -> tuple[Mistake, ...]:
    return (
        *(
            Mistake(name, question, partial(decoded, **knobs))
            for name, question, knobs in (*LENGTH_SLIPS, *SCALE_SLIPS[:4], *COLUMN_SLIPS)
        ),
        *(
            Mistake(name, question, partial(decoded, together=together, shares=share))
            for name, question, together in TOGETHER_SLIPS
            for share in _shares()
        ),
    )


def common_checks(outputs: tuple[str, ...] = OUTPUTS) -> tuple[Check, ...]:
    """Checks of decoding, whether the cache lies in one piece or in pages."""
    return (
        Check(
            "heads",
            "query head h reads key and value head h // group",
            0.5,
            ("six heads on two", "twenty heads on one"),
            agrees_here(f"with shared heads {DIFFERS}", *outputs, mistake="reads the wrong heads"),
            FORMULA,
        ),
        Check(
            "garbage",
            "what lies behind a sequence's end takes no part, be it nan",
            0.5,
            ("nan behind the sequences",),
            ignores_garbage(),
            FORMULA,
        ),
        Check(
            "hard inputs",
            "huge scores, and scores that rise from key to key",
            0.5,
            ("huge scores", "scores that rise steeply"),
            agrees_here(
                f"for such inputs {DIFFERS}", *outputs, finite="overflows or underflows for large scores"
            ),
            FORMULA,
        ),
        Check(
            "sums in float32",
            "large terms in float16, which cancel, do not overflow on the way",
            0.25,
            ("300 keys, float16",),
            float32_sums(*outputs),
            FORMULA,
        ),
        refuses_bfloat16(FORMULA),
    )


DECODE_ATTENTION = Exercise(
    name="decode_attention",
    assignment="gpu_kernels",
    target=Target("decode_attention", OUTPUTS, decode),
    positional=("query", "key_cache", "value_cache", "lengths"),
    recipes=RECIPES,
    kernels=True,
    checks=(
        Check(
            COUNTS,
            "the output changes when the query or a cache does",
            0.25,
            ("unequal lengths",),
            responds(dict.fromkeys(("query", "key_cache", "value_cache"), OUTPUTS)),
        ),
        own_kernel("unequal lengths", "eight wide"),
        Check(
            FORMULA,
            "each sequence's query attends to that sequence's keys",
            1.5,
            ("unequal lengths", "one long sequence"),
            agrees(*OUTPUTS),
            OWN,
        ),
        Check(
            "lengths",
            "of 1, of one tile, and just beyond",
            0.5,
            ("lengths of 1, 16, 17 and 33",),
            agrees_here(f"at these lengths {DIFFERS}", *OUTPUTS, mistake="fails at some lengths"),
            FORMULA,
        ),
        Check(
            "any number of splits",
            "gives the same result, also if some hold no key, and more of them are more programs",
            0.75,
            ("more splits than tiles", "300 keys in 33 parts"),
            any_splits(),
            FORMULA,
        ),
        *common_checks(),
        *conduct(
            (FORMULA,),
            OUTPUTS,
            "eight wide",
            tiles="six heads on two",
            long=("70,000 keys",),
            shorter=shortened({"key_cache": 2, "value_cache": 2}, lengths=FEW),
            kept=("lengths",),
        ),
    ),
    mistakes=_decode_mistakes(),
    hints=(
        (
            "One query has too little work to fill a GPU; its cache has plenty. Which range of keys does the program "
            "of split s of sequence b read, and what must it leave behind, besides its output, so that a second "
            "kernel can put the parts together?"
        ),
        (
            "Keys of a part: share = cdiv(cdiv(length, num_splits), N) * N; from split * share to the smaller of "
            "(split + 1) * share and the length. Store the part's output, already divided by its sum, and its "
            "log-sum-exp, which is -inf for a part without keys (and its output 0, not 0 / 0)."
        ),
        (
            "Second kernel, one program a query head: `sizes = tl.load(..., other=-inf)`; `shares = tl.exp2(sizes - "
            "tl.max(sizes, 0))`; `output = tl.sum(parts * shares[:, None], 0) / tl.sum(shares, 0)`. In the first, "
            "the query heads of a group are the rows of one tile, padded to 16: then the cache is read once for "
            "all of them."
        ),
    ),
)
