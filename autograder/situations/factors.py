"""Factors that exercises share: ways in which inputs differ, each a table of levels, the ordinary one first.

A level is what it asks of the exercise's drawing function, or what it makes of the inputs once they are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw

__all__ = ["AXES", "BOTH_MASKS", "CAUSAL", "DTYPES", "FULL_DTYPES", "HUNDREDS", "LENGTHS", "MASKS", "MODULE_AXES", "ONE_LENGTH",
           "WEIGHTS", "Factor", "Level", "behind_the_mask", "module_scores", "scores", "without"]  # fmt: skip

Inputs = dict[str, Any]
Change = Callable[[Draw, Inputs], Inputs]
Level = Mapping[str, Any] | Change | tuple[Mapping[str, Any] | Change, ...]
"""Options of the drawing function, a change of what it drew, or some of both."""

Factor = Mapping[str, Level]

DTYPES: Factor = {
    "float32": {"dtype": torch.float32},
    "float64": {"dtype": torch.float64},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
}
FULL_DTYPES: Factor = {name: DTYPES[name] for name in ("float32", "float64")}

AXES: Factor = {
    "two leading axes": {},
    "no leading axis": {"axes": 0},
    "one leading axis": {"axes": 1},
    "three leading axes": {"axes": 3},
    "a batch of one": {"batch": 1},
}

WIDE = [131, 137, 139]
LONG_PRIMES = [1031, 1033, 1039, 1049]
HUNDREDS = [256, 263, 269, 271]
"""Beyond a block or a tile of any usual size: whole ones, and some with a tail."""

THOUSAND = [1024, 1031, 1033, 1152]
VERY_LONG = [2053, 2063, 2069, 2081, 2083]
"""Primes, so that there is a tail behind whole blocks of any size."""

MODULE_AXES: Factor = {
    "one leading axis": {},
    "no leading axis": {"axes": 0},
    "two leading axes": {"axes": 2},
    "three leading axes": {"axes": 3},
    "a batch of one": {"batch": 1},
}


def _one_tensor(draw: Draw, inputs: Inputs) -> Inputs:
    """Self-attention: query, key and value are the same object, or two of them are."""
    value = inputs["query"] if draw.integer(0, 1) else inputs["value"]
    return {**inputs, "key": inputs["query"], "value": value}


LENGTHS: Factor = {
    "more keys than queries": {"S_q": (2, 4), "S_k": (5, 9)},
    "one query, many keys": {"S_q": 1, "S_k": (10, 14)},
    "more queries than keys": {"S_q": (8, 12), "S_k": (3, 5)},
    "all sizes equal": {
        "batch": "S_q",
        "S_q": (3, 5),
        **dict.fromkeys(("S_k", "D", "D_v", "d_model", "d_context"), "S_q"),
    },
    "one tensor for several": ({"S_k": "S_q", "D_v": "D"}, _one_tensor),
    "one key": {"S_k": 1},
    "wide vectors": {"D": WIDE, "D_v": WIDE, "d_model": WIDE, "d_context": WIDE},
    "a thousand keys": {"S_q": (2, 4), "S_k": THOUSAND},
    "hundreds of queries": {"S_q": HUNDREDS, "S_k": (2, 4)},
    "over 256 positions": {"S_q": [269, 271], "S_k": [277, 281], "axes": 0},
    "over two thousand keys": {"S_q": (2, 4), "S_k": VERY_LONG, "axes": 0},
    "over two thousand queries": {"S_q": VERY_LONG, "S_k": (2, 4), "axes": 0},
}

ONE_LENGTH: Factor = {
    "several positions": {"S": (3, 9)},
    "two positions": {"S": 2},
    "as many positions as features": {"S": "d_model"},
    "wide vectors": {"D": WIDE, "d_model": WIDE},
    "one position": {"S": 1},
    "hundreds of positions": {"S": HUNDREDS},
    "over 256 positions": {"S": [269, 271, 277], "axes": 0},
    "over a thousand positions": {"S": LONG_PRIMES, "axes": 0},
}

MASKS: Factor = {
    "no mask": {},
    "one mask for all": {"kind": "one for all"},
    "a mask per batch element": {"kind": "per batch"},
    "a mask per head": {"kind": "per head"},
    "a padding mask": {"kind": "padding"},
    "a row that allows no key": {"kind": "dead"},
}
LOW = 2.0**26
"""How far below zero low scores lie: below any fill but those, such as -1e9, that no score comes near."""

CAUSAL: Factor = {"not causal": {}, "is_causal": {"is_causal": True}}
BOTH_MASKS: Factor = {
    **MASKS,
    "is_causal": {"is_causal": True},
    "is_causal and padding, one sentence empty": {"is_causal": True, "kind": "empty"},
    "is_causal and one mask for all": {"is_causal": True, "kind": "shared dead"},
}
"""attn_mask and is_causal as one factor, so that both meet every level of the others together."""


def without(factor: Factor, *names: str) -> Factor:
    """The factor without these levels."""
    return {name: level for name, level in factor.items() if name not in names}


def scores(query: str = "query", key: str = "key") -> Factor:
    """Kinds of scores, for a function of these two whose scores are their dot products."""

    def low(draw: Draw, inputs: Inputs) -> Inputs:
        """All products equal, so that none is rounded, and scores below what a fill may be; large values besides."""
        far = 240.0 if inputs[query].dtype == torch.float16 else LOW**0.5
        made = {query: torch.zeros_like(inputs[query]), key: torch.zeros_like(inputs[key])}
        made[query][..., 0], made[key][..., 0] = far, -far
        if "value" in inputs:
            made["value"] = inputs["value"] * (16.0 if inputs[query].dtype == torch.float16 else 1e3)
        return {**inputs, **made}

    def alike(draw: Draw, inputs: Inputs) -> Inputs:
        keys = inputs[key].clone()
        keys[..., 1:, :] = keys[..., :1, :]
        return {
            **inputs,
            key: torch.cat([inputs[key][..., :1, :], keys[..., 1:2, :], inputs[key][..., 2:, :]], -2),
        }

    def ahead(draw: Draw, inputs: Inputs) -> Inputs:
        """The last key is far nearer to every query than all others."""
        nearest = inputs[key].clone()
        nearest[..., -1, :] *= 8.0
        return {**inputs, key: nearest, query: inputs[query] + nearest[..., -1:, :].sign() * 4.0}

    return {
        "ordinary scores": {},
        "all scores low": low,
        "keys alike": alike,
        "one key far ahead": ahead,
        "huge numbers behind the mask": behind_the_mask(key),
    }


def module_scores(
    sequence: str = "x", context: str = "", query: str = "q_proj", key: str = "k_proj"
) -> Factor:
    """Kinds of scores, for a module whose projections `query` of `sequence` and `key` of `context` make them.

    Where a case has no context, the sequence stands for it; where it has `num_heads`, each head makes scores of its own.
    """
    asked, asking = context or sequence, sequence

    def given(inputs: Inputs) -> set[str]:
        return {name for name in (asking, asked) if isinstance(inputs.get(name), Tensor)}

    def sized(factor: float) -> Level:
        def change(draw: Draw, inputs: Inputs) -> Inputs:
            # Products must not overflow float16, nor scores be rounded by more than what tells them apart.
            half = inputs[asking].dtype in (torch.float16, torch.bfloat16)
            return inputs | {n: inputs[n] * (min(factor, 6.0) if half else factor) for n in given(inputs)}

        return change

    def low(draw: Draw, inputs: Inputs) -> Inputs:
        """All scores equal, and below what a fill may be: the projections read a feature that is 1 everywhere."""
        width = inputs[asking].shape[-1] // inputs.get("num_heads", 1)
        most = (
            min(3e4 / width**0.5, 57600 / width)
            if inputs[asking].dtype == torch.float16
            else LOW / width**0.5
        )
        power = math.floor(math.log2(most))
        far, away = 2.0 ** (power - power // 2), -(2.0 ** (power // 2))
        ones = {name: inputs[name].clone() for name in given(inputs)}
        for tensor in ones.values():
            tensor[..., 0] = 1.0

        def weights(given: Mapping[str, Any]) -> dict[str, Tensor]:
            made = {name: torch.zeros_like(given[name]) for name in (query, key)}
            made[query][:, 0], made[key][:, 0] = far, away
            biases = (f"{query}_bias", f"{key}_bias")
            return made | {name: torch.zeros_like(given[name]) for name in biases if name in given}

        return {**inputs, **ones, WEIGHTS: weights}

    def equal(draw: Draw, inputs: Inputs) -> Inputs:
        def weights(given: Mapping[str, Any]) -> dict[str, Tensor]:
            return {name: torch.zeros_like(given[name]) for name in (query, f"{query}_bias") if name in given}

        return {**inputs, WEIGHTS: weights}

    return {
        "ordinary scores": {},
        "huge scores": sized(100.0),
        "all scores low": low,
        "all scores equal": equal,
        "huge numbers behind the mask": lambda draw, inputs: behind_the_mask(
            asked if asked in given(inputs) else asking
        )(draw, inputs),
    }


WEIGHTS = "weights of the module"
"""Set among the inputs to what makes weights of them, once the weights are drawn."""


def behind_the_mask(*keys: str) -> Callable[[Draw, Inputs], Inputs]:
    """Keys (and values, if there are any) that no query may see hold huge numbers; a mask hides one, if there is one."""

    def change(draw: Draw, inputs: Inputs) -> Inputs:
        mask = inputs.get("attn_mask")
        half = 64.0 if "query" in inputs else 8.0  # a sequence makes queries as huge as its keys
        named = [name for name in (*keys, "value") if isinstance(inputs.get(name), Tensor)]
        length = inputs[named[0]].shape[-2]
        future = inputs.get("is_causal") and "query" in inputs and inputs["query"].shape[-2] < length
        if length < 2 or (mask is None and not future):
            return inputs
        if mask is None:
            return {**inputs, **{name: _last_huge(inputs[name], half) for name in named}}
        mask = mask.expand(*mask.shape[:-1], length).clone()
        alone = ~mask[..., :-1].any(-1)  # what sees the last key only would see none
        mask[..., -1] = False
        mask[..., 0] |= alone & mask.new_tensor(bool(inputs["attn_mask"].any(-1).all()))
        return {**inputs, **{name: _last_huge(inputs[name], half) for name in named}, "attn_mask": mask}

    return change


def _last_huge(tensor: Tensor, half: float) -> Tensor:
    """The last position multiplied: by `half` in float16, where products must not overflow."""
    tensor = tensor.clone()
    tensor[..., -1, :] *= half if tensor.dtype == torch.float16 else 1e4
    return tensor
