"""Watching a call: which torch functions it uses, what it costs, and whether it writes into its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Observation", "observe"]


@dataclass(frozen=True)
class Observation:
    """What one call did.

    flops: floating-point operations of its matrix products (two a multiply-add). largest: elements of the largest
    tensor it made. calls: names of the torch functions and operators it used. modified: inputs it wrote into.
    """

    flops: int
    largest: int
    calls: frozenset[str]
    modified: tuple[str, ...]


class _Functions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.add(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.add(func.overloadpacket.__name__)
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            # A view shares its storage: what counts is memory that is really there.
            if isinstance(value, Tensor):
                held = value.untyped_storage().nbytes() // max(1, value.element_size())
                self.largest = max(self.largest, min(held, value.numel()))
        return result


def observe(call: Callable[[Mapping[str, Any]], Any], inputs: Mapping[str, Any]) -> Observation:
    """Run `call(inputs)` and watch it. The call gets clones of the tensors; what it raises is passed on."""
    given = {n: v.clone() if isinstance(v, Tensor) else v for n, v in inputs.items()}
    functions, operators, flops = _Functions(), _Operators(), FlopCounterMode(display=False)
    with functions, flops, operators:
        call(given)
    modified = tuple(
        name for name, value in inputs.items() if isinstance(value, Tensor) and not _same(value, given[name])
    )
    calls = frozenset(functions.calls | operators.calls)
    return Observation(int(flops.get_total_flops()), operators.largest, calls, modified)


def _same(before: Tensor, after: Tensor) -> bool:
    return before.shape == after.shape and torch.equal(before.nan_to_num(), after.nan_to_num())
