"""Exercise `block_sparse_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.tiling import dead_blocks, tiled
from autograder.exercises.basic_attention.variants import attend
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
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.shared_attention.variants import chosen
from autograder.oracle.tiles import block_sparse_attention, pairs_of_blocks

__all__ = ["BLOCK_SPARSE_ATTENTION"]

OUTPUTS = ("output",)
DEAD = "dead rows"
COST = "sparse cost"
SHORT = "short last blocks"
SQUARE = "as many blocks of queries as of keys"


def _inputs(
    draw: Draw,
    *,
    block_size: int = 2,
    blocks: tuple[int, int] = (4, 5),
    short: tuple[int, int] = (0, 0),
    dead: bool = False,
    last: bool = False,
    share: float = 0.0,
    **options: Any,
) -> dict[str, Any]:
    """`blocks` blocks of queries and keys, the last ones shorter by `short`; one dead row of blocks, if asked for.

    last: that row is the last one.

    share: about so many of the blocks are allowed, six in ten if it is 0.
    """
    S_q, S_k = (count * block_size - less for count, less in zip(blocks, short, strict=True))
    mask = draw.mask(*blocks)
    if share:
        mask = draw.uniform(*blocks) < share
        mask[:, 0] |= ~mask.any(-1)
    # Neither a mask that is its own mirror image nor one whose last block is never used shows a mistake.
    mask[-1, -1] = True
    mask[0, -1] = not bool(mask[-1, 0])
    mask[0, 0] |= ~mask[0].any()
    if dead:
        mask[-1 if last else draw.integer(1, blocks[0] - 2)] = False
    return triple(draw, S_q=S_q, S_k=S_k, **options) | {"block_mask": mask, "block_size": block_size}


def _wrong_mask(draw: Draw, *, turned: bool = False, more: int | None = None) -> dict[str, Any]:
    """A mask the other way round, one with an entry for each pair of positions, or with one entry more along an axis."""
    inputs = _inputs(draw)
    mask = inputs["block_mask"]
    if more is not None:
        return inputs | {"block_mask": torch.cat([mask, mask.narrow(more, 0, 1)], more)}
    other = mask.mT.contiguous() if turned else mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
    return inputs | {"block_mask": other}


def _long(draw: Draw) -> dict[str, Any]:
    """About 450 positions in blocks of 16, one block in ten allowed."""
    options: dict[str, Any] = {
        "axes": 0,
        "block_size": 16,
        "blocks": (27, 29),
        "short": (5, 3),
        "share": 0.08,
    }
    return _inputs(draw, widths=6, **options)


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


def _table(inputs: Mapping[str, Any]) -> int:
    return leading(inputs) * inputs["query"].shape[-2] * inputs["key"].shape[-2]


def _flops(inputs: Mapping[str, Any]) -> int:
    pairs = int(inputs["block_mask"].sum()) * inputs["block_size"] ** 2
    return 2 * leading(inputs) * pairs * (inputs["query"].shape[-1] + inputs["value"].shape[-1])


Spread = Callable[[Tensor, int, int, int], Tensor]
"""block_mask, block_size, S_q, S_k -> the pairs that see each other, (S_q, S_k) bool."""


def _variant(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_mask: Tensor,
    block_size: int,
    *,
    spread: Spread = pairs_of_blocks,
    dead: Callable[[Tensor, Tensor], Tensor] | None = None,
    **knobs: Any,
) -> Mapping[str, Tensor]:
    """Block-sparse attention with knobs; the rest are those of `attend`. dead: value, output -> what dead rows get."""
    mask = spread(block_mask, block_size, query.shape[-2], key.shape[-2])
    output = attend(query, key, value, mask, **knobs)["output"]
    if dead is not None:
        output = torch.where(mask.any(-1, keepdim=True), output, dead(value, output))
    return {"output": output}


def _own_softmax(
    query: Tensor, key: Tensor, value: Tensor, block_mask: Tensor, block_size: int
) -> Mapping[str, Tensor]:
    """Every allowed block has a softmax of its own; their outputs are added up."""
    total = query.new_zeros(*query.shape[:-1], value.shape[-1])
    for column in range(block_mask.shape[1]):
        only = torch.zeros_like(block_mask)
        only[:, column] = block_mask[:, column]
        total = total + _variant(query, key, value, only, block_size)["output"]
    return {"output": total}


def _padded(
    query: Tensor, key: Tensor, value: Tensor, block_mask: Tensor, block_size: int
) -> Mapping[str, Tensor]:
    """The last block of keys is filled up with zeros, and they are seen."""
    missing = block_mask.shape[1] * block_size - key.shape[-2]
    key, value = (torch.nn.functional.pad(x, (0, 0, 0, missing)) for x in (key, value))
    return _variant(query, key, value, block_mask, block_size)


def _strewn(mask: Tensor, size: int, S_q: int, S_k: int) -> Tensor:
    """Block numbers taken modulo, as .repeat() lays them out."""
    return mask[torch.arange(S_q) % mask.shape[0]][:, torch.arange(S_k) % mask.shape[1]]


def _whole_blocks(mask: Tensor, size: int, S_q: int, S_k: int) -> Tensor:
    pairs = pairs_of_blocks(mask, size, S_q, S_k)
    pairs[:, S_k // size * size :] = False
    return pairs


def _turned(mask: Tensor, size: int, S_q: int, S_k: int) -> Tensor:
    return pairs_of_blocks(mask.mT, size, S_q, S_k)


def _causal_inside(mask: Tensor, size: int, S_q: int, S_k: int) -> Tensor:
    return pairs_of_blocks(mask, size, S_q, S_k).tril()


def _mistakes() -> tuple[Mistake, ...]:
    rows: tuple[tuple[str, str, dict[str, Any]], ...] = (
        (
            "mask ignored",
            "Is block_mask used at all?",
            {"spread": lambda m, b, q, k: torch.ones(q, k, dtype=torch.bool)},
        ),
        (
            "mask turned round",
            "True means allowed. Is it the True blocks that are left out?",
            {"spread": lambda m, b, q, k: pairs_of_blocks(~m, b, q, k)},
        ),
        (
            "rows and columns of the mask exchanged",
            "block_mask[i, j] is for query block i and key block j. Which of the two is taken first?",
            {"spread": _turned},
        ),
        (
            "mask repeated instead of stretched",
            "Position i lies in block i // block_size, not i % blocks. Is it repeat_interleave?",
            {"spread": _strewn},
        ),
        (
            "last, shorter block left out",
            "The last block of keys may be shorter than the others. Is it read?",
            {"spread": _whole_blocks},
        ),
        (
            "mask of the first row used for all",
            "Each block of queries has a row of block_mask to itself.",
            {"spread": lambda m, b, q, k: pairs_of_blocks(m[:1].expand_as(m), b, q, k)},
        ),
        (
            "causal where nobody asked for it",
            "Inside an allowed block every query sees every key.",
            {"spread": _causal_inside},
        ),
        (
            "nan where no key is allowed",
            "A row of blocks may be all False. What is the softmax of nothing?",
            {"dead": lambda value, output: torch.full_like(output, torch.nan)},
        ),
        (
            "mean of the values where no key is allowed",
            "A query that may see no key has an output of exactly 0. Was its mask a low number, the same for all keys?",
            {"dead": lambda value, output: value.mean(-2, keepdim=True).expand_as(output)},
        ),
        (
            "unwritten numbers where no key is allowed",
            "A query that may see no key has an output of exactly 0. What was in the buffer before?",
            {"dead": lambda value, output: torch.ones_like(output)},
        ),
    )
    slips = chosen(
        "not scaled",
        "divided by D",
        "softmax over the queries",
        "mask applied after the softmax",
        "masked scores set to zero",
        "equal weights for all keys",
    )
    return (
        *(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in rows),
        *(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in slips),
        Mistake(
            "a softmax for each block",
            "The weights of all allowed blocks of a row sum to one together. Is each block divided by a sum of its own?",
            _own_softmax,
        ),
        Mistake(
            "tail of the last block not masked",
            "The last block of keys may be shorter. A key of zero behind its end has score 0, not -inf.",
            _padded,
        ),
    )


BLOCK_SPARSE_ATTENTION = Exercise(
    name="block_sparse_attention",
    assignment="efficient_attention",
    target=Target("block_sparse_attention", OUTPUTS, block_sparse_attention),
    positional=(*TRIPLE, "block_mask", "block_size"),
    recipes=(
        _recipe("unequal sizes"),
        _recipe(SQUARE, blocks=(5, 5)),
        _recipe("large scores", size=4.0, blocks=(5, 4)),
        _recipe("blocks of one", block_size=1, blocks=(7, 6)),
        _recipe("shorter last blocks", block_size=3, short=(1, 2), zero=True),
        _recipe("shorter last block of queries", block_size=4, short=(3, 0)),
        _recipe("a row of blocks without keys", dead=True, block_size=3),
        _recipe("two leading axes", axes=2),
        _recipe("huge scores", size=1e3),
        Recipe(DEEP, lambda draw: deep(draw, _inputs(draw, block_size=3, short=(1, 2)))),
        _recipe("small, float64", axes=0, dtype=torch.float64),
        _recipe("float64", dtype=torch.float64),
        _recipe("bfloat16", dtype=torch.bfloat16),
        _recipe("float16", dtype=torch.float16),
        Recipe("a mask the wrong way round", partial(_wrong_mask, turned=True)),
        Recipe("a mask of positions", partial(_wrong_mask, turned=False)),
        Recipe("a long sequence", _long),
        _recipe("the last blocks without keys", dead=True, last=True, block_size=3, short=(1, 2)),
        _recipe("blocks without keys, bfloat16", dead=True, block_size=3, dtype=torch.bfloat16),
        Recipe("a mask with a row too many", partial(_wrong_mask, more=0)),
        Recipe("a mask with a column too many", partial(_wrong_mask, more=1)),
    ),
    checks=(
        counts(OUTPUTS, SQUARE),
        Check(
            FORMULA,
            "attention to the keys of the allowed blocks",
            1.5,
            (SQUARE, "unequal sizes", "blocks of one", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            SHORT,
            "the last blocks may be shorter",
            0.75,
            ("shorter last blocks", "shorter last block of queries"),
            agrees("output"),
            FORMULA,
        ),
        Check(
            DEAD,
            "queries that may see no key have an output of 0",
            0.75,
            ("a row of blocks without keys", "the last blocks without keys", "blocks without keys, bfloat16"),
            dead_blocks(TRIPLE),
            (FORMULA, SHORT),
        ),
        Check(
            "masks that do not fit",
            "are refused with a ValueError",
            0.25,
            (
                "a mask the wrong way round",
                "a mask of positions",
                "a mask with a row too many",
                "a mask with a column too many",
            ),
            raises_value_error("the shape of block_mask is not checked"),
            FORMULA,
        ),
        Check(
            COST,
            "no work for forbidden blocks, and no table of all pairs",
            3.5,
            ("a long sequence",),
            tiled(lambda inputs: _table(inputs) - 1, _flops, _table, OUTPUTS, _table),
            (FORMULA, SHORT),
        ),
        *behaviour((FORMULA, COST), OUTPUTS),
    ),
    mistakes=_mistakes(),
    hints=(
        "Take one block of queries. Which keys can it need, and how many are that?",
        (
            "block_mask[i] says which blocks of keys the i-th block of queries sees. Gather the keys and values of just "
            "these, and do ordinary attention on what you have gathered. What if it is nothing?"
        ),
        (
            "`block_of_key = torch.arange(S_k) // block_size`; for each block of queries i: `seen = "
            "block_mask[i][block_of_key]`, `keys = key[..., seen, :]`, scores, softmax, times `value[..., seen, :]`; join with "
            "torch.cat. With no key, (n, 0) @ (0, D_v) is zero by itself."
        ),
    ),
)
