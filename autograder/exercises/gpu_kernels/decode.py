"""Exercises `decode_attention` and `paged_attention`."""

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
from autograder.exercises.gpu_kernels.conduct import COUNTS, FORMULA, GPU, conduct, refuses_bfloat16
from autograder.exercises.gpu_kernels.tiles import COLUMN_SLIPS, SCALE_SLIPS, Slip, decoded, paged
from autograder.oracle.kernels import decode, paged_decode

__all__ = ["DECODE_ATTENTION", "PAGED_ATTENTION"]

OUTPUTS = ("output",)
DIFFERS = "it differs from the formula"


def _inputs(
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
    return Recipe(label, partial(_inputs, **options))


def _uniform(draw: Draw) -> dict[str, Any]:
    """300 keys of nearly equal weight, and values that add up to 150,000 on the way, too much for float16, and then cancel."""
    inputs = _inputs(draw, heads=(1, 1), lengths=lambda draw: [300], splits=1, size=0.05)
    inputs["value_cache"][:, :, :150] += 1000.0
    inputs["value_cache"][:, :, 150:] -= 1000.0
    return {n: v.half() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in inputs.items()}


def _one_long(draw: Draw) -> list[int]:
    return [draw.integer(150, 170)]


RECIPES = (
    _recipe("unequal lengths"),
    _recipe("six heads on two", heads=(6, 2), lengths=lambda draw: [19], splits=2),
    _recipe("one long sequence", heads=(1, 1), lengths=_one_long, splits=3),
    _recipe("lengths of 1, 16, 17 and 33", heads=(1, 1), lengths=lambda draw: [1, 16, 17, 33], behind=1),
    _recipe("nan behind the sequences", garbage=float("nan"), lengths=lambda draw: [5, 18]),
    _recipe("more splits than tiles", heads=(1, 1), lengths=lambda draw: [3, 20], splits=5),
    _recipe("huge scores", heads=(1, 1), size=300.0, lengths=lambda draw: [40], splits=3),
    _recipe("scores that rise steeply", heads=(1, 1), rise=8.0, lengths=lambda draw: [40], splits=3),
    _recipe("float16", dtype=torch.float16, heads=(1, 1)),
    Recipe("300 keys, float16", _uniform),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("eight wide", heads=(4, 2), width=8, lengths=lambda draw: [7]),
    _recipe(GPU, heads=(4, 2), width=8, dtype=torch.float16, lengths=lambda draw: [7]),
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


def _common(outputs: tuple[str, ...] = OUTPUTS) -> tuple[Check, ...]:
    return (
        Check(
            "heads",
            "query head h reads key and value head h // group",
            0.5,
            ("six heads on two",),
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
        Check(
            FORMULA,
            "each sequence's query attends to that sequence's keys",
            1.5,
            ("unequal lengths", "one long sequence"),
            agrees(*OUTPUTS),
            COUNTS,
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
            "gives the same result, also if some hold no key",
            0.75,
            ("more splits than tiles",),
            any_splits(1, 2, 5, 8),
            FORMULA,
        ),
        *_common(),
        *conduct((FORMULA,), OUTPUTS, "eight wide", kept=("lengths",)),
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


def _paged(draw: Draw, *, page_size: int = 5, **options: Any) -> dict[str, Any]:
    """The same sequences in pages, which lie anywhere in the pool; unused slots and pages hold `garbage`, here nan at times.

    Entries of the table that a sequence does not need name a page that nobody uses.
    """
    garbage = options.get("garbage")
    whole = _inputs(draw, splits=None, **options)
    lengths = whole["lengths"]
    B, H_kv, _, D = whole["key_cache"].shape
    needed = -(-lengths // page_size)
    spare, most = 2, int(needed.max()) + 1
    order = draw.permutation(int(needed.sum()) + spare)
    table = torch.full((B, most), int(order[-1]), dtype=torch.int32)
    pools = []
    for _ in ("key_cache", "value_cache"):
        pool = draw.normal(len(order), page_size, H_kv, D, dtype=torch.float64)
        pools.append(pool if garbage is None else torch.full_like(pool, garbage))
    used = 0
    for b in range(B):
        pages = order[used : used + int(needed[b])]
        used += len(pages)
        table[b, : len(pages)] = pages.to(torch.int32)
        places = torch.arange(int(lengths[b]))
        for pool, name in zip(pools, ("key_cache", "value_cache"), strict=True):
            rows = whole[name][b, :, : len(places)].transpose(0, 1).double()
            pool[pages[places // page_size], places % page_size] = rows
    dtype = whole["query"].dtype
    return {
        "query": whole["query"],
        "key_pages": pools[0].to(dtype),
        "value_pages": pools[1].to(dtype),
        "block_table": table,
        "lengths": lengths,
    }


def _paged_uniform(draw: Draw) -> dict[str, Any]:
    inputs = _paged(draw, page_size=16, heads=(1, 1), lengths=lambda draw: [300], size=0.05)
    pages = inputs["block_table"][0].long()
    inputs["value_pages"][pages[:9]] += 1000.0
    inputs["value_pages"][pages[9:]] -= 1000.0
    return {n: v.half() if v.is_floating_point() else v for n, v in inputs.items()}


def _recipe_paged(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_paged, **options))


PAGED_RECIPES = (
    _recipe_paged("unequal lengths"),
    _recipe_paged("six heads on two", heads=(6, 2), lengths=lambda draw: [9]),
    _recipe_paged("full pages", heads=(1, 1), page_size=4, lengths=lambda draw: [8, 4]),
    _recipe_paged("pages of one", heads=(1, 1), page_size=1, lengths=lambda draw: [1, 5]),
    _recipe_paged("pages of 16 and of 17", heads=(1, 1), page_size=17, lengths=lambda draw: [16, 35]),
    _recipe_paged("nan behind the sequences", garbage=float("nan"), lengths=lambda draw: [5, 13]),
    _recipe_paged("huge scores", heads=(1, 1), size=300.0, page_size=8, lengths=lambda draw: [30]),
    _recipe_paged("scores that rise steeply", heads=(1, 1), rise=8.0, page_size=8, lengths=lambda draw: [30]),
    _recipe_paged("float16", dtype=torch.float16, heads=(1, 1)),
    Recipe("300 keys, float16", _paged_uniform),
    _recipe_paged("bfloat16", dtype=torch.bfloat16),
    _recipe_paged("eight wide", heads=(4, 2), width=8, page_size=8, lengths=lambda draw: [11]),
    _recipe_paged(GPU, heads=(4, 2), width=8, page_size=8, dtype=torch.float16, lengths=lambda draw: [11]),
)

_TABLE = (
    "Key i lies in page block_table[b, i // page_size]. Is the entry loaded, from the row of the sequence?"
)
TABLE_SLIPS: tuple[Slip, ...] = (
    ("block table off by one", _TABLE, {"table": lambda table, pages: torch.roll(table, -1, -1)}),
    ("next page instead of the one in the table", _TABLE, {"table": lambda table, pages: table + 1}),
    (
        "block table ignored",
        _TABLE,
        {"table": lambda table, pages: torch.arange(table.shape[1]).expand_as(table)},
    ),
    (
        "the first sequence's pages for all",
        _TABLE,
        {"table": lambda table, pages: table[:1].expand_as(table)},
    ),
    ("only the first page is read", _TABLE, {"table": lambda table, pages: table[:, :1].expand_as(table)}),
    (
        "the last page is read to its end",
        "The last page of a sequence is seldom full. Are slots behind the length masked?",
        {"length": lambda lengths, page_size: -(-lengths // page_size) * page_size},
    ),
    (
        "the last page is left out",
        "A page that is not full counts, too: is it cdiv(length, page_size)?",
        {"length": lambda lengths, page_size: (lengths // page_size * page_size).clamp_min(1)},
    ),
)


PAGED_ATTENTION = Exercise(
    name="paged_attention",
    assignment="gpu_kernels",
    target=Target("paged_attention", OUTPUTS, paged_decode),
    positional=("query", "key_pages", "value_pages", "block_table", "lengths"),
    recipes=PAGED_RECIPES,
    kernels=True,
    checks=(
        Check(
            COUNTS,
            "the output changes when the query or a pool does",
            0.25,
            ("unequal lengths",),
            responds(dict.fromkeys(("query", "key_pages", "value_pages"), OUTPUTS)),
        ),
        Check(
            FORMULA,
            "each sequence's query attends to the keys in that sequence's pages",
            1.5,
            ("unequal lengths",),
            agrees(*OUTPUTS),
            COUNTS,
        ),
        Check(
            "pages",
            "full ones, pages of one key, of 17, more pages than one",
            0.75,
            ("full pages", "pages of one", "pages of 16 and of 17"),
            agrees_here(f"with such pages {DIFFERS}", *OUTPUTS, mistake="fails at some page sizes"),
            FORMULA,
        ),
        *_common(),
        *conduct((FORMULA,), OUTPUTS, "eight wide", kept=("lengths", "block_table")),
    ),
    mistakes=tuple(
        Mistake(name, question, partial(paged, **knobs))
        for name, question, knobs in (
            *TABLE_SLIPS,
            *LENGTH_SLIPS[1:],
            *SCALE_SLIPS[:4],
            *COLUMN_SLIPS,
        )
    ),
    hints=(
        (
            "It is decode_attention with one more step: before a tile of keys is loaded, the program must look up "
            "where it lies. What is the natural width of a tile here?"
        ),
        (
            "One page is one tile: `for start in range(0, length, page_size)`, `page = tl.load(block_table + "
            "sequence * max_pages + start // page_size)`, and the keys' address is key_pages + page * k_page + "
            "kv_head * k_head + slot * k_row + d * k_column. A tile of N = next power of two (and at least 16) "
            "slots is masked with `(slot < page_size) & (start + slot < length)`."
        ),
        (
            "The same mask goes to both loads (other=0) and to the scores (-inf). Then the step of online softmax "
            "as before, with the query heads of the group as rows. One program a (sequence, key head) is enough: "
            "`paged_kernel[(B, H_kv)](...)`."
        ),
    ),
)
