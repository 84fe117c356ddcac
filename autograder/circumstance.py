"""Circumstances of a call: modes of torch, a second device, unwritten memory, tensors that are used again.

A student's code meets them wherever it runs: the judge sets one with `under`, and whoever makes the call, here or in the
worker, makes it through `performed`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module
from torch.overrides import TorchFunctionMode

from autograder.kernels.far import far_apart, guarded
from autograder.kernels.tiles import declared_tiles
from autograder.observation import unchanged
from autograder.trees import mapped

__all__ = [
    "ORDINARY",
    "Circumstance",
    "InputWrittenTo",
    "MixedDevices",
    "ModeLeft",
    "entered",
    "modes_kept",
    "performed",
    "present",
    "require_untouched",
    "standing",
    "under",
    "with_state",
]


class MixedDevices(RuntimeError):
    """Tensors of two devices met in one operation."""


class EarlierResultChanged(RuntimeError):
    """A call wrote into what an earlier one had returned."""


class InputWrittenTo(RuntimeError):
    """A call changed what it was given."""


class ModeLeft(RuntimeError):
    """A call switched a mode of torch, and left it so."""


@contextlib.contextmanager
def modes_kept() -> Iterator[None]:
    """A block after which torch's modes are as they were before. Raises: ModeLeft if they were not."""
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
    finally:
        left = {
            "grad mode": torch.is_grad_enabled() != grad,
            "default dtype": torch.get_default_dtype() != dtype,
        }
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
    if any(left.values()):
        raise ModeLeft(
            f"the call changes torch's {next(n for n, one in left.items() if one)}, and leaves it so"
        )


@dataclass(frozen=True)
class Circumstance:
    """How a call is made.

    grad: "", "no_grad", "inference_mode" or "checkpoint" (activation checkpointing). default_dtype:
    torch's, "" as it is. second_device: inputs and weights count as tensors of another device. poisoned: what torch.empty
    and its like give is nan. before: "", "other numbers" (a first call on other numbers in the very same tensors), "other
    weights" (in the weights alone, as an optimizer changes them),
    "results" (a first call whose results are then written over) or "apart" (a first call on other tensors, whose result must
    stay). watched: an input that the call writes to is an error. one_object: inputs that hold the same numbers are handed over
    as one object. far: the elements of each tensor's first axis, if there are
    more than two, lie so far apart in memory that 32 bits do not hold their distance. tiles: autotuned kernels run with that
    one of the configurations declared for them, counted from 0 and round.
    """

    grad: str = ""
    default_dtype: str = ""
    second_device: bool = False
    poisoned: bool = False
    before: str = ""
    watched: bool = False
    one_object: bool = False
    far: bool = False
    tiles: int = 0

    def to_dict(self) -> dict[str, Any]:
        """What differs from the ordinary, as plain values."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Circumstance:
        """What `to_dict` gave; unknown names are left out."""
        return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})


ORDINARY = Circumstance()
_present: ContextVar[Circumstance] = ContextVar("circumstance", default=ORDINARY)


def present() -> Circumstance:
    """The circumstance in which student code is to be called."""
    return _present.get()


@contextlib.contextmanager
def under(circumstance: Circumstance) -> Iterator[None]:
    """A block whose calls of student code are made in this circumstance."""
    token = _present.set(circumstance)
    try:
        yield
    finally:
        _present.reset(token)


HERE, THERE = "the default device", "the inputs' device"
ASIDE = frozenset({
    "__getitem__", "__setitem__", "_index_put_impl_", "broadcast_tensors", "can_cast", "copy_", "expand_as", "index_put",
    "index_put_", "is_same_size", "new_tensor", "reshape_as", "result_type", "set_", "to", "type_as", "view_as",
})  # fmt: skip
"""Functions that may be given tensors of two devices."""
TO_NUMPY = ("numpy", "__array__")
"""Functions that need a tensor on the CPU."""
SECOND = torch.device("cpu", 0)
"""What a tensor of the second device says that it is on: another device than "cpu", on which torch works all the same."""
EMPTY = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})


DEVICE_OF = torch.Tensor.device.__get__


class _Devices(TorchFunctionMode):
    """Tells tensors of two devices apart, on a machine that has one: a mark on each tensor says where it would be.

    What is made of marked tensors has their mark. What a factory makes has the inputs' mark if it was told their device, and
    the default one's if not. A number, a tensor of no axes, goes with any device; a tensor without a mark, too.
    """

    def __init__(self, apart: bool, poisoned: bool):
        super().__init__()
        self.apart, self.poisoned = apart, poisoned
        self.mapped = False  # torch.vmap hands out tensors without a mark

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if not self.apart:
            return self._made(name, func(*args, **kwargs))
        if name == "__get__" and func == DEVICE_OF:
            return SECOND if _place(args[0]) == THERE else func(*args, **kwargs)
        given = [*_tensors(args), *(_tensors(kwargs.values()) if kwargs else ())]
        here = there = False
        for one in given:
            place = _place(one)
            here, there = here or place == HERE, there or place == THERE
        if name in TO_NUMPY and there:
            raise MixedDevices(
                f"Can't convert a tensor on the inputs' device to numpy: in {name}. Use Tensor.cpu() to copy it to host memory "
                "first"
            )
        if here and there:
            self._meet(name, args, given)
        result = self._made(name, func(*args, **kwargs))
        if name == "__iter__":
            result = list(result)
        place = THERE if there else HERE if here else None
        self.mapped = self.mapped or any(map(torch._C._functorch.is_functorch_wrapped_tensor, given))
        if place is None or name in ("to", "cpu"):
            device = kwargs.get("device", next((one for one in args if isinstance(one, torch.device)), None))
            if place is None and name not in ("__get__", "__iter__") and not (self.mapped and given):
                place = THERE if device == SECOND else HERE
            elif name == "cpu" or (name == "to" and (isinstance(device, str) or "cpu" in args)):
                place = HERE
            elif name == "to" and isinstance(device, torch.device):
                place = THERE if device == SECOND else HERE
        if place is not None:
            mark((result,) if isinstance(result, Tensor) else _tensors([result]), place)
        return iter(result) if name == "__iter__" else result

    def _meet(self, name: str, args: Any, given: list[Tensor]) -> None:
        """Tensors of both devices are given to one function. Raises: MixedDevices if it takes no such."""
        strangers: list[Tensor] = []
        if name not in ASIDE:
            strangers = [one for one in given if _place(one) == HERE and one.dim()]
        elif name == "__getitem__":  # an index may stand on the CPU, what is indexed not
            by = [one for one in _tensors(args[1:]) if _place(one) == THERE and one.dim()]
            strangers = [args[0]] if by and _place(args[0]) == HERE else []
        if strangers:
            raise MixedDevices(
                f"Expected all tensors to be on the same device: in {name} a tensor {tuple(strangers[0].shape)} on cpu "
                "met one on the inputs' device"
            )

    def _made(self, name: str, result: Any) -> Any:
        if self.poisoned and name in EMPTY and isinstance(result, Tensor) and result.is_floating_point():
            with torch.no_grad():
                result.fill_(torch.nan)
        return result


def _place(tensor: Tensor) -> str | None:
    return getattr(tensor, "_stands_on", None)


def mark(tensors: Iterable[Tensor], place: str) -> None:
    """These tensors stand there from now on."""
    for one in tensors:
        one._stands_on = place  # type: ignore[attr-defined]


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if issubclass(type(value), Tensor):  # isinstance believes what __class__ says
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
        elif isinstance(value, dict):
            found += _tensors(value.values())
    return found


@contextlib.contextmanager
def entered(circumstance: Circumstance, tensors: Iterable[Tensor] = ()) -> Iterator[None]:
    """A block in this circumstance: its modes are on, and the tensors stand on the second device if there is one."""
    if circumstance == ORDINARY:
        yield
        return
    with contextlib.ExitStack() as stack:
        if circumstance.grad == "no_grad":
            stack.enter_context(torch.no_grad())
        elif circumstance.grad == "inference_mode":
            stack.enter_context(torch.inference_mode())
        if circumstance.default_dtype:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(getattr(torch, circumstance.default_dtype))
        if circumstance.second_device or circumstance.poisoned:
            if circumstance.second_device:
                mark(tensors, THERE)
            stack.enter_context(_Devices(circumstance.second_device, circumstance.poisoned))
        if circumstance.tiles:
            stack.enter_context(declared_tiles(circumstance.tiles))
        if circumstance.far:
            stack.enter_context(guarded())
        yield


Change = Callable[[Tensor], Tensor]
"""What is handed over in place of a tensor."""

Pairs = Iterable[tuple[Tensor, Tensor]]
"""Tensors as they were, each with what it is now."""


def performed(
    call: Callable[[Change], Any],
    given: Any,
    circumstance: Circumstance,
    module: nn.Module | None = None,
    tell: Callable[[Pairs], None] | None = None,
    weights: Iterable[Tensor] = (),
) -> Any:
    """What `call(change)` returns in this circumstance, `change` being what is done to each tensor on its way.

    given: the tensors that it works on, in any tree; weights: which of them are. tell: takes earlier results, each as it was
    and as it is now, where these and what became of `given` are looked at by somebody else.
    Raises: InputWrittenTo if the call is watched and changes one; EarlierResultChanged; MixedDevices; ModeLeft; whatever the
    call raises.
    """
    with modes_kept():
        return _performed(call, given, circumstance, module, tell, weights)


def _performed(
    call: Callable[[Change], Any],
    given: Any,
    circumstance: Circumstance,
    module: nn.Module | None,
    tell: Callable[[Pairs], None] | None,
    weights: Iterable[Tensor],
) -> Any:
    if circumstance == ORDINARY:
        return call(_same)
    tensors = list({id(one): one for one in _tensors([given])}.values())
    if circumstance.one_object:
        tensors, call = _as_one(tensors, call)
    moved = [*tensors, *((*module.parameters(), *module.buffers()) if module is not None else ())]
    if circumstance.second_device and module is not None:
        # What an earlier call has left there stands where it was made.
        mark([one for one in _tensors(list(vars(module).values())) if _place(one) is None], HERE)
    kept = [one.detach().clone() for one in tensors]
    with entered(circumstance, moved):
        earlier = _called_before(call, tensors, kept, circumstance, list(weights))
        handed = far_apart if circumstance.far else _same
        result = _computed_again(call, tensors) if circumstance.grad == "checkpoint" else call(handed)
    _require_memory(tensors)
    if circumstance.second_device and any(_place(one) == HERE and one.dim() for one in _tensors([result])):
        raise MixedDevices("a result is on cpu, and not on the inputs' device")
    if tell is not None:
        tell(earlier)
    else:
        require_untouched(zip(kept, tensors, strict=True) if circumstance.watched else (), earlier)
    return result


def require_untouched(inputs: Pairs, earlier: Pairs) -> None:
    """Inputs and earlier results hold what they held. Raises: InputWrittenTo, EarlierResultChanged."""
    if not all(unchanged(before, now) for before, now in earlier):
        raise EarlierResultChanged("a later call changed an earlier result")
    if not all(unchanged(before, now) for before, now in inputs):
        raise InputWrittenTo("the call changed its input")


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _require_memory(tensors: list[Tensor]) -> None:
    """Raises: InputWrittenTo if an input's storage no longer holds its elements."""
    for one in tensors:
        last = one.storage_offset() + 1
        for size, step in zip(one.shape, one.stride(), strict=True):
            last += (size - 1) * step
        if one.numel() and one.untyped_storage().nbytes() < last * one.element_size():
            raise InputWrittenTo("the call took its input's memory away")


def _as_one(
    tensors: list[Tensor], call: Callable[[Change], Any]
) -> tuple[list[Tensor], Callable[[Change], Any]]:
    """The different ones among the tensors, and the call with those in place of all; its gradients are theirs."""
    first: dict[int, Tensor] = {}
    kept: list[Tensor] = []
    for one in tensors:
        twins = (o for o in kept if one.is_floating_point() and one.dtype == o.dtype and torch.equal(one, o))
        first[id(one)] = found = next(twins, one)
        if found is one:
            kept.append(one)
    return kept, lambda change: call(lambda one: change(first.get(id(one), one)))


def _computed_again(call: Callable[[Change], Any], tensors: list[Tensor]) -> Any:
    """The call under activation checkpointing: nothing is kept of it, and its backward pass computes it again.

    torch.utils.checkpoint does the same, after two seconds of imports.
    """
    holder: list[Any] = []
    outputs = _Again.apply(call, holder, *tensors)
    rest = iter(outputs if isinstance(outputs, tuple) else (outputs,))
    return mapped(holder[0], lambda one: next(rest) if isinstance(one, Tensor) else one)


class _Again(torch.autograd.Function):
    """A call whose backward pass makes it again, on copies of its tensors."""

    @staticmethod
    def forward(ctx: Any, call: Callable[[Change], Any], holder: list[Any], *tensors: Tensor) -> Any:
        ctx.call, ctx.tensors = call, tensors
        result = call(_same)
        holder.append(result)
        found = _tensors([result])
        return tuple(one.detach().clone() for one in found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        copies = {id(one): one.detach().requires_grad_(one.requires_grad) for one in ctx.tensors}
        with torch.enable_grad():
            again = _tensors([ctx.call(lambda one: copies.get(id(one), one))])
        pairs = [(o, g) for o, g in zip(again, gradients, strict=True) if o.requires_grad]
        leaves = [copy for copy in copies.values() if copy.requires_grad]
        found = (
            torch.autograd.grad([o for o, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True)
            if pairs
            else [None] * len(leaves)
        )
        of = dict(zip(map(id, leaves), found, strict=True))
        return (None, None, *(of.get(id(copies[id(one)])) for one in ctx.tensors))


def standing(
    module: nn.Module, state: Mapping[str, Tensor], tie: bool = True
) -> contextlib.AbstractContextManager[None]:
    """A block in which the module holds these weights: what activation checkpointing computes again must meet them, too."""
    return _reparametrize_module(module, dict(state), tie_weights=tie)


def with_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    stood: contextlib.ExitStack,
    tie: bool = True,
) -> Any:
    """The module's result with these weights; where a backward pass computes it again, they stay in `stood` for what follows.

    What a backward pass computes again ends as soon as it has what it needs, and goes on with these weights.
    """
    try:
        return torch.func.functional_call(module, dict(state), args, dict(kwargs), tie_weights=tie)
    finally:
        if torch._C._current_graph_task_id() != -1:
            stood.close()
            stood.enter_context(standing(module, state, tie))


def _called_with_other_weights(call: Callable[[Change], Any], weights: list[Tensor]) -> None:
    """A first call, after which the weights are changed in place."""
    numbers = [one.detach().clone() for one in weights]
    with torch.no_grad():
        for one in weights:
            one.copy_(_others(one))
    call(_same)
    with torch.no_grad():
        for one, before in zip(weights, numbers, strict=True):
            one.copy_(before)


def _called_before(
    call: Callable[[Change], Any],
    tensors: list[Tensor],
    kept: list[Tensor],
    circumstance: Circumstance,
    weights: list[Tensor],
) -> list[tuple[Tensor, Tensor]]:
    """A first call. On other tensors: its results, each after a copy. On the same ones: then the results are written over."""
    if circumstance.before == "apart":

        def other(tensor: Tensor) -> Tensor:
            made = _others(tensor).requires_grad_(tensor.requires_grad and tensor.is_floating_point())
            if circumstance.second_device:
                mark([made], THERE)
            return made

        return [(one.detach().clone(), one.detach()) for one in _tensors([call(other)])]
    if circumstance.before == "other weights":
        _called_with_other_weights(call, weights)
    if circumstance.before in ("", "other weights"):
        return []
    if circumstance.before == "other numbers":
        for one in tensors:
            _write(one, _others(one))
    results = _tensors([call(_same)])
    _require_memory(tensors)
    for result in results:
        _write(
            result,
            torch.full_like(result, torch.nan) if result.is_floating_point() else torch.zeros_like(result),
        )
    for one, before in zip(tensors, kept, strict=True):
        _write(one, before)
    return []


def _others(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point():
        return tensor.detach() * 0.5 + 0.25
    return (
        tensor.flip(-1) if tensor.dim() else tensor.clone()
    )  # whole numbers, too: indices stay in their range


def _write(tensor: Tensor, numbers: Tensor) -> None:
    """Other numbers in the same memory, where the tensor has memory of its own."""
    overlapping = any(
        step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
    if not overlapping and not (tensor.is_leaf and tensor.requires_grad):
        with torch.no_grad():
            tensor.detach().copy_(numbers)
