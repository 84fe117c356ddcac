"""Inputs by their axes: `drawn_by({"query": "... S_q D", "key": "... S_k D"})` draws both, all sizes different."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from autograder.case import Draw, without_root

__all__ = ["Derived", "Sizes", "drawn_by"]

Sizes = dict[str, int]
Derived = Callable[[Sizes], int]
"""A size that others decide: `{"d_model": lambda s: s["H"] * s["D"]}`."""

LEAD = 5
"""Leading axes are that long at most: batches add work, and little truth."""
BROAD, LARGE = 80, 200
"""Beside a size above the first the batch is small, above the second as small as can be."""


def drawn_by(
    axes: Mapping[str, str],
    *,
    mask: str = "",
    values: Mapping[str, str] | None = None,
    init: Mapping[str, str] | None = None,
    derived: Mapping[str, Derived] | None = None,
    free: str = "",
    leading: int = 2,
    low: int = 2,
    high: int = 9,
) -> Callable[..., dict[str, Any]]:
    """A drawing function for tensors with these axes; "..." stands for any leading axes.

    mask: the axes of a bool `attn_mask`, such as "... S_q S_k". values, init: arguments that are sizes, of the function or the
    constructor, by the symbol of the size. derived: sizes that are no free choice. free: symbols that only these need.
    leading: how many leading axes.
    The function takes a Draw and options: `axes` (how many leading axes), `batch` (how long the first one is; a symbol: each of
    them is as long as that), `dtype`, `size` (a factor of the first tensor), `kind` (of mask: "one for all", "per batch",
    "per head", "padding", "padding per head", "keys" (S_k,), "queries" (S_q, 1), "empty", "dead", "shared dead"), `is_causal`,
    and sizes by their symbols: a number, a range (low, high), a list to choose from, or another symbol, "S_k" for as long as
    that.
    """
    names = [
        s
        for spec in (*axes.values(), mask, *(values or {}).values(), *(init or {}).values(), free)
        for s in spec.split()
    ]
    symbols = [s for s in dict.fromkeys(names) if s not in ("...", *(derived or {}))]

    def draw_inputs(
        draw: Draw,
        *,
        dtype: torch.dtype = torch.float32,
        size: float = 1.0,
        kind: str = "",
        batch: int | str = 0,
        is_causal: bool = False,
        **asked: Any,
    ) -> dict[str, Any]:
        many = asked.pop("axes", leading)
        lead = list(draw.sizes(many, low=2, high=max(LEAD, many + 1))) if many else []
        sizes = _sizes(draw, symbols, asked, low, high)
        if max(sizes.values(), default=0) > BROAD:
            lead = [2, *([1] * many if max(sizes.values()) > LARGE else [3, 2, 2])][:many]
        if isinstance(batch, str):
            lead = [sizes[batch]] * len(lead)
        elif batch and lead:
            lead[0] = batch
        width = next((name for name in ("D", "d_model") if name in symbols and name not in asked), None)
        if dtype == torch.float64 and width:
            sizes[width] = without_root(sizes[width])
        sizes |= {name: rule(sizes) for name, rule in (derived or {}).items()}
        sizes |= {
            name: sizes[of]
            for name, of in asked.items()
            if isinstance(of, str) and of in (width, *(derived or {}))
        }  # as long as a derived size, or as the width that has changed
        inputs: dict[str, Any] = {}
        if init:
            inputs["init"] = {name: sizes[symbol] for name, symbol in init.items()}
        for place, (name, spec) in enumerate(axes.items()):
            factor = size if place == 0 else 1.0
            inputs[name] = draw.normal(*_shape(spec, lead, sizes), dtype=dtype) * factor
        inputs |= {name: sizes[symbol] for name, symbol in (values or {}).items()}
        if kind:
            inputs["attn_mask"] = _mask(draw, kind, _shape(mask, lead, sizes))
        return inputs | ({"is_causal": True} if is_causal else {})

    return draw_inputs


def _sizes(draw: Draw, symbols: list[str], asked: Mapping[str, Any], low: int, high: int) -> Sizes:
    sizes = dict(zip(symbols, draw.sizes(len(symbols), low, max(high, low + len(symbols))), strict=True))
    taken = {size for symbol, size in sizes.items() if symbol not in asked}
    for symbol, wanted in asked.items():
        if isinstance(wanted, tuple):
            least, most = wanted
            drawn = draw.integer(least, most)
            apart = [size for size in (*range(drawn, most + 1), *range(least, drawn)) if size not in taken]
            sizes[symbol] = apart[0] if apart else drawn
        elif isinstance(wanted, list):
            sizes[symbol] = wanted[draw.integer(0, len(wanted) - 1)]
        elif isinstance(wanted, int):
            sizes[symbol] = wanted
        else:
            continue  # as long as another one
        taken.add(sizes[symbol])
    return sizes | {
        symbol: sizes[wanted]
        for symbol, wanted in asked.items()
        if isinstance(wanted, str) and wanted in sizes
    }


def _shape(spec: str, lead: list[int], sizes: Sizes) -> list[int]:
    shape = list[int]()
    for symbol in spec.split():
        shape += lead if symbol == "..." else [sizes[symbol]]
    return shape


def _mask(draw: Draw, kind: str, shape: list[int]) -> torch.Tensor:
    """A bool mask of that kind; each row allows some key, but for "dead", where one allows none."""
    lead, (S_q, S_k) = shape[:-2], shape[-2:]
    narrow = draw.integer(0, 2) == 0  # an axis less, or one mask for a whole row
    shapes = {
        "one for all": [S_k] if narrow else [S_q, S_k],
        "shared dead": [S_q, S_k],
        "per batch": [*lead[:1], *[1] * len(lead[1:]), S_q, S_k],
        "per head": [*lead[1:], S_q, S_k],
        "keys": [S_k],
    }
    padding = [*lead[:1], *[1] * len(lead[1:]), 1, S_k]
    paddings = {"padding": padding, "empty": padding, "padding per head": [*lead, 1, S_k]}
    wanted = paddings.get(kind) or shapes.get(kind, shape)
    if kind == "queries":  # every other one sees all keys, the rest none
        return torch.arange(S_q).unsqueeze(-1) % 2 == 0
    if S_k == 1:  # all that can be hidden is the one key
        allowed = torch.ones(wanted, dtype=torch.bool)
        return allowed.logical_not_() if kind in ("dead", "shared dead", "empty") else allowed
    if kind in paddings:
        lengths = torch.tensor([draw.integer(1, S_k - 1) for _ in range(math.prod(wanted[:-1]))])
        lengths[0] = 0 if kind == "empty" else lengths[0]
        left = (torch.arange(len(lengths)) % 2 == 1) | (
            S_k > 1000
        )  # every other sentence is padded before its words
        places = torch.arange(S_k)
        allowed = torch.where(left[:, None], places >= S_k - lengths[:, None], places < lengths[:, None])
        return allowed.reshape(wanted)
    if kind in ("dead", "shared dead") and narrow:
        seen = torch.ones(*wanted[:-1], 1, dtype=torch.bool)
        seen[..., draw.integer(0, S_q - 1), :] = False
        return seen
    return draw.mask(*wanted, dead_rows=kind in ("dead", "shared dead"))
