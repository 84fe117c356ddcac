"""The ways to compute attention that are timed against each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from autograder.parity.backends import Sdpa

__all__ = ["OURS", "Contender", "contenders", "naive"]

OURS = "our Triton kernel"
CHUNK = 256
"""Queries and keys of a block in the chunked solution."""

Attend = Callable[[Tensor, Tensor, Tensor, bool], Tensor]


@dataclass(frozen=True)
class Contender:
    """One way. attend: query (B, H, S, D), key and value alike, is_causal -> output (B, H, S, D).

    backward: it has gradients here. counted: its products and tensors are torch's, and so can be seen.
    """

    name: str
    attend: Attend
    backward: bool = True
    counted: bool = True


def naive(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> Tensor:
    """As the formula stands, with the whole matrix of scores."""
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if is_causal:
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(ones.triu(1), -torch.inf)
    return torch.softmax(scores, -1) @ value


def _sdpa(backend: SDPBackend, counted: bool = False) -> Contender:
    kernel, name = Sdpa(backend), backend.name.removesuffix("_ATTENTION")
    attend: Attend = lambda q, k, v, is_causal: kernel.run(q, k, v, is_causal).output  # noqa: E731
    return Contender(f"SDPA {name}", attend, counted=counted)


def _flex() -> Attend:
    """FlexAttention, compiled once for each shape; the block mask is made once, too."""
    from torch.nn.attention import flex_attention as flex

    compiled: dict[Any, Any] = {}

    def attend(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> Tensor:
        case = (query.shape, query.dtype, is_causal)
        if case not in compiled:
            torch._dynamo.reset()  # after a few masks it falls back to eager, silently
            mask = None
            if is_causal:
                sizes = (query.shape[-2], key.shape[-2])
                mask = flex.create_block_mask(
                    lambda b, h, i, j: i >= j, None, None, *sizes, device=str(query.device)
                )
            compiled.clear()
            compiled[case] = torch.compile(flex.flex_attention, dynamic=False), mask
        function, mask = compiled[case]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result: Tensor = function(query, key, value, block_mask=mask)
        return result

    return attend


def contenders(device: str, efficient: ModuleType, kernels: ModuleType | None) -> Iterator[Contender]:
    """All that can run on `device`, the naive way first. efficient, kernels: the solutions of these assignments."""
    yield Contender("naive", naive)
    if device == "cpu":
        chunked = efficient.chunked_attention
        yield Contender("chunked", lambda q, k, v, is_causal: chunked(q, k, v, CHUNK, is_causal)[0])
        yield _sdpa(SDPBackend.MATH, counted=True)
        yield _sdpa(SDPBackend.FLASH_ATTENTION)
        yield Contender("FlexAttention", _flex(), backward=False, counted=False)
        return
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        yield _sdpa(backend)
    yield Contender("FlexAttention", _flex(), counted=False)
    if kernels is not None:
        yield Contender(OURS, kernels.flash_attention, counted=False)
