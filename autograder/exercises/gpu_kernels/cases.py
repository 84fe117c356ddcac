"""Cases of flash attention. Small: the interpreter takes some milliseconds for every tile that a program visits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw
from autograder.oracle.kernels import flash_forward
from autograder.situations import Factor

__all__ = [
    "HEADS",
    "LENGTHS",
    "LONG",
    "MEET",
    "NEVER",
    "SCORES",
    "TERMS",
    "WIDTHS",
    "attention_inputs",
    "backward_inputs",
    "long_inputs",
]

Shape = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
Size = int | tuple[int, int]


def attention_inputs(
    draw: Draw,
    *,
    heads: tuple[int, int] = (2, 2),
    batch: int = 1,
    S_q: Size = (3, 5),
    S_k: Size = (6, 9),
    width: Size = (10, 13),
    dtype: torch.dtype = torch.float32,
    is_causal: bool = False,
    shaped: Shape | None = None,
) -> dict[str, Any]:
    """query (batch, H_q, S_q, D), key and value (batch, H_kv, S_k, D); D is no power of two unless `width` says so.

    Sizes are numbers or ranges. shaped: makes of ordinary numbers the kind that a case is about.
    """
    (H_q, H_kv), *sizes = (
        heads,
        *(one if isinstance(one, int) else draw.integer(*one) for one in (S_q, S_k, width)),
    )
    shapes = ((batch, H_q, sizes[0], sizes[2]), *((batch, H_kv, *sizes[1:]),) * 2)
    query, key, value = (draw.normal(*shape, dtype=torch.float64) for shape in shapes)
    if shaped:
        query, key, value = shaped(query, key, value)
    inputs: dict[str, Any] = {"query": query.to(dtype), "key": key.to(dtype), "value": value.to(dtype)}
    return inputs | ({"is_causal": True} if is_causal else {})


def backward_inputs(draw: Draw, *, size: float = 1.0, **options: Any) -> dict[str, Any]:
    """Those of attention_inputs, the output and log-sum-exp that belong to them, and grad_output.

    size: with another one than 1, grad_output has that size, positive in its first half and negative in its second.
    """
    inputs = attention_inputs(draw, **options)
    dtype, is_causal = inputs["query"].dtype, inputs.pop("is_causal", False)
    kept = flash_forward(**{name: x.double() for name, x in inputs.items()}, is_causal=is_causal)
    inputs |= {
        "output": kept["output"].value.to(dtype),
        "log_sum_exp": kept["log_sum_exp"].value.float(),
        "grad_output": draw.normal(*inputs["query"].shape, dtype=dtype),
    }
    if size != 1.0:
        half = inputs["query"].shape[2] // 2
        inputs["grad_output"][..., :half, :] += size
        inputs["grad_output"][..., half:, :] -= size
    return inputs | ({"is_causal": True} if is_causal else {})


def long_inputs(S_q: int, S_k: int, *, backward: bool = False) -> dict[str, Any]:
    """Inputs of real length, for launches that do not run: two heads, nine wide, float16, and nothing but zeros."""
    query, key = (torch.zeros(1, 2, length, 9, dtype=torch.float16) for length in (S_q, S_k))
    inputs: dict[str, Any] = {"query": query, "key": key, "value": key}
    kept = {"output": query, "log_sum_exp": torch.zeros(1, 2, S_q), "grad_output": query}
    return inputs | (kept if backward else {})


LENGTHS: Factor = {
    "more keys than queries": {},
    "one query": {"S_q": 1},
    "one key": {"S_k": 1},
    "more queries than keys": {"S_q": (8, 12), "S_k": (3, 5)},
    "whole tiles": {"S_q": 64, "S_k": 64, "heads": (1, 1)},
    "a tail behind the tiles": {"S_q": (35, 40), "S_k": (33, 40), "heads": (1, 1)},
    "many tiles of keys": {"S_k": (140, 150), "heads": (1, 1)},
    "many tiles of queries": {"S_q": (140, 150), "S_k": (3, 5), "heads": (1, 1)},
}
"""Of tiles that are 16, 32 or 64 long."""

LONG: Factor = {"over 4,096 keys": {"S_q": 1, "S_k": 4099, "heads": (1, 1), "width": 8}}
"""Where one kernel runs once: 260 tiles take a third of a second."""

WIDTHS: Factor = {
    "no power of two wide": {},
    "sixteen wide": {"width": 16},
    "eight wide": {"width": 8},
    "a hundred and thirty wide": {"width": 130, "heads": (1, 1)},
}
HEADS: Factor = {
    "two heads": {},
    "three in a batch, four heads on two": {"batch": 3, "heads": (4, 2)},
    "three heads on one, several tiles": {"heads": (3, 1), "S_q": (17, 20), "S_k": (18, 24)},
    "seventeen heads on one": {"heads": (17, 1)},
}


def _rising(step: float) -> Shape:
    """Each key scores `step` higher than the one before it, for every query."""

    def shaped(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        D, S_k = key.shape[-1], key.shape[-2]
        query, key = query * 0.1, key * 0.1
        query[..., 0] = 1.0
        key[..., 0] = step * math.sqrt(D) * torch.arange(S_k, dtype=key.dtype)
        return query, key, value

    return shaped


def _ahead(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A key among the first ones is far nearer to every query than all others."""
    key[..., 2, :] = 4.0
    return query + 4.0, key, value


def _low(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One feature counts: all products are -2^23, and products in half precision overflow."""
    query, key = query * 0.0, key * 0.0
    query[..., 0], key[..., 0] = 2.0**11, -(2.0**12)
    return query, key, value


def _scores(shaped: Shape) -> dict[str, Any]:
    return {"S_q": 3, "S_k": 37, "heads": (1, 1), "shaped": shaped}


SCORES: Factor = {
    "ordinary scores": {},
    "scores that rise from key to key": _scores(_rising(0.25)),
    "scores that rise steeply": _scores(_rising(8.0)),
    "one key far ahead": _scores(_ahead),
    "huge scores": {"shaped": lambda query, key, value: (query * 300.0, key, value)},
    "equal scores": {"shaped": lambda query, key, value: (query * 0.0, key, value)},
    "scores far below zero": {
        "shaped": lambda query, key, value: (query * 0.1 + 20.0, key * 0.1 - 20.0, value)
    },
    "scores of -2,000,000": {"shaped": _low},
}
"""On which a slip in the running maximum or sum shows."""


def _cancelling(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nearly equal weights, and values that add up to 150,000 on the way, too much for float16, and then cancel."""
    value[..., :150, :] += 1000.0
    value[..., 150:, :] -= 1000.0
    return query * 0.05, key, value


TERMS: Factor = {
    "ordinary terms": {},
    "over 200 terms in float16, which cancel": {
        "S_q": 2, "S_k": 300, "heads": (1, 1), "dtype": torch.float16, "shaped": _cancelling,
    },
}  # fmt: skip

ALONE = (*tuple(LENGTHS)[4:], *LONG)
TERM = tuple(TERMS)[1]
NEVER: tuple[Mapping[str, Any], ...] = (
    {"terms": TERM, "causal": "is_causal"},
    {"lengths": ALONE, "heads": tuple(HEADS)[1:]},
    {"lengths": ALONE, "width": "a hundred and thirty wide"},
    {"lengths": (*tuple(LENGTHS)[1:], *LONG), "heads": tuple(HEADS)[2:]},
    {"lengths": (*tuple(LENGTHS)[1:], *LONG), "scores": tuple(SCORES)[1:4]},
    {"heads": tuple(HEADS)[1:], "scores": tuple(SCORES)[1:4]},
    {"heads": tuple(HEADS)[1:], "width": "a hundred and thirty wide"},
    {"layout": ("expanded", "far apart in memory"), "heads": ("two heads", *tuple(HEADS)[2:])},
    {"layout": ("expanded", "far apart in memory"), "scores": tuple(SCORES)[1:4]},
    {"layout": ("expanded", "far apart in memory"), "width": "a hundred and thirty wide"},
    *(
        {"terms": TERM, name: tuple(of)[1:]}
        for name, of in (("lengths", {**LENGTHS, **LONG}), ("width", WIDTHS), ("heads", HEADS))
    ),
)
"""What one level says of sizes, another one must not say otherwise; and tiles times heads would cost too much."""

MEET = (
    ("causal", "lengths"),
    ("causal", "heads"),
)
"""What numbers there are and how the call is made have little to do with each other."""
