"""Attention over tiles, parts and pages in float64, each step with a knob that turns it into a mistake."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.mistakes import Slips

__all__ = [
    "CAUSAL_SLIPS",
    "HEAD_SLIPS",
    "ORDER",
    "SCALE_SLIPS",
    "TILES",
    "decoded",
    "interleaved",
    "modulo",
    "paged",
    "tiled",
]

TILES = (16, 32, 64, 128)
"""Widths of a tile that a student is likely to choose: some mistakes depend on it."""


def interleaved(shared: Tensor, H_q: int) -> Tensor:
    """(B, H_kv, S, D) -> (B, H_q, S, D): neighbours share."""
    return shared.repeat_interleave(H_q // shared.shape[1], 1)


def _triangle(row: Tensor, column: Tensor, S_q: int, S_k: int) -> Tensor:
    return column <= row


def _natural(highest: Tensor, total: Tensor) -> Tensor:
    return highest + total.log()


def tiled(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool = False,
    *,
    tile: int = 64,
    keys: Callable[[Tensor, int], Tensor] = interleaved,
    values: Callable[[Tensor, int], Tensor] = interleaved,
    scale: Callable[[int], float] = lambda D: 1 / math.sqrt(D),
    sees: Callable[[Tensor, Tensor, int, int], Tensor] = _triangle,
    causal: bool | None = None,
    tail: bool = False,
    output_rescaled: bool = True,
    total_rescaled: bool = True,
    turned: bool = False,
    carried: bool = True,
    divided: bool = True,
    normaliser: Callable[[Tensor, Tensor], Tensor] = _natural,
    allowed: Tensor | None = None,
) -> Mapping[str, Tensor]:
    """Shapes as in flash_forward. tile: keys a step. keys, values: which head is read. sees: row, column, S_q, S_k -> mask.

    causal: overrides is_causal. tail: the last tile is filled up with keys and values of zeros that take part.
    output_rescaled, total_rescaled: whether a higher maximum shrinks what has been summed; turned: by the inverse factor.
    carried: whether sums go on from tile to tile. divided: whether the output is divided by the total.
    normaliser: highest score and total -> log-sum-exp. allowed: (..., S_q, S_k), besides.
    """
    H_q, S_q, D = query.shape[1:]
    S_k = key.shape[2]
    key, value = keys(key, H_q), values(value, H_q)
    every = torch.ones(S_q, S_k, dtype=torch.bool) if allowed is None else allowed
    if tail:
        missing = -S_k % tile
        key, value = (torch.nn.functional.pad(x, (0, 0, 0, missing)) for x in (key, value))
        every = torch.nn.functional.pad(every, (0, missing), value=True)
    if is_causal if causal is None else causal:
        every = every & sees(torch.arange(S_q)[:, None], torch.arange(key.shape[2])[None, :], S_q, S_k)
    scores = (query @ key.mT * scale(D)).masked_fill(~every, -torch.inf)
    output = torch.zeros_like(query)
    total = query.new_zeros(query.shape[:-1])
    highest = torch.full_like(total, -torch.inf)
    for start in range(0, scores.shape[-1], tile):
        part = scores[..., start : start + tile]
        higher = torch.maximum(highest, part.amax(-1))
        shift = torch.where(higher > -torch.inf, higher, 0.0)
        rescale = torch.exp(highest - shift)
        if turned:
            rescale = torch.where(rescale > 0, 1 / rescale, 0.0)
        if not carried:
            rescale = torch.zeros_like(rescale)
        weights = torch.exp(part - shift.unsqueeze(-1))
        total = (total * rescale if total_rescaled else total) + weights.sum(-1)
        before = output * rescale.unsqueeze(-1) if output_rescaled else output
        output, highest = before + weights @ value[..., start : start + tile, :], higher
    return {
        "output": output / total.unsqueeze(-1) if divided else output,
        "log_sum_exp": normaliser(highest, total),
    }


def _padded(D: int) -> float:
    return 1 / math.sqrt(max(16, 2 ** math.ceil(math.log2(D))))


SCALE_SLIPS: Slips = {
    "Scores are divided by sqrt(D). Are they?": {"not scaled": {"scale": lambda D: 1.0}},
    "Is it the root of D?": {"divided by D": {"scale": lambda D: 1 / D}},
    "The tile is padded to a power of two, the scale is not: is it sqrt(D), not sqrt(BLOCK_D)?": {
        "divided by the root of the padded width": {"scale": _padded},
    },
    "2^x is not e^x: fold log2(e) into the scale.": {"exp2 without log2(e)": {"scale": lambda D: math.log(2) / math.sqrt(D)}},
    "The scale holds log2(e), so the exponential must be exp2.": {
        "log2(e) without exp2": {"scale": lambda D: math.log2(math.e) / math.sqrt(D)},
    },
}  # fmt: skip

ORDER = "Neighbouring query heads share: head h reads h // group, not h % the number of key heads."


def modulo(shared: Tensor, H_q: int) -> Tensor:
    """(B, H_kv, S, D) -> (B, H_q, S, D): not neighbours share, but every so many-th."""
    return shared.repeat(1, H_q // shared.shape[1], 1, 1)


HEAD_SLIPS: Slips = {
    ORDER: {"heads tiled instead of interleaved": {"keys": modulo, "values": modulo}},
    "Is there a key head for each group?": {
        "only the first head is read": {"keys": lambda x, n: x[:, :1], "values": lambda x, n: x[:, :1]},
    },
}  # fmt: skip

CAUSAL_SLIPS: Slips = {
    "Does is_causal reach the kernel?": {"is_causal ignored": {"causal": False}},
    "Without is_causal every query sees every key.": {"always causal": {"causal": True}},
    "Query i sees key i and none after it: is it column <= row?": {
        "causal mask shows one key of the future": {"sees": lambda row, column, S_q, S_k: column <= row + 1},
    },
    "Here query 0 sees key 0 alone, whatever the lengths are.": {
        "causal mask aligned at the bottom right": {"sees": lambda row, column, S_q, S_k: column <= row + S_k - S_q},
    },
}  # fmt: skip


def _behind(cache: Tensor, lengths: Tensor) -> Tensor:
    """The (B, 1, 1, S_max) mask of the keys that are there."""
    return (torch.arange(cache.shape[2]) < lengths.unsqueeze(-1))[:, None, None]


def decoded(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    lengths: Tensor,
    num_splits: int = 4,
    *,
    length: Callable[[Tensor, int], Tensor] = lambda lengths, S_max: lengths,
    together: Callable[[Tensor, Tensor], Tensor] | None = None,
    shares: Callable[[Tensor, int, int], Tensor] | None = None,
    **knobs: Any,
) -> Mapping[str, Tensor]:
    """Shapes as in decode_attention. length: which lengths are taken. Other knobs as in `tiled`.

    together: outputs (n, B, H_q, D) and log-sum-exps (n, B, H_q) of the parts -> output; shares: lengths, S_max and
    num_splits -> keys of a part, for each sequence.
    """
    S_max = key_cache.shape[2]
    taken = length(lengths, S_max).clamp_max(S_max)
    used = _behind(key_cache, taken)
    query = query.unsqueeze(2)
    value_cache = torch.where(
        used.mT, value_cache, 0.0
    )  # what is behind may be nan, which no weight of 0 hides
    if together is None or shares is None:
        return {"output": tiled(query, key_cache, value_cache, allowed=used, **knobs)["output"].squeeze(2)}
    share = shares(taken, S_max, num_splits).view(-1, 1, 1, 1)
    parts, sizes = [], []
    for split in range(num_splits):
        place = torch.arange(S_max)
        here = used & (place >= split * share) & (place < (split + 1) * share)
        part = tiled(query, key_cache, value_cache, allowed=here, **knobs)
        parts.append(part["output"].squeeze(2).nan_to_num(nan=0.0))
        sizes.append(part["log_sum_exp"].squeeze(2))
    return {"output": together(torch.stack(parts), torch.stack(sizes))}


def paged(
    query: Tensor,
    key_pages: Tensor,
    value_pages: Tensor,
    block_table: Tensor,
    lengths: Tensor,
    *,
    length: Callable[[Tensor, int], Tensor] = lambda lengths, page_size: lengths,
    table: Callable[[Tensor, int], Tensor] = lambda block_table, num_pages: block_table,
    **knobs: Any,
) -> Mapping[str, Tensor]:
    """Shapes as in paged_attention. length, table: which lengths and which block table are taken. Other knobs as in `tiled`."""
    num_pages, page_size = key_pages.shape[:2]
    places = table(block_table, num_pages).long() % num_pages
    keys, values = (x[places].flatten(1, 2).transpose(1, 2) for x in (key_pages, value_pages))
    return decoded(query, keys, values, length(lengths, page_size), **knobs)
