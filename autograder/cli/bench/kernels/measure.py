"""Timing attention over lengths, widths, causal or not, forward and backward; and decoding against a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from autograder.cli.bench.kernels.clock import complaint, seconds_of
from autograder.cli.bench.kernels.contenders import OURS, Contender
from autograder.observation import observe

__all__ = ["Decoded", "Measured", "Plan", "copy_bandwidth", "decoding", "measure"]

GPU_TOKENS, GPU_WIDTH = 16_384, 2048
"""Tokens and features of a batch on a GPU, whatever the length and the head width: as published benchmarks have it."""

CPU_FEATURES = 128
SPLITS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Plan:
    """What is to be measured. dtype: of the tensors."""

    device: str
    dtype: torch.dtype
    lengths: tuple[int, ...]
    widths: tuple[int, ...]
    backward: bool

    def shape(self, S: int, D: int) -> tuple[int, int, int, int]:
        """(B, H, S, D)."""
        if self.device == "cpu":
            return 1, max(1, CPU_FEATURES // D), S, D
        return max(1, GPU_TOKENS // S), GPU_WIDTH // D, S, D


@dataclass(frozen=True)
class Measured:
    """One contender in one case. elements: of the query. flops: of the formula, in operations; counted and largest: what
    the call really does, in operations and elements, where it can be seen; seconds or, if there are none, why not."""

    direction: str
    D: int
    is_causal: bool
    S: int
    name: str
    elements: int
    flops: float
    seconds: float | None = None
    counted: int | None = None
    largest: int | None = None
    why_not: str = ""

    @property
    def tflops(self) -> float | None:
        """10^12 operations of the formula a second."""
        return self.flops / self.seconds / 1e12 if self.seconds else None


@dataclass(frozen=True)
class Decoded:
    """One new token against a cache of S: seconds, and bytes of the cache read a second."""

    S: int
    name: str
    seconds: float | None
    bytes: int
    why_not: str = ""
    note: str = field(default="")

    @property
    def bandwidth(self) -> float | None:
        """Bytes a second."""
        return self.bytes / self.seconds if self.seconds else None


def _flops(shape: tuple[int, int, int, int], is_causal: bool, direction: str) -> float:
    """Two products forward, five backward (one of them recomputes the scores); half of each where it is causal."""
    B, H, S, D = shape
    products = 2 if direction == "forward" else 5
    return 2.0 * products * B * H * S * S * D / (2 if is_causal else 1)


def measure(plan: Plan, ways: Sequence[Contender]) -> Iterator[Measured]:
    """Every case, the contenders in turn within one."""
    for D in plan.widths:
        for is_causal in (False, True):
            for S in plan.lengths:
                shape = plan.shape(S, D)
                inputs = [torch.randn(shape, dtype=plan.dtype, device=plan.device) for _ in range(4)]
                yield from _case(plan, "forward", ways, inputs, is_causal)
                if plan.backward:
                    yield from _case(plan, "backward", [w for w in ways if w.backward], inputs, is_causal)


def _case(
    plan: Plan, direction: str, ways: Sequence[Contender], inputs: list[Tensor], is_causal: bool
) -> Iterable[Measured]:
    B, H, S, D = inputs[0].shape
    query, key, value = inputs[:3]
    make = _forward if direction == "forward" else _backward
    calls: dict[str, Callable[[], Any]] = {}
    failed: dict[str, str] = {}
    for way in ways:
        try:
            calls[way.name] = make(way, inputs, is_causal)
        except Exception as error:  # noqa: BLE001  a backend that refuses this shape
            failed[way.name] = complaint(error)
    seconds, refused = seconds_of(calls, plan.device)
    failed |= refused
    for way in ways:
        counted = largest = None
        if way.counted and direction == "forward" and plan.device == "cpu" and way.name in seconds:
            with torch.no_grad():
                seen = observe(partial(_attend, way, is_causal), {"query": query, "key": key, "value": value})
            counted, largest = seen.flops, seen.largest
        yield Measured(
            direction,
            D,
            is_causal,
            S,
            way.name,
            inputs[0].numel(),
            _flops((B, H, S, D), is_causal, direction),
            seconds.get(way.name),
            counted,
            largest,
            failed.get(way.name, ""),
        )


def _attend(way: Contender, is_causal: bool, given: Mapping[str, Tensor]) -> Tensor:
    return way.attend(given["query"], given["key"], given["value"], is_causal)


def _forward(way: Contender, inputs: list[Tensor], is_causal: bool) -> Callable[[], Any]:
    query, key, value, _ = inputs

    def call() -> Any:
        with torch.no_grad():
            return way.attend(query, key, value, is_causal)

    return call


def _backward(way: Contender, inputs: list[Tensor], is_causal: bool) -> Callable[[], Any]:
    leaves = [one.detach().requires_grad_() for one in inputs[:3]]
    output = way.attend(leaves[0], leaves[1], leaves[2], is_causal)
    return lambda: torch.autograd.grad(output, leaves, inputs[3], retain_graph=True)


def copy_bandwidth(device: str) -> float:
    """Bytes read and written a second by a copy that no cache holds."""
    size = 1 << (30 if device == "cuda" else 26)
    source = torch.empty(size, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    seconds, _ = seconds_of({"copy": lambda: target.copy_(source)}, device)
    return 2 * size / seconds["copy"]


def decoding(plan: Plan, kernels: ModuleType) -> Iterator[Decoded]:
    """One token for each of 32 sequences, 32 query heads that share 8 key heads, against caches of all lengths."""
    B, H_q, H_kv, D = 32, 32, 8, 128
    for S in plan.lengths:
        query = torch.randn(B, H_q, D, dtype=plan.dtype, device=plan.device)
        key, value = (torch.randn(B, H_kv, S, D, dtype=plan.dtype, device=plan.device) for _ in range(2))
        lengths = torch.full((B,), S, dtype=torch.int32, device=plan.device)
        size = 2 * key.numel() * key.element_size()

        def split(
            splits: int,
            query: Tensor = query,
            key: Tensor = key,
            value: Tensor = value,
            lengths: Tensor = lengths,
        ) -> Callable[[], Any]:
            return lambda: kernels.decode_attention(query, key, value, lengths, num_splits=splits)

        def fused(query: Tensor = query, key: Tensor = key, value: Tensor = value) -> Any:
            return torch.nn.functional.scaled_dot_product_attention(
                query.unsqueeze(2), key, value, enable_gqa=True
            )

        seconds, failed = seconds_of(
            {**{str(n): split(n) for n in SPLITS if n <= S // 16}, "SDPA": fused}, plan.device
        )
        ours = {int(n): t for n, t in seconds.items() if n != "SDPA"}
        best = min(ours, key=ours.__getitem__, default=0)
        why = next((text for name, text in failed.items() if name != "SDPA"), "")
        yield Decoded(S, OURS, ours.get(best), size, why if not ours else "", f"{best} parts")
        yield Decoded(S, "SDPA", seconds.get("SDPA"), size, failed.get("SDPA", ""))
