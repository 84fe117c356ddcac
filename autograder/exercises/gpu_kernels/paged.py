"""Exercise `paged_attention`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from autograder.case import Draw, Recipe
from autograder.checks import Target
from autograder.checks.fused import ignores_garbage
from autograder.exercises.exercise import Exercise
from autograder.exercises.gpu_kernels.conduct import (
    GPU,
    HALF_AND_SINGLE,
    LEFT_OUT,
    LONG,
    calls,
    conduct,
    dtypes,
    heads,
    own_kernel,
    refuses_bfloat16,
    shortened,
    sizes,
)
from autograder.exercises.gpu_kernels.decode import (
    BEHIND,
    FAR,
    FEW,
    HEADS,
    KNOWN,
    LENGTH_SLIPS,
    OUTPUTS,
    SCORES,
    TERM,
    TERMS,
    WIDTHS,
    decode_inputs,
)
from autograder.exercises.gpu_kernels.tiles import HEAD_SLIPS, SCALE_SLIPS, paged
from autograder.mistakes import Slips, slips
from autograder.oracle.kernels import paged_decode
from autograder.situations import Factor, Group, Situations, groups

__all__ = ["PAGED_ATTENTION"]


def paged_inputs(draw: Draw, *, page_size: int = 5, more: int = 0, **options: Any) -> dict[str, Any]:
    """The sequences of decode_inputs in pages, which lie anywhere in the pool; garbage fills unused slots and pages.

    Entries of the table that a sequence does not need name a page that nobody uses; with `more` of them in every row, one that
    is not there.
    """
    garbage = options.get("garbage", torch.nan)
    whole = decode_inputs(draw, splits=None, **options)
    lengths = whole["lengths"]
    B, H_kv, _, D = whole["key_cache"].shape
    needed = -(-lengths // page_size)
    order = draw.permutation(int(needed.sum()) + 2)
    unused = len(order) + 3 if more else int(order[-1])
    table = torch.full((B, int(needed.max()) + more), unused, dtype=torch.int32)
    pools = [
        torch.full((len(order), page_size, H_kv, D), garbage, dtype=whole["query"].dtype) for _ in range(2)
    ]
    used = 0
    for b in range(B):
        pages = order[used : used + int(needed[b])]
        used += len(pages)
        table[b, : len(pages)] = pages.to(torch.int32)
        places = torch.arange(int(lengths[b]))
        for pool, name in zip(pools, ("key_cache", "value_cache"), strict=True):
            pool[pages[places // page_size], places % page_size] = whole[name][b, :, : len(places)].transpose(
                0, 1
            )
    return {
        "query": whole["query"],
        "key_pages": pools[0],
        "value_pages": pools[1],
        "block_table": table,
        "lengths": lengths,
    }


def long_inputs() -> dict[str, Any]:
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


PAGES: Factor = {
    "pages of five": {},
    "a longer table than is needed": {"more": 2},
    "pages of one": {"page_size": 1},
    "pages of sixteen": {"page_size": 16, "lengths": (16, 32, 1, 35), "heads": (1, 1)},
    "full pages": {"page_size": 4, "lengths": (8, 4)},
    "pages of seventeen": {"page_size": 17, "lengths": (16, 35)},
    "pages of three hundred": {"page_size": 300, "lengths": (310,), "heads": (1, 1)},
}
LENGTHS: Factor = {
    "unequal lengths": {},
    "one key": {"lengths": (1,)},
    "many pages": {"lengths": (71, 3), "heads": (1, 1)},
}
OWN_PAGES = tuple(PAGES)[3:]

TABLE = (
    "Key i lies in page block_table[b, i // page_size]. Is the entry loaded, from the row of the sequence?"
)
TABLE_SLIPS: Slips = {
    TABLE: {
        "block table off by one": {"table": lambda table, pages: torch.roll(table, -1, -1)},
        "next page instead of the one in the table": {"table": lambda table, pages: table + 1},
        "block table ignored": {"table": lambda table, pages: torch.arange(table.shape[1]).expand_as(table)},
        "the first sequence's pages for all": {"table": lambda table, pages: table[:1].expand_as(table)},
        "only the first page is read": {"table": lambda table, pages: table[:, :1].expand_as(table)},
    },
    "The last page of a sequence is seldom full. Are slots behind the length masked?": {
        "the last page is read to its end": {"length": lambda lengths, page_size: -(-lengths // page_size) * page_size},
    },
    "A page that is not full counts, too: is it cdiv(length, page_size)?": {
        "the last page is left out": {"length": lambda lengths, page_size: (lengths // page_size * page_size).clamp_min(1)},
    },
}  # fmt: skip

PAGED_ATTENTION = Exercise(
    name="paged_attention",
    assignment="gpu_kernels",
    target=Target("paged_attention", OUTPUTS, paged_decode),
    positional=("query", "key_pages", "value_pages", "block_table", "lengths"),
    kernels=True,
    situations=Situations(
        draw=paged_inputs,
        factors={"dtype": HALF_AND_SINGLE, "behind": BEHIND, "lengths": LENGTHS, "page": PAGES, "width": WIDTHS, "heads": HEADS,
                 "scores": SCORES, "terms": TERMS},
        axes={"query": "... H D", "block_table": "... P", "lengths": "..."},
        lengths=("...",),
        groups=groups(
            "each sequence's query attends to the keys in that sequence's pages", 2.0,
            (sizes(0.5, "behind"), Group("pages", "of any size, full or not, in any order, in a longer table", 0.75, ("page",)),
             heads(0.5), dtypes(0.5), calls(0.5)),
            scores=0.5,
        ),
        left_out=LEFT_OUT,
        meet=(("page", "behind"),),
        never=(
            {"page": OWN_PAGES, "heads": tuple(HEADS)[1:]},
            *({"page": OWN_PAGES, name: level}
              for name, level in (("scores", "scores that rise steeply"), ("layout", FAR), ("terms", TERM),
                                  ("lengths", tuple(LENGTHS)[1:]))),
            *({"lengths": tuple(LENGTHS)[1:], name: level}
              for name, level in (("heads", tuple(HEADS)[1:]), ("scores", "scores that rise steeply"), ("layout", FAR),
                                  ("terms", TERM))),
            {"heads": tuple(HEADS)[1:], "scores": "scores that rise steeply"},
            {"layout": FAR, "heads": ("two heads", "sixty-four heads on one")},
            {"layout": FAR, "scores": "scores that rise steeply"},
            {"terms": TERM, "heads": tuple(HEADS)[1:]},
            {"terms": TERM, "page": tuple(PAGES)[1:]},
            # What an earlier call is given are these numbers in another order.
            {"page": "a longer table than is needed", "state": ("in tensors used before", "with an earlier result")},
        ),
        kernels=True,
        names=KNOWN,
    ),
    recipes=(
        Recipe("plain", paged_inputs),
        Recipe("six heads on two", partial(paged_inputs, heads=(6, 2), lengths=(3, 9))),
        Recipe("bfloat16", partial(paged_inputs, dtype=torch.bfloat16)),
        Recipe(GPU, partial(paged_inputs, heads=(4, 2), width=8, page_size=8, dtype=torch.float16, lengths=(11,))),
        Recipe("70,000 keys", lambda draw: long_inputs()),
    ),
    checks=(
        own_kernel("plain"),
        refuses_bfloat16(),
        *conduct(
            "plain", "six heads on two", long=("70,000 keys",),
            shorter=shortened({"block_table": 1, "key_pages": 0, "value_pages": 0}, lengths=FEW),
        ),
    ),
    diagnoses={"": (ignores_garbage(),)},
    mistakes=slips(
        paged, TABLE_SLIPS, LENGTH_SLIPS, SCALE_SLIPS, HEAD_SLIPS, without=("length ignored", "log2(e) without exp2"),
    ),
    hints=(
        "It is decode_attention with one more step: before a tile of keys is loaded, the program must look up where "
        "it lies. What is the natural width of a tile here?",
        "One page is one tile: `for start in range(0, length, page_size)`, `page = tl.load(block_table + sequence * "
        "max_pages + start // page_size)`, and the keys' address is key_pages + page * k_page + kv_head * k_head + "
        "slot * k_row + d * k_column. A tile of N = next power of two (and at least 16) slots is masked with `(slot "
        "< page_size) & (start + slot < length)`.",
        "The same mask goes to both loads (other=0) and to the scores (-inf). Then the step of online softmax as "
        "before, with the query heads of the group as rows. One program a (sequence, key head) is enough: "
        "`paged_kernel[(B, H_kv)](...)`.",
    ),
)  # fmt: skip
