"""Exercise `block_sparse_attention`."""

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
from autograder.checks.tiling import dead_blocks, far_from_zero, tiled
from autograder.exercises.efficient_attention.pieces import (
    NEVER,
    PIECE_AXES,
    SHAPES,
    TRIPLE,
    kinds_of_scores,
    leading,
    own_work,
)
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import attend, only
from autograder.oracle.tiles import block_sparse_attention, pairs_of_blocks
from autograder.situations import DTYPES, Factor, Group, Situations, drawn_by, groups, without

__all__ = ["BLOCK_SPARSE_ATTENTION"]

OUTPUTS = ("output",)
FORMULA = "agrees with the formula"
drawn = drawn_by(SHAPES, leading=1)


def draw(
    draw: Draw,
    *,
    blocks: tuple[int, int] = (3, 4),
    size: int = 3,
    short: tuple[int, int] = (0, 0),
    allowed: str = "some",
    share: float = 0.6,
    **options: Any,
) -> dict[str, Any]:
    """`blocks` blocks of queries and keys of `size`, the last ones shorter by `short`.

    allowed: "some" blocks, about that share of them; with a "dead" row, or the "last" one; "none"; or "all".
    """
    S_q, S_k = (max(1, count * size - less) for count, less in zip(blocks, short, strict=True))
    mask = draw.uniform(*blocks) < share
    # Neither a mask that is its own mirror image nor one whose last block is never used shows a mistake.
    mask[-1, -1] = True
    mask[0, -1] = not bool(mask[-1, 0])
    mask[torch.arange(blocks[0]), torch.arange(blocks[0]) % max(1, blocks[1] - 1)] |= ~mask.any(-1)
    if allowed in ("dead", "last"):
        mask[-1 if allowed == "last" else blocks[0] // 2] = False
    elif allowed in ("none", "all"):
        mask[:] = allowed == "all"
    return {**drawn(draw, S_q=S_q, S_k=S_k, **options), "block_mask": mask, "block_size": size}


BLOCKS: Factor = {
    "whole blocks": {},
    "shorter last blocks": {"short": (1, 2)},
    "blocks of one": {"size": 1, "blocks": (4, 5)},
    "a block larger than both": {"size": 9, "blocks": (1, 1), "short": (4, 2)},
}
LENGTHS: Factor = {
    "more blocks of keys": {},
    "more blocks of queries": {"blocks": (4, 3)},
    "one block of queries": {"blocks": (1, 4)},
    "one block of keys": {"blocks": (4, 1)},
    "all sizes equal": {"blocks": (3, 3), **dict.fromkeys(("D", "D_v"), "S_q")},
    "wide vectors": {"blocks": (2, 3), "D": [131, 137], "D_v": [137, 139]},
    "hundreds of keys": {"blocks": (1, 19), "size": 15, "short": (9, 7)},
    "hundreds of queries": {"blocks": (19, 2), "size": 15, "short": (9, 7)},
    "over two thousand keys": {"blocks": (2, 138), "size": 15, "short": (9, 7), "axes": 0, "share": 0.3},
    "over two thousand queries": {"blocks": (52, 2), "size": 40, "short": (9, 30), "axes": 0},
}
ALLOWED: Factor = {
    "some blocks allowed": {},
    "a row of blocks that allows none": {"allowed": "dead"},
    "a last row that allows none": {"allowed": "last"},
    "no block allowed": {"allowed": "none"},
    "every block allowed": {"allowed": "all"},
}


def _hidden_and_huge(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """The keys and values of a block that no query may see hold huge numbers."""
    mask, size = inputs["block_mask"].clone(), inputs["block_size"]
    if mask.shape[1] < 2:
        return inputs
    alone = mask[:, -1] & ~mask[:, :-1].any(-1)
    mask[:, -1], mask[:, 0] = False, mask[:, 0] | alone
    far = 1e3 if inputs["key"].dtype == torch.float16 else 1e4
    huge = {name: inputs[name].clone() for name in ("key", "value")}
    for tensor in huge.values():
        tensor[..., (mask.shape[1] - 1) * size :, :] *= far
    return {**inputs, **huge, "block_mask": mask}


SCORES: Factor = {
    **without(kinds_of_scores(), "huge numbers behind the mask"),
    "huge numbers in a hidden block": _hidden_and_huge,
}


def _wrong_mask(one: Draw, kind: str) -> dict[str, Any]:
    """A mask that has another shape than the blocks."""
    inputs = draw(one)
    mask = inputs["block_mask"]
    other = {
        "turned": lambda: mask.mT.contiguous(),
        "of positions": lambda: mask.repeat_interleave(3, 0).repeat_interleave(3, 1),
        "a row more": lambda: torch.cat([mask, mask[:1]]),
        "a column more": lambda: torch.cat([mask, mask[:, :1]], 1),
        "a row less": lambda: mask[1:],
        "a column less": lambda: mask[:, 1:],
        "a batch axis": lambda: mask.unsqueeze(0),
    }
    return {**inputs, "block_mask": other[kind]()}


KINDS = (
    "turned",
    "of positions",
    "a row more",
    "a column more",
    "a row less",
    "a column less",
    "a batch axis",
)


def _long(one: Draw) -> dict[str, Any]:
    """About 300 positions in blocks of 16, one block in ten allowed."""
    return draw(one, axes=0, size=16, blocks=(19, 21), short=(5, 3), share=0.08, D=4, D_v=5)


def _batch(one: Draw) -> dict[str, Any]:
    """About 180 positions in blocks of 16, one block in ten allowed, with two leading axes."""
    return draw(one, axes=2, size=16, blocks=(11, 12), short=(5, 3), share=0.08, D=4, D_v=5)


def _table(inputs: Mapping[str, Any]) -> int:
    return leading(inputs) * inputs["query"].shape[-2] * inputs["key"].shape[-2]


def _flops(inputs: Mapping[str, Any]) -> int:
    pairs = int(inputs["block_mask"].sum()) * inputs["block_size"] ** 2
    return 2 * leading(inputs) * pairs * (inputs["query"].shape[-1] + inputs["value"].shape[-1])


Spread = Callable[[Tensor, int, int, int], Tensor]
"""block_mask, block_size, S_q, S_k -> the pairs that see each other, (S_q, S_k) bool."""


def sparse(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_mask: Tensor,
    block_size: int,
    *,
    spread: Spread = pairs_of_blocks,
    dead: Callable[[Tensor, Tensor], Tensor] | None = None,
    **steps: Any,
) -> Tensor:
    """Block-sparse attention in steps; the rest are those of `attend`. dead: value, output -> what dead rows get."""
    mask = spread(block_mask, block_size, query.shape[-2], key.shape[-2])
    output = attend(query, key, value, mask, **steps)["output"]
    return output if dead is None else torch.where(mask.any(-1, keepdim=True), output, dead(value, output))


def _own_softmax(query: Tensor, key: Tensor, value: Tensor, block_mask: Tensor, block_size: int) -> Tensor:
    """Every allowed block has a softmax of its own; their outputs are added up."""
    total = query.new_zeros(*query.shape[:-1], value.shape[-1])
    for column in range(block_mask.shape[1]):
        alone = torch.zeros_like(block_mask)
        alone[:, column] = block_mask[:, column]
        total = total + sparse(query, key, value, alone, block_size)
    return total


def _padded(query: Tensor, key: Tensor, value: Tensor, block_mask: Tensor, block_size: int) -> Tensor:
    """The last block of keys is filled up with zeros, and they are seen."""
    missing = block_mask.shape[1] * block_size - key.shape[-2]
    key, value = (torch.nn.functional.pad(x, (0, 0, 0, missing)) for x in (key, value))
    return sparse(query, key, value, block_mask, block_size)


def _whole_blocks(mask: Tensor, size: int, S_q: int, S_k: int) -> Tensor:
    pairs = pairs_of_blocks(mask, size, S_q, S_k)
    pairs[:, S_k // size * size :] = False
    return pairs


SPARSE_SLIPS: Slips = {
    "Is block_mask used at all?": {"mask ignored": {"spread": lambda m, b, q, k: torch.ones(q, k, dtype=torch.bool)}},
    "True means allowed. Is it the True blocks that are left out?": {
        "mask turned round": {"spread": lambda m, b, q, k: pairs_of_blocks(~m, b, q, k)},
    },
    "block_mask[i, j] is for query block i and key block j. Which of the two is taken first?": {
        "rows and columns of the mask exchanged": {"spread": lambda m, b, q, k: pairs_of_blocks(m.mT, b, q, k)},
    },
    "Position i lies in block i // block_size, not i % blocks. Is it repeat_interleave?": {
        "mask repeated instead of stretched":
            {"spread": lambda m, b, q, k: m[torch.arange(q) % m.shape[0]][:, torch.arange(k) % m.shape[1]]},
    },
    "The last block of keys may be shorter than the others. Is it read?": {
        "last, shorter block left out": {"spread": _whole_blocks},
    },
    "Each block of queries has a row of block_mask to itself.": {
        "mask of the first row used for all": {"spread": lambda m, b, q, k: pairs_of_blocks(m[:1].expand_as(m), b, q, k)},
    },
    "Inside an allowed block every query sees every key.": {
        "causal where nobody asked for it": {"spread": lambda m, b, q, k: pairs_of_blocks(m, b, q, k).tril()},
    },
    "A row of blocks may be all False. What is the softmax of nothing?": {
        "nan where no key is allowed": {"dead": lambda value, output: torch.full_like(output, torch.nan)},
    },
    "A query that may see no key has an output of exactly 0. Was its mask a low number, the same for all keys?": {
        "mean of the values where no key is allowed": {"dead": lambda v, output: v.mean(-2, keepdim=True).expand_as(output)},
    },
    "A query that may see no key has an output of exactly 0. What was in the buffer before?": {
        "unwritten numbers where no key is allowed": {"dead": lambda value, output: torch.ones_like(output)},
    },
    "The weights of all allowed blocks of a row sum to one together. Is each block divided by a sum of its own?": {
        "a softmax for each block": _own_softmax,
    },
    "The last block of keys may be shorter. A key of zero behind its end has score 0, not -inf.": {
        "tail of the last block not masked": _padded,
    },
}  # fmt: skip

BLOCK_SPARSE_ATTENTION = Exercise(
    name="block_sparse_attention",
    assignment="efficient_attention",
    target=Target("block_sparse_attention", OUTPUTS, block_sparse_attention),
    positional=(*TRIPLE, "block_mask", "block_size"),
    situations=Situations(
        draw=draw,
        factors={"allowed": ALLOWED, "lengths": LENGTHS, "blocks": BLOCKS, "scores": SCORES, "dtype": DTYPES,
                 "axes": PIECE_AXES},
        axes=SHAPES,
        lengths=("D_v",),
        groups=groups(
            "attention to the keys of the allowed blocks", 1.5,
            more=(
                Group("blocks allowed", "all of them, none, or none in a row: then the output is exactly 0", 1.0, ("allowed",)),
                Group("lengths", "any number of blocks of any size, the last ones shorter; any leading axes", 0.75,
                      ("lengths", "blocks", "axes")),
            ),
            scores=0.5, gradient=0.5, dtypes=0.25, calls=0.5,
        ),
        never=(
            *NEVER,
            {"lengths": tuple(name for name in LENGTHS if name.startswith("over ")), "blocks": tuple(BLOCKS)[1:]},
            {"lengths": tuple(LENGTHS)[1:], "blocks": ("blocks of one", "a block larger than both")},
            {"lengths": "wide vectors", "axes": "three leading axes"},
            {"lengths": ("one block of queries", "one block of keys"),
             "allowed": ("a row of blocks that allows none", "a last row that allows none")},
            {"blocks": "a block larger than both",
             "allowed": ("a row of blocks that allows none", "a last row that allows none")},
            {"allowed": "no block allowed", "scores": tuple(SCORES)[1:]},
            {"allowed": "no block allowed", "gradient": ("a gradient of one input", "activation checkpointing")},
        ),
    ),
    recipes=(
        *(Recipe(f"a mask, {kind}", partial(_wrong_mask, kind=kind)) for kind in KINDS),
        Recipe("plain", draw),
        Recipe("a long sequence", _long),
        Recipe("a batch", _batch),
    ),
    checks=(
        Check("masks that do not fit", "are refused with a ValueError", 0.25, tuple(f"a mask, {kind}" for kind in KINDS),
              raises_value_error("the shape of block_mask is not checked"), FORMULA),
        Check("sparse cost", "no work for forbidden blocks, and no table of all pairs", 4.0, ("a long sequence", "a batch"),
              tiled(lambda inputs: _table(inputs) - 1, _flops, _table, OUTPUTS, _table), (FORMULA, "lengths")),
        own_work("plain", FORMULA),
    ),
    diagnoses={"": (
        far_from_zero("query", lambda inputs: True),
        agrees_with_slices(dict.fromkeys(TRIPLE, 2), OUTPUTS),
        dead_blocks(TRIPLE),
    )},
    mistakes=(
        *slips(sparse, SPARSE_SLIPS, output="output"),
        *slips(sparse, *only("not scaled", "divided by D", "softmax over the queries", "mask applied after the softmax",
                             "masked scores set to zero", "equal weights for all keys"), output="output"),
    ),
    hints=(
        "Take one block of queries. Which keys can it need, and how many are that?",
        "block_mask[i] says which blocks of keys the i-th block of queries sees. Gather the keys and values of just "
        "these, and do ordinary attention on what you have gathered. What if it is nothing?",
        "`block_of_key = torch.arange(S_k) // block_size`; for each block of queries i: `seen = "
        "block_mask[i][block_of_key]`, `keys = key[..., seen, :]`, scores, softmax, times `value[..., seen, :]`; join with "
        "torch.cat. With no key, (n, 0) @ (0, D_v) is zero by itself.",
    ),
)  # fmt: skip
