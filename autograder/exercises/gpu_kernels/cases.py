"""Cases of flash attention. Small: the interpreter takes some milliseconds for every tile that a program visits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw
from autograder.oracle.kernels import flash_forward

__all__ = ["HARD", "attention_inputs", "backward_inputs", "long_inputs"]

Lengths = Callable[[Draw], tuple[int, int]]
Shape = Callable[[Draw, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def attention_inputs(
    draw: Draw,
    *,
    heads: tuple[int, int] = (2, 2),
    batch: int = 2,
    lengths: Lengths = lambda draw: (draw.integer(3, 5), draw.integer(6, 9)),
    width: int | None = None,
    dtype: torch.dtype = torch.float32,
    is_causal: bool = False,
    shaped: Shape | None = None,
) -> dict[str, Any]:
    """query (batch, H_q, S_q, D), key and value (batch, H_kv, S_k, D); D is no power of two unless `width` says so.

    lengths: S_q and S_k. shaped: makes of ordinary numbers the kind that a case is about.
    """
    (H_q, H_kv), (S_q, S_k) = heads, lengths(draw)
    D = width or (10, 11, 12, 13)[draw.integer(0, 3)]
    sizes = ((batch, H_q, S_q, D), (batch, H_kv, S_k, D), (batch, H_kv, S_k, D))
    query, key, value = (draw.normal(*size, dtype=torch.float64) for size in sizes)
    if shaped:
        query, key, value = shaped(draw, query, key, value)
    inputs: dict[str, Any] = {"query": query.to(dtype), "key": key.to(dtype), "value": value.to(dtype)}
    return inputs | ({"is_causal": True} if is_causal else {})


def _rising(step: float) -> Shape:
    """Each key scores `step` higher than the one before it, for every query."""

    def shaped(draw: Draw, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        D, S_k = key.shape[-1], key.shape[-2]
        query, key = query * 0.1, key * 0.1
        query[..., 0] = 1.0
        key[..., 0] = step * math.sqrt(D) * torch.arange(S_k, dtype=key.dtype)
        return query, key, value

    return shaped


def _heavy(draw: Draw, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Heavy tails: now and then a number of 20 among ordinary ones."""
    query, key, value = (x / draw.uniform(*x.shape, low=0.05, high=1.0) for x in (query, key, value))
    return query, key, value


HARD: dict[str, Shape] = {
    "scores that rise from key to key": _rising(0.25),
    "scores that rise steeply": _rising(8.0),
    "heavy-tailed": _heavy,
    "huge scores": lambda draw, query, key, value: (query * 300.0, key, value),
    "uniform weights": lambda draw, query, key, value: (query * 0.0, key, value),
    "scores far below zero": lambda draw, query, key, value: (
        query * 0.1 + 20.0,
        key * 0.1 - 20.0,
        value,
    ),
}
"""Inputs on which a slip in the running maximum or sum shows, by label."""


def backward_inputs(draw: Draw, **options: Any) -> dict[str, Any]:
    """Those of attention_inputs, the output and log-sum-exp that belong to them, and grad_output."""
    inputs = attention_inputs(draw, **options)
    dtype, is_causal = inputs["query"].dtype, inputs.pop("is_causal", False)
    kept = flash_forward(**{name: x.double() for name, x in inputs.items()}, is_causal=is_causal)
    inputs |= {
        "output": kept["output"].value.to(dtype),
        "log_sum_exp": kept["log_sum_exp"].value.float(),
        "grad_output": draw.normal(*inputs["query"].shape, dtype=dtype),
    }
    return inputs | ({"is_causal": True} if is_causal else {})


def long_inputs(S_q: int, S_k: int, *, backward: bool = False) -> dict[str, Any]:
    """Inputs of real length, for launches that do not run: two heads, nine wide, float16, and nothing but zeros."""
    query, key = (
        torch.zeros(1, 2, S_q, 9, dtype=torch.float16),
        torch.zeros(1, 2, S_k, 9, dtype=torch.float16),
    )
    inputs: dict[str, Any] = {"query": query, "key": key, "value": key}
    return inputs | (
        {"output": query, "log_sum_exp": torch.zeros(1, 2, S_q), "grad_output": query} if backward else {}
    )
