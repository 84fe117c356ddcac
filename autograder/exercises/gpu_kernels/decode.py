"""Exercise `decode_attention`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.fused import ignores_garbage, parts_are_programs
from autograder.exercises.exercise import Exercise
from autograder.exercises.gpu_kernels.conduct import (
    FORMULA,
    GPU,
    HALF_AND_SINGLE,
    LEFT_OUT,
    LONG,
    NAMES,
    OWN,
    SHORT,
    calls,
    conduct,
    dtypes,
    heads,
    own_kernel,
    refuses_bfloat16,
    shortened,
    sizes,
    tiles,
)
from autograder.exercises.gpu_kernels.tiles import HEAD_SLIPS, SCALE_SLIPS, decoded
from autograder.mistakes import Slips, Step, slips
from autograder.oracle.kernels import decode
from autograder.situations import Factor, Group, Situations, groups

__all__ = [
    "BEHIND",
    "FAR",
    "FEW",
    "HEADS",
    "KNOWN",
    "LENGTH_SLIPS",
    "MEET",
    "OUTPUTS",
    "SCORES",
    "TERM",
    "TERMS",
    "WIDTHS",
    "decode_inputs",
]  # fmt: skip

OUTPUTS = ("output",)
FEW = torch.tensor([SHORT], dtype=torch.int32)
"""The length of a short sequence."""


def decode_inputs(
    draw: Draw,
    *,
    heads: tuple[int, int] = (2, 2),
    lengths: tuple[int, ...] = (9, 5),
    behind: int = 4,
    garbage: float = torch.nan,
    splits: int | None = 2,
    width: int = 0,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    rise: float = 0.0,
    alike: float = 0.0,
    cancelling: float = 0.0,
) -> dict[str, Any]:
    """query (B, H_q, D), caches (B, H_kv, longest + behind, D), lengths (B,); `garbage` fills what lies behind a sequence.

    size: of the query. rise: by which each key scores higher than the one before. alike: what all keys score, times
    sqrt(D). cancelling: is added to the first half of the longest sequence's values, and taken off the second.
    """
    (H_q, H_kv), taken = heads, torch.tensor(lengths, dtype=torch.int32)
    B, S_max, D = len(taken), max(lengths) + behind, width or (10, 11, 13)[draw.integer(0, 2)]
    query = draw.normal(B, H_q, D, dtype=torch.float64) * size
    keys, values = (draw.normal(B, H_kv, S_max, D, dtype=torch.float64) for _ in range(2))
    if rise:
        query[..., 0] = 1.0
        keys[..., 0] = rise * D**0.5 * torch.arange(S_max, dtype=torch.float64)
    if alike:
        query, keys = query * 0.0, keys * 0.0
        query[..., 0], keys[..., 0] = 2.0**11, alike / 2.0**11
    half = max(lengths) // 2
    values[:, :, :half] += cancelling
    values[:, :, half:] -= cancelling
    beyond = (torch.arange(S_max) >= taken[:, None])[:, None, :, None]
    caches = [one.masked_fill(beyond, garbage).to(dtype) for one in (keys, values)]
    inputs = {"query": query.to(dtype), "key_cache": caches[0], "value_cache": caches[1], "lengths": taken}
    return inputs | ({} if splits is None else {"num_splits": splits})


def long_inputs() -> dict[str, Any]:
    """Zeros for launches that do not run."""
    cache = torch.zeros(1, 2, LONG, 9, dtype=torch.float16)
    query, lengths = torch.zeros(1, 2, 9, dtype=torch.float16), torch.tensor([LONG], dtype=torch.int32)
    return {"query": query, "key_cache": cache, "value_cache": cache, "lengths": lengths, "num_splits": 2}


LENGTHS: Factor = {
    "unequal lengths": {},
    "lengths of 1, 16, 17 and 33": {"lengths": (1, 16, 17, 33), "heads": (1, 1)},
    "whole tiles, full caches": {"lengths": (64, 64), "behind": 0, "heads": (1, 1)},
    "one key": {"lengths": (1,), "behind": 0},
    "one long sequence": {"lengths": (157,), "heads": (1, 1)},
}
WIDTHS: Factor = {
    "no power of two wide": {},
    "sixteen wide": {"width": 16},
    "eight wide": {"width": 8},
    "a hundred and thirty wide": {"width": 130},
}
SPLITS: Factor = {
    "two parts": {},
    "one part": {"splits": 1},
    "five parts, most without keys": {"splits": 5},
    "as many parts as there are by default": {"splits": None},
}
MANY: Factor = {"over sixty-four parts": {"splits": 67, "lengths": (300,), "heads": (1, 1)}}
HEADS: Factor = {
    "two heads": {},
    "six heads on two, three sequences": {"heads": (6, 2), "lengths": (17, 5, 3)},
    "sixty-four heads on one": {"heads": (64, 1), "lengths": (5,)},
}
SCORES: Factor = {
    "ordinary scores": {},
    "huge scores": {"size": 300.0},
    "scores that rise steeply": {"rise": 8.0, "lengths": (40,), "heads": (1, 1)},
    "equal scores": {"size": 0.0},
    "scores of -2,000,000": {"alike": -(2.0**23)},
}
BEHIND: Factor = {"numbers behind the sequences": {"garbage": 1e3}, "nan behind the sequences": {}}
TERM = "over 200 terms in float16, which cancel"
TERMS: Factor = {
    "ordinary terms": {},
    TERM: {"lengths": (300,), "heads": (1, 1), "size": 0.05, "cancelling": 1000.0, "dtype": torch.float16},
}
KNOWN = {
    **NAMES,
    ("behind", ""): ("reads behind the end of a sequence", "Are keys beyond the length masked when loaded? 0 * nan is nan."),
    ("splits", ""): ("the number of splits changes the result", "What does a part without keys leave behind?"),
    ("lengths", ""): ("fails at some lengths", "Is there a mask for the tail, wherever there is one?"),
    ("page", ""): ("fails at some page sizes", "Is every slot of a page visited, and none besides?"),
}  # fmt: skip
"""Names of what goes wrong at one level alone."""

LENGTH_SLIPS: Slips = {
    "Sequence b has lengths[b] keys. Does the program load its length?": {
        "length ignored": {"length": lambda lengths, S_max: torch.full_like(lengths, S_max)},
    },
    "Keys 0..length-1 take part: is it < length?": {"one key too few": {"length": lambda lengths, S_max: lengths - 1}},
    "Keys 0..length-1 take part: is it < length, not <=?": {"one key too many": {"length": lambda lengths, S_max: lengths + 1}},
    "Is the length loaded from lengths + sequence?": {
        "the first sequence's length for all": {"length": lambda lengths, S_max: lengths[:1].expand_as(lengths)},
    },
}  # fmt: skip


def _shares() -> tuple[Callable[[Tensor, int, int], Tensor], ...]:
    """How students cut a sequence: by its length or the cache's, evenly or in whole tiles."""

    def by(own: bool, tile: int) -> Callable[[Tensor, int, int], Tensor]:
        def share(lengths: Tensor, S_max: int, num_splits: int) -> Tensor:
            whole = lengths.long() if own else torch.full_like(lengths, S_max, dtype=torch.long)
            even = -(-whole // num_splits)
            return -(-even // tile) * tile

        return share

    return tuple(by(own, tile) for own in (True, False) for tile in (1, 16, 32, 64))


def _by_shares(together: Callable[[Tensor, Tensor], Tensor]) -> list[Step]:
    return [{"together": together, "shares": share} for share in _shares()]


TOGETHER = (
    "Each part's output counts by exp(its log-sum-exp - the largest one), and these weights add up to 1."
)
BASE = "Are they in bits (exp2, log2) in both kernels, or in natural units in both?"
TOGETHER_SLIPS: Slips = {
    TOGETHER: {
        "parts averaged without weights": _by_shares(lambda parts, sizes: parts.mean(0)),
        "parts added up without weights": _by_shares(lambda parts, sizes: parts.sum(0)),
        "only the first part counts": _by_shares(lambda parts, sizes: parts[0]),
        "weights of the parts do not add up to 1":
            _by_shares(lambda parts, sizes: (parts * (sizes - sizes.amax(0)).exp().unsqueeze(-1)).sum(0)),
    },
    BASE: {
        "log-sum-exps of the parts in the wrong base":
            _by_shares(lambda parts, sizes: (parts * torch.softmax(sizes * 1.4426950408889634, 0).unsqueeze(-1)).sum(0)),
        "log-sum-exps of the parts multiplied by ln 2":
            _by_shares(lambda parts, sizes: (parts * torch.softmax(sizes * 0.6931471805599453, 0).unsqueeze(-1)).sum(0)),
    },
}  # fmt: skip

ONE = tuple(LENGTHS)[1:]
FAR = ("expanded", "far apart in memory")
MEET = (("lengths", "splits"),)

DECODE_ATTENTION = Exercise(
    name="decode_attention",
    assignment="gpu_kernels",
    target=Target("decode_attention", OUTPUTS, decode),
    positional=("query", "key_cache", "value_cache", "lengths"),
    kernels=True,
    situations=Situations(
        draw=decode_inputs,
        factors={"dtype": HALF_AND_SINGLE, "behind": BEHIND, "lengths": LENGTHS, "width": WIDTHS, "splits": {**SPLITS, **MANY},
                 "heads": HEADS, "scores": SCORES, "terms": TERMS},
        axes={"query": "... H D", "key_cache": "... K S D", "value_cache": "... K S D", "lengths": "..."},
        lengths=("...",),
        groups=groups(
            "each sequence's query attends to that sequence's keys", 2.0,
            (sizes(0.75, "behind"),
             Group("any number of splits", "gives the same result, also if some hold no key", 0.5, ("splits",)),
             heads(0.5), dtypes(0.5), calls(0.5)),
            scores=0.5,
        ),
        left_out=LEFT_OUT,
        meet=MEET,
        never=(
            {"lengths": ONE, "heads": tuple(HEADS)[1:]},
            *({"lengths": ONE, name: level}
              for name, level in (("scores", "scores that rise steeply"), ("layout", FAR), ("terms", TERM))),
            {"heads": tuple(HEADS)[1:], "scores": "scores that rise steeply"},
            {"layout": FAR, "heads": ("two heads", "sixty-four heads on one")},
            {"layout": FAR, "scores": "scores that rise steeply"},
            *({"splits": tuple(MANY), name: tuple(of)[1:]}
              for name, of in (("lengths", LENGTHS), ("heads", HEADS), ("scores", SCORES), ("terms", TERMS))),
            {"terms": TERM, "heads": tuple(HEADS)[1:]},
            {"splits": "five parts, most without keys", "heads": tuple(HEADS)[1:]},
        ),
        kernels=True,
        names=KNOWN,
    ),
    recipes=(
        Recipe("plain", decode_inputs),
        Recipe("six heads on two", partial(decode_inputs, heads=(6, 2), lengths=(19, 17))),
        Recipe("many tiles", partial(decode_inputs, heads=(1, 1), lengths=(150,), splits=2)),
        Recipe("bfloat16", partial(decode_inputs, dtype=torch.bfloat16)),
        Recipe(GPU, partial(decode_inputs, heads=(4, 2), width=8, dtype=torch.float16, lengths=(7,))),
        Recipe("70,000 keys", lambda draw: long_inputs()),
    ),
    checks=(
        own_kernel("plain"),
        Check("programs", "more parts of a sequence are more programs", 0.25, ("plain",), parts_are_programs(), (FORMULA, OWN)),
        refuses_bfloat16(),
        tiles("many tiles", *OUTPUTS),
        *conduct(
            "plain", "six heads on two", long=("70,000 keys",),
            shorter=shortened({"key_cache": 2, "value_cache": 2}, lengths=FEW),
        ),
    ),
    diagnoses={"": (ignores_garbage(),)},
    mistakes=(
        *slips(decoded, LENGTH_SLIPS, SCALE_SLIPS, HEAD_SLIPS, without=("log2(e) without exp2",)),
        *slips(decoded, TOGETHER_SLIPS),
    ),
    hints=(
        "One query has too little work to fill a GPU; its cache has plenty. Which range of keys does the program of "
        "split s of sequence b read, and what must it leave behind, besides its output, so that a second kernel can "
        "put the parts together?",
        "Keys of a part: share = cdiv(cdiv(length, num_splits), N) * N; from split * share to the smaller of (split "
        "+ 1) * share and the length. Store the part's output, already divided by its sum, and its log-sum-exp, "
        "which is -inf for a part without keys (and its output 0, not 0 / 0).",
        "Second kernel, one program a query head: `sizes = tl.load(..., other=-inf)`; `shares = tl.exp2(sizes - "
        "tl.max(sizes, 0))`; `output = tl.sum(parts * shares[:, None], 0) / tl.sum(shares, 0)`. In the first, the "
        "query heads of a group are the rows of one tile, padded to 16: then the cache is read once for all of them.",
    ),
)  # fmt: skip
