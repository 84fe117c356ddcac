"""Inputs that kernels are tried on: twelve distributions, and shapes in which no two sizes need agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autograder.case import Draw

__all__ = ["DISTRIBUTIONS", "DTYPES", "Inputs", "Shape", "draw_inputs", "dtype_of"]

DTYPES = ("float32", "tf32", "float16", "bfloat16")
"""Precisions. tf32: tensors are float32, operands of matrix products are rounded to 10 bits."""


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of a precision's tensors."""
    dtype: torch.dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
    return dtype


@dataclass(frozen=True)
class Shape:
    """Sizes of one case: batch, heads of the query and of the key, lengths, width of a head."""

    B: int
    H_q: int
    H_kv: int
    S_q: int
    S_k: int
    D: int
    is_causal: bool = False

    @property
    def query(self) -> tuple[int, int, int, int]:
        """(B, H_q, S_q, D)."""
        return self.B, self.H_q, self.S_q, self.D

    @property
    def key(self) -> tuple[int, int, int, int]:
        """(B, H_kv, S_k, D); the value is alike."""
        return self.B, self.H_kv, self.S_k, self.D

    def __str__(self) -> str:
        heads = f"{self.H_q}" if self.H_q == self.H_kv else f"{self.H_q}/{self.H_kv}"
        causal = " causal" if self.is_causal else ""
        return f"B{self.B} H{heads} S{self.S_q}x{self.S_k} D{self.D}{causal}"


@dataclass(frozen=True)
class Inputs:
    """query (B, H_q, S_q, D), key and value (B, H_kv, S_k, D), upstream like the output, attn_mask (S_q, S_k) or None."""

    query: Tensor
    key: Tensor
    value: Tensor
    upstream: Tensor
    attn_mask: Tensor | None
    is_causal: bool

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value."""
        return self.query, self.key, self.value

    def to(self, device: str) -> Inputs:
        """The same numbers on another device."""
        mask = None if self.attn_mask is None else self.attn_mask.to(device)
        query, key, value, upstream = (x.to(device) for x in (*self.tensors, self.upstream))
        return Inputs(query, key, value, upstream, mask, self.is_causal)


Drawn = tuple[Tensor, Tensor, Tensor]


def _draw(draw: Draw, *shape: int) -> Tensor:
    return draw.normal(*shape, dtype=torch.float64)


def _normal(draw: Draw, shape: Shape) -> Drawn:
    return _draw(draw, *shape.query), _draw(draw, *shape.key), _draw(draw, *shape.key)


def _heavy_tailed(draw: Draw, shape: Shape) -> Drawn:
    """Student's t with two degrees of freedom: no variance."""

    def one(*sizes: int) -> Tensor:
        spread = (_draw(draw, *sizes).square() + _draw(draw, *sizes).square()) / 2
        return (_draw(draw, *sizes) / spread.sqrt()).clamp(-100, 100)

    return one(*shape.query), one(*shape.key), one(*shape.key)


def _peaked(draw: Draw, shape: Shape) -> Drawn:
    """One key for each query stands far above the others, and the maximum rises along the keys."""
    query, key, value = _normal(draw, shape)
    common = _draw(draw, shape.B, shape.H_kv, 1, shape.D)
    rise = torch.linspace(0.0, 4.0, shape.S_k, dtype=torch.float64).unsqueeze(-1)
    own = common.repeat_interleave(shape.H_q // shape.H_kv, 1)
    return query + 2 * own, key + rise * common, value


def _flat(draw: Draw, shape: Shape) -> Drawn:
    """Weights that are nearly all alike."""
    query, key, value = _normal(draw, shape)
    return query * 1e-2, key, value


def _uniform(draw: Draw, shape: Shape) -> Drawn:
    return draw.uniform(*shape.query), draw.uniform(*shape.key), draw.uniform(*shape.key)


def _huge(draw: Draw, shape: Shape) -> Drawn:
    """Scores in the hundreds: exp overflows where no maximum is taken off."""
    query, key, value = _normal(draw, shape)
    return query * 12, key * 12, value


def _equal_keys(draw: Draw, shape: Shape) -> Drawn:
    """All keys are the same: the output is the mean of the values, and dQ is zero but for rounding."""
    query, key, value = _normal(draw, shape)
    return query, key[..., :1, :].expand_as(key), value


def _large_offset(draw: Draw, shape: Shape) -> Drawn:
    """Keys and values far from zero: scores that agree in their leading digits."""
    query, key, value = _normal(draw, shape)
    return query, key + 8, value + 8


def _tiny(draw: Draw, shape: Shape) -> Drawn:
    query, key, value = (x * 1e-3 for x in _normal(draw, shape))
    return query, key, value


def _one_hot(draw: Draw, shape: Shape) -> Drawn:
    """Each query and key points along an axis, with a little noise."""

    def one(sizes: tuple[int, int, int, int]) -> Tensor:
        axis = draw.uniform(*sizes).argmax(-1)
        return 4 * torch.nn.functional.one_hot(axis, shape.D) + 0.05 * _draw(draw, *sizes)

    return one(shape.query), one(shape.key), _draw(draw, *shape.key)


def _cancelling(draw: Draw, shape: Shape) -> Drawn:
    """Neighbouring keys agree, and their values differ in sign: what is left is small."""
    query, key, value = _normal(draw, shape)
    pairs = torch.arange(shape.S_k) // 2 * 2
    signs = 1.0 - 2.0 * (torch.arange(shape.S_k, dtype=torch.float64) % 2)
    return query, key[..., pairs, :], (value[..., pairs, :] + 0.01 * value) * signs.unsqueeze(-1)


DISTRIBUTIONS: dict[str, Callable[[Draw, Shape], Drawn]] = {
    "normal": _normal,
    "heavy-tailed": _heavy_tailed,
    "peaked": _peaked,
    "flat": _flat,
    "uniform": _uniform,
    "huge": _huge,
    "dead rows": _normal,
    "equal keys": _equal_keys,
    "large offset": _large_offset,
    "tiny": _tiny,
    "one-hot": _one_hot,
    "cancelling": _cancelling,
}


def draw_inputs(distribution: str, shape: Shape, precision: str, seed: int = 0) -> Inputs:
    """The inputs of one case. Every precision rounds the same numbers."""
    draw = Draw(seed)
    dtype = dtype_of(precision)
    query, key, value = (x.to(dtype) for x in DISTRIBUTIONS[distribution](draw, shape))
    upstream = _draw(draw, *shape.query).to(dtype)
    mask = None
    if distribution == "dead rows":
        mask = draw.mask(shape.S_q, shape.S_k)
        mask[draw.permutation(shape.S_q)[: 1 + shape.S_q // 8]] = False
    return Inputs(query, key, value, upstream, mask, shape.is_causal)
