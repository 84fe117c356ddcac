"""One backend on one case: what it computes, and how it behaves while it does."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from autograder.kernels import Launch, quick_interpreter, recording
from autograder.observation import unobserved
from autograder.parity.backends import Backend, Flex, Sdpa, precise
from autograder.parity.cases import Inputs
from autograder.parity.comparison import GRADIENTS

__all__ = ["Run", "run_watched"]

TELLING = 3
"""So many times larger than the inputs the matrix of scores must be for its absence to tell anything."""


@dataclass(frozen=True)
class Run:
    """Quantities by name, on the CPU, and complaints about conduct. crash says how a run ended that has no results.

    largest: the largest tensor that the forward pass makes, as a multiple of the matrix of scores; None where the inputs
    are not much smaller than that, or torch cannot be watched. launches: the Triton kernels that were launched, where a file of
    kernels was run.
    """

    results: Mapping[str, Tensor] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()
    crash: str | None = None
    largest: float | None = None
    launches: tuple[Launch, ...] = ()


@contextlib.contextmanager
def _poisoned() -> Iterator[None]:
    """A block in which memory that torch hands out unwritten holds nan: what a kernel forgets to write shows."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def run_watched(backend: Backend, inputs: Inputs, precision: str) -> Run:
    """Run it twice, the first time on poisoned memory. An exception is a crash, with its first line."""
    try:
        # Poisoning makes torch deterministic, and that makes it choose other kernels of its own on a GPU.
        own = isinstance(backend, Sdpa) and inputs.query.is_cuda
        with precise(precision), quick_interpreter():
            with contextlib.nullcontext() if own else _poisoned():
                first, complaints = _once(backend, inputs)
            second, _ = _once(backend, inputs)
            largest = _largest(backend, inputs)
    except Exception as error:  # noqa: BLE001 (whatever a kernel raises is a line of the report)
        text = (str(error).strip() or "no message").split("\n")[0][:200]
        return Run(crash=f"{type(error).__name__}: {text}")
    return Run(first, (*complaints, *_compared(first, second)), largest=largest)


def _once(backend: Backend, inputs: Inputs) -> tuple[dict[str, Tensor], list[str]]:
    differentiable = backend.why_no_gradients(inputs) is None
    leaves = [
        x.detach().requires_grad_(differentiable) for x in inputs.tensors
    ]  # the same memory and strides
    before = [x.detach().clone() for x in inputs.tensors]
    with torch.set_grad_enabled(differentiable):
        query, key, value = leaves
        result = backend.run_masked(replace(inputs, query=query, key=key, value=value))
    found, complaints = {"output": result.output}, []
    if result.log_sum_exp is not None:
        found["log_sum_exp"] = result.log_sum_exp
    if differentiable and not result.output.requires_grad:
        complaints.append("the output carries no gradient")
    elif differentiable:
        gradients = torch.autograd.grad(result.output, leaves, inputs.upstream, allow_unused=True)
        for name, gradient in zip(GRADIENTS, gradients, strict=True):
            if gradient is None:
                complaints.append(f"there is no {name}")
            else:
                found[name] = gradient
    for name, x, was in zip(("query", "key", "value"), inputs.tensors, before, strict=True):
        if not torch.equal(x.nan_to_num(), was.nan_to_num()):
            complaints.append(f"it writes into {name}")
    return {name: x.detach().cpu() for name, x in found.items()}, complaints


def _compared(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Iterator[str]:
    """Complaints about what differs between a run on poisoned memory and another."""
    for name, poisoned in first.items():
        again = second.get(name, poisoned[:0])
        if poisoned.shape == again.shape and bool((poisoned.isnan() & ~again.isnan()).any()):
            yield f"{name} is not written everywhere"
        elif name in GRADIENTS:
            continue  # sums by atomic additions come in any order; the tolerance judges them
        elif poisoned.shape != again.shape or not torch.equal(poisoned.nan_to_num(), again.nan_to_num()):
            yield f"{name} differs on a second call"


class _Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that torch makes."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                # A view may show more elements than memory holds, or fewer.
                held = min(value.numel() * value.element_size(), value.untyped_storage().nbytes())
                self.size = max(self.size, held)
        return result


def _largest(backend: Backend, inputs: Inputs) -> float | None:
    """The largest tensor of a forward pass over the matrix of scores: 1 or more is attention that is not fused."""
    scores = inputs.query.shape[:-1].numel() * inputs.key.shape[-2]
    largest_input = max(x.numel() for x in inputs.tensors)
    if isinstance(backend, Flex) or scores < TELLING * largest_input:
        return None  # (FlexAttention cannot be watched)
    with recording(unobserved), torch.no_grad(), _Largest() as watched:
        backend.run_masked(inputs)
    return watched.size / (scores * inputs.query.element_size())
