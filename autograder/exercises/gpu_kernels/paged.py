"""Exercise `paged_attention`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.fused import agrees_here
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.gpu_kernels.conduct import (
    COUNTS,
    FORMULA,
    GPU,
    LONG,
    OWN,
    conduct,
    own_kernel,
    shortened,
)
from autograder.exercises.gpu_kernels.decode import (
    DIFFERS,
    FEW,
    LENGTH_SLIPS,
    OUTPUTS,
    common_checks,
    decode_inputs,
)
from autograder.exercises.gpu_kernels.tiles import COLUMN_SLIPS, SCALE_SLIPS, Slip, paged
from autograder.oracle.kernels import paged_decode

__all__ = ["PAGED_ATTENTION"]


def _inputs(draw: Draw, *, page_size: int = 5, **options: Any) -> dict[str, Any]:
    """The sequences of decode_inputs in pages, which lie anywhere in the pool; `garbage` fills unused slots and pages.

    Entries of the table that a sequence does not need name a page that nobody uses or, with garbage, one that is not there.
    """
    garbage = options.get("garbage")
    whole = decode_inputs(draw, splits=None, **options)
    lengths = whole["lengths"]
    B, H_kv, _, D = whole["key_cache"].shape
    needed = -(-lengths // page_size)
    spare, most = 2, int(needed.max()) + (garbage is not None)
    order = draw.permutation(int(needed.sum()) + spare)
    unused = int(order[-1]) if garbage is None else len(order) + 3
    table = torch.full((B, most), unused, dtype=torch.int32)
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


def _long() -> dict[str, Any]:
    """Zeros for launches that do not run."""
    pages, table = (
        torch.zeros(LONG // 8, 8, 2, 9, dtype=torch.float16),
        torch.arange(LONG // 8, dtype=torch.int32),
    )
    query, lengths = torch.zeros(1, 2, 9, dtype=torch.float16), torch.tensor([LONG], dtype=torch.int32)
    return {
        "query": query,
        "key_pages": pages,
        "value_pages": pages,
        "block_table": table.unsqueeze(0),
        "lengths": lengths,
    }


def _uniform(draw: Draw) -> dict[str, Any]:
    inputs = _inputs(draw, page_size=16, heads=(1, 1), lengths=lambda draw: [300], size=0.05)
    pages = inputs["block_table"][0].long()
    inputs["value_pages"][pages[:9]] += 1000.0
    inputs["value_pages"][pages[9:]] -= 1000.0
    return {n: v.half() if v.is_floating_point() else v for n, v in inputs.items()}


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal lengths"),
    _recipe("six heads on two", heads=(6, 2), lengths=lambda draw: [3, 9]),
    _recipe("full pages", heads=(1, 1), page_size=4, lengths=lambda draw: [8, 4]),
    _recipe("pages of one", heads=(1, 1), page_size=1, lengths=lambda draw: [1, 5]),
    _recipe("pages of 17", heads=(1, 1), page_size=17, width=130, lengths=lambda draw: [16, 35]),
    _recipe("nan behind the sequences", garbage=float("nan"), lengths=lambda draw: [5, 13]),
    _recipe("huge scores", heads=(1, 1), size=300.0, page_size=8, lengths=lambda draw: [30]),
    _recipe("scores that rise steeply", heads=(1, 1), rise=8.0, page_size=8, lengths=lambda draw: [30]),
    _recipe("float16", dtype=torch.float16, heads=(1, 1)),
    Recipe("300 keys, float16", _uniform),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("eight wide", heads=(4, 2), width=8, page_size=8, lengths=lambda draw: [11, 5]),
    _recipe(GPU, heads=(4, 2), width=8, page_size=8, dtype=torch.float16, lengths=lambda draw: [11]),
    _recipe("twenty heads on one", heads=(20, 1), lengths=lambda draw: [6]),
    _recipe("pages of 130", heads=(1, 1), page_size=130, lengths=lambda draw: [140]),
    Recipe("70,000 keys", lambda draw: _long()),
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
    recipes=RECIPES,
    kernels=True,
    checks=(
        Check(
            COUNTS,
            "the output changes when the query or a pool does",
            0.25,
            ("unequal lengths",),
            responds(dict.fromkeys(("query", "key_pages", "value_pages"), OUTPUTS)),
        ),
        own_kernel("unequal lengths", "eight wide"),
        Check(
            FORMULA,
            "each sequence's query attends to the keys in that sequence's pages",
            1.5,
            ("unequal lengths",),
            agrees(*OUTPUTS),
            OWN,
        ),
        Check(
            "pages",
            "full ones, pages of one key, of 17, of 130, more pages than one",
            0.75,
            ("full pages", "pages of one", "pages of 17", "pages of 130"),
            agrees_here(f"with such pages {DIFFERS}", *OUTPUTS, mistake="fails at some page sizes"),
            FORMULA,
        ),
        *common_checks(),
        *conduct(
            (FORMULA,),
            OUTPUTS,
            "eight wide",
            tiles="six heads on two",
            long=("70,000 keys",),
            shorter=shortened({"block_table": 1, "key_pages": 0, "value_pages": 0}, lengths=FEW),
            kept=("lengths", "block_table"),
        ),
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
