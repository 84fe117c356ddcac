"""Watching a call: which torch functions and kernels it uses, what it costs, and whether it writes into its inputs."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

from autograder.kernels.gpu import choose_mode
from autograder.kernels.launches import Launch, TooManyLaunches, recording

choose_mode()

from torch.utils.flop_counter import flop_registry  # noqa: E402

__all__ = ["USES", "Observation", "apart", "laid_out", "observe", "unchanged", "unobserved"]


@dataclass(frozen=True)
class Observation:
    """What one call did.

    flops: floating-point operations of its matrix products (two a multiply-add). largest: elements of the largest
    tensor it made. held: most elements that its tensors had at one time, the inputs aside. made: elements of all of them,
    one after the other. calls: names of the torch functions and operators it used. modified: inputs it wrote into.
    launches: the Triton kernels it launched. unwritten: elements of its results that it never wrote, in memory that
    torch.empty and its like had given it: there such memory begins as nan. reckoned: numbers that torch calculated with,
    other than to move or convert them, or that left it. launched, programs: how many launches there were, and programs in
    them. strayed, raced, narrowed: kernels that left their tensors' memory, whose programs get into each other's way, and
    that multiply float32 tiles in TF32 on a GPU.
    """

    flops: int
    largest: int
    calls: frozenset[str]
    modified: tuple[str, ...]
    held: int = 0
    made: int = 0
    launches: tuple[Launch, ...] = ()
    unwritten: int = 0
    reckoned: int = 0
    launched: int = 0
    programs: int = 0
    strayed: tuple[str, ...] = ()
    raced: tuple[str, ...] = ()
    narrowed: tuple[str, ...] = ()


VECTORS = frozenset({"mv", "addmv", "dot", "vdot"})
"""Products with a vector, which torch's own formulas leave out."""

EMPTY = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})
"""Operators that make tensors of whatever the memory held before."""

MOVES = EMPTY | {
    "arange", "cat", "clone", "constant_pad_nd", "copy_", "fill_", "full", "full_like", "gather", "index", "index_put_",
    "index_select", "masked_fill", "masked_fill_", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "pad", "repeat",
    "roll", "scalar_tensor", "scatter", "scatter_", "set_", "slice_scatter", "stack", "_to_copy", "tril", "triu", "where",
    "zero_", "zeros", "zeros_like",
}  # fmt: skip
"""Operators that put numbers somewhere, and calculate nothing; those that make views are known by their shared memory."""

READS = frozenset({"numpy", "tolist", "__array__", "__dlpack__"})
"""Ways in which all numbers of a tensor leave torch."""

USES = 8
"""How often, at least, a number that leaves torch is calculated with there."""


class _Functions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: set[str] = set()
        self.read = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        self.calls.add(name)
        if name in READS and args and isinstance(args[0], Tensor):
            self.read += USES * args[0].numel()
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    """Counts with the formulas of torch's own FlopCounterMode, without its second of import time."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: set[str] = set()
        self.flops = self.largest = 0
        self.live = self.held = self.made = self.reckoned = 0
        self.known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.poisoned = False

    def know(self, tensors: Iterable[Tensor]) -> None:
        """These tensors' memory is not the call's own."""
        for one in tensors:
            self.known[one.untyped_storage()] = None

    def _take(self, storage: torch.UntypedStorage, elements: int) -> None:
        """Memory that is new counts from now on, until it is let go."""
        if storage in self.known:
            return
        self.known[storage] = None
        self.live += elements
        self.made += elements
        self.held = max(self.held, self.live)
        weakref.finalize(storage, self._let_go, elements).atexit = False

    def _reckon(self, func: Any, given: Any, result: Any) -> None:
        """Numbers that an operator calculates with: those it reads or makes, whichever are more. A view is none."""
        taken, made = _tensors(given), _tensors(result)
        memory = {one.untyped_storage()._cdata for one in taken}
        shares = made and all(one.untyped_storage()._cdata in memory for one in made)
        if not shares or func._schema.is_mutable:
            self.reckoned += max((one.numel() for one in (*taken, *made)), default=0)

    def _let_go(self, elements: int) -> None:
        self.live -= elements

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True would import torch._dynamo, a second and more, only to tell it to keep out.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = func.overloadpacket
        self.calls.add(operator.__name__)
        result = func(*args, **(kwargs or {}))
        if operator.__name__ in EMPTY and result.is_floating_point():
            result.fill_(torch.nan)
            self.poisoned = True
        if operator.__name__ == "_local_scalar_dense":  # one number leaves torch
            self.reckoned += USES
        elif operator.__name__ not in MOVES:
            self._reckon(func, [*args, *(kwargs or {}).values()], result)
        if operator in flop_registry:
            self.flops += int(flop_registry[operator](*args, **(kwargs or {}), out_val=result))
        elif operator.__name__ in VECTORS:
            self.flops += 2 * max(one.numel() for one in args if isinstance(one, Tensor))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            # A view shares its storage: what counts is memory that is really there.
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                elements = storage.nbytes() // max(1, value.element_size())
                self.largest = max(self.largest, min(elements, value.numel()))
                self._take(storage, elements)
        return result


def observe(
    call: Callable[[Mapping[str, Any]], Any], inputs: Mapping[str, Any], *, idle: bool = False
) -> Observation:
    """Run `call(inputs)` and watch it, and its backward pass if an input wants a gradient.

    The call gets clones of the tensors; what it raises is passed on. idle: kernels are launched, but do not run.
    """
    leaves = {
        name: value.detach().clone().requires_grad_(value.requires_grad)
        for name, value in inputs.items()
        if isinstance(value, Tensor)
    }
    wanted = [leaf for leaf in leaves.values() if leaf.requires_grad]
    given = {**inputs, **{n: leaf.clone() if leaf.requires_grad else leaf for n, leaf in leaves.items()}}
    functions, operators = _Functions(), _Operators()
    operators.know(one for one in given.values() if isinstance(one, Tensor))
    with recording(unobserved, idle=idle, memory=True) as launches, functions, operators:
        try:
            results = [call(given)]
        except TooManyLaunches:  # which nobody needs to wait for
            results = []
        outputs = [one for one in _tensors(results) if one.requires_grad] if wanted else []
        if outputs:
            ones = [torch.ones_like(one) for one in outputs]
            results += torch.autograd.grad(outputs, wanted, ones, allow_unused=True)
    return Observation(
        operators.flops,
        operators.largest,
        frozenset(functions.calls | operators.calls),
        tuple(name for name in leaves if not unchanged(inputs[name], given[name])),
        operators.held,
        operators.made,
        tuple(launches),
        sum(int(one.isnan().sum()) for one in _tensors(results)) if operators.poisoned else 0,
        operators.reckoned + functions.read,
        launches.launched,
        launches.programs,
        tuple(launches.strayed),
        tuple(launches.raced),
        tuple(launches.narrowed),
    )


def _tensors(value: Any) -> list[Tensor]:
    """The tensors of a result."""
    if isinstance(value, Tensor):
        return [value]
    return [one for item in value for one in _tensors(item)] if isinstance(value, (tuple, list)) else []


@contextlib.contextmanager
def unobserved() -> Iterator[None]:
    """A block whose work no observation counts."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function to hand to a student's code, as a model is: its own work counts in no observation, and has no gradient."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with unobserved(), torch.no_grad():
            return function(*args, **kwargs)

    return call


def laid_out(places: Mapping[str, Any]) -> dict[str, Any]:
    """The places, with the items of a list or tuple in places of their own: `a0` as `a0.0`, `a0.1` and so on."""
    flat: dict[str, Any] = {}
    for name, value in places.items():
        many = isinstance(value, (list, tuple)) and all(isinstance(one, Tensor) for one in value)
        flat |= {f"{name}.{n}": one for n, one in enumerate(value)} if many else {name: value}
    return flat


def unchanged(before: Tensor, after: Tensor) -> bool:
    """Whether a tensor still holds the same numbers; nan counts as a number here."""
    same = before.shape == after.shape
    return same and (torch.equal(before, after) or torch.equal(before.nan_to_num(), after.nan_to_num()))
