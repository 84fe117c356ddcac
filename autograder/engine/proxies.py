"""What stands for a student's function or module in the judge: it sends arguments and gets arrays back."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from autograder.checks.deadline import OutOfTime
from autograder.checks.objects import Remote, RemoteObject
from autograder.circumstance import present, require_untouched
from autograder.engine.dialogue import Stopped, Worker, stand_for
from autograder.engine.plain import plain
from autograder.engine.wire import Handle, Opaque
from autograder.kernels import Launch
from autograder.observation import Observation, laid_out, unchanged
from autograder.trees import mapped

__all__ = ["ClassProxy", "FunctionProxy", "ObjectProxy", "resolve"]

NAME = re.compile(r"[A-Za-z_0-9]+(\.[A-Za-z_0-9]+)*")
MOST_WEIGHTS, MOST_LEVELS, MOST_LAUNCHES = 1000, 16, 64
COUNTS = ("flops", "largest", "held", "made", "unwritten", "reckoned", "launched", "programs")
"""Whole numbers in an observation."""

NONSENSE = "the process sent an observation that makes no sense"


def resolve(worker: Worker, name: str) -> Any:
    """What `name` stands for in the worker: a proxy, a plain value, or an Opaque.

    Raises: NameError if the worker does not know it, Stopped if the worker is gone.
    """
    answer = worker.ask("look", name=name)
    kind = answer.get("kind")
    if kind == "missing":
        raise NameError(f"name {name!r} is not defined")
    if kind == "value":
        value = answer.get("value")
        return stand_for(value) if isinstance(value, Opaque) else value
    number = answer.get("object")
    if kind in ("function", "class") and isinstance(number, int):
        proxy = (ClassProxy if kind == "class" else FunctionProxy)(worker, number)
        uses = answer.get("uses")
        proxy.uses = frozenset(map(str, uses)) if isinstance(uses, list) else frozenset()
        return proxy
    raise Stopped("the process sent an answer that makes no sense")


def _unwrap(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer, or the exception that the student's code raised, under its own name."""
    raised = answer.get("raised")
    if raised is None:
        return answer
    if not isinstance(raised, Mapping):
        raise Stopped("the process sent an error that makes no sense")
    name, message = (plain(str(raised.get(key, "")), most) for key, most in (("name", 80), ("message", 2000)))
    if name == "OutOfTime":
        raise OutOfTime
    bases = raised.get("bases")
    raise _exception(
        name if name.isidentifier() else "Error", message, bases if isinstance(bases, list) else []
    )


def _exception(name: str, message: str, bases: list[Any]) -> Exception:
    """An exception of this name, and of the first of the built-in kinds that can be made from a message."""
    for base in [getattr(builtins, str(kind), None) for kind in bases]:
        if isinstance(base, type) and issubclass(base, Exception) and base is not StopIteration:
            try:
                made: Exception = type(name, (_Raised, base), {})(message)
            except TypeError:
                continue  # a UnicodeDecodeError takes more than a message; the ValueError that it is, too, does not
            return made
    found: Exception = type(name, (_Raised,), {})(message)
    return found


class _Raised(Exception):
    """An exception of the student's code; its type carries the name that it had there."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class _RemoteCall(torch.autograd.Function):
    """A call in the worker, whose backward is another call."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Any:
        outputs = call.run(tensors)
        ctx.call = call
        ctx.mark_non_differentiable(*(o for o, flag in zip(outputs, call.flags, strict=True) if not flag))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        return (None, *ctx.call.backward(gradients))


class _Call:
    """One call: its arguments with places for the tensors, and afterwards its result with places for its tensors."""

    def __init__(self, worker: Worker, request: Mapping[str, Any], tree: Mapping[str, Any]):
        self.worker, self.number = worker, 0
        self.request = {**request, "circumstance": present().to_dict()}
        self.tensors: list[Tensor] = []
        self.generators: list[torch.Generator] = []
        self.tree = mapped(tree, self._take)
        self.flags: list[bool] = []
        self.wants: list[bool] = []
        self.result: Any = None

    def _take(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return _Place(len(self.tensors) - 1)
        if isinstance(value, torch.Generator):
            self.generators.append(value)
        return _crossed(self.worker, value)

    def run(self, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        """Do the call with these tensors in the places; the tensors of its result."""
        given = [t.detach().requires_grad_(want) for t, want in zip(tensors, self.wants, strict=True)]
        answer = _unwrap(self.worker.ask(**self.request, **_fill(self.tree, given)))
        self.number = int(answer.get("call") or 0)
        _advance(self.generators, answer.get("generators"))
        _require_untouched(given if self.request["circumstance"].get("watched") else [], answer)
        outputs: list[Tensor] = []
        self.result = _collect(answer.get("result"), outputs)
        self.flags = [output.requires_grad for output in outputs]
        return [output.detach() for output in outputs]

    def backward(self, gradients: tuple[Tensor | None, ...]) -> list[Tensor | None]:
        """The gradients of the tensors in the places."""
        sent = [g.contiguous() if g is not None else None for g in gradients]
        found = _unwrap(self.worker.ask("backward", call=self.number, gradients=sent)).get("gradients")
        wanted = [t for t, want in zip(self.tensors, self.wants, strict=True) if want]
        if not isinstance(found, list) or len(found) != len(wanted):
            raise Stopped("the process sent gradients that do not fit")
        for tensor, gradient in zip(wanted, found, strict=True):
            if gradient is not None and (not isinstance(gradient, Tensor) or gradient.shape != tensor.shape):
                raise Stopped("the process sent gradients that do not fit")
        rest = iter(found)
        return [next(rest) if want else None for want in self.wants]

    def __del__(self) -> None:
        self.worker.finished.append(self.number)

    def __call__(self) -> Any:
        self.wants = [torch.is_grad_enabled() and t.requires_grad for t in self.tensors]
        outputs = _RemoteCall.apply(self, *self.tensors) if any(self.wants) else self.run(tuple(self.tensors))
        return _fill(self.result, list(outputs))


def _crossing(worker: Worker, tree: Any) -> Any:
    """Arguments as they cross."""
    return mapped(tree, lambda value: _crossed(worker, value))


def _crossed(worker: Worker, value: Any) -> Any:
    """One argument: student objects as what they are there, the judge's functions as callbacks."""
    if isinstance(value, _Proxy):
        return Handle(value.number)
    if isinstance(value, _ModuleProxy):
        return Handle(value._remote[1])
    return worker.register(value) if callable(value) and not isinstance(value, Tensor) else value


def _advance(generators: list[torch.Generator], states: Any) -> None:
    """Leave the generators that were handed over as the call left them: two draws from one are two draws."""
    if not generators:
        return
    if not isinstance(states, list) or len(states) != len(generators):
        raise Stopped("the process sent random generators that do not fit")
    for generator, state in zip(generators, states, strict=True):
        try:
            generator.set_state(state)
        except (RuntimeError, TypeError) as error:
            raise Stopped("the process sent random generators that do not fit") from error


def _require_untouched(given: list[Tensor], answer: Mapping[str, Any]) -> None:
    """Inputs and earlier results hold now what they held. Raises: InputWrittenTo, EarlierResultChanged, Stopped."""
    after, earlier = answer.get("after"), answer.get("earlier")
    if not (
        _tensors(after, len(given))
        and isinstance(earlier, list)
        and all(_tensors(pair, 2) for pair in earlier)
    ):
        raise Stopped("the process sent inputs that do not fit")
    require_untouched(zip(given, cast("list[Tensor]", after), strict=True), earlier)


def _tensors(value: Any, count: int) -> bool:
    """Whether this is a list of so many tensors."""
    return isinstance(value, list) and len(value) == count and all(isinstance(one, Tensor) for one in value)


class _Place(int):
    """Where a tensor stands in a tree."""


def _collect(value: Any, tensors: list[Tensor]) -> Any:
    def leaf(item: Any) -> Any:
        if isinstance(item, Tensor):
            tensors.append(item)
            return _Place(len(tensors) - 1)
        return stand_for(item) if isinstance(item, Opaque) else item

    return mapped(value, leaf)


def _fill(value: Any, tensors: list[Tensor]) -> Any:
    return mapped(value, lambda item: tensors[item] if isinstance(item, _Place) else item)


def _observation(answer: Mapping[str, Any], sent: Mapping[str, Any]) -> Observation:
    """An observation from the worker. Which inputs the call has changed is found out here: `sent` against what came back."""
    counts = {name: answer.get(name) for name in COUNTS}
    calls, launches, after = (answer.get(name) for name in ("calls", "launches", "after"))
    kernels = {name: answer.get(name) for name in ("strayed", "raced", "narrowed")}
    tensors = {name: value for name, value in laid_out(sent).items() if isinstance(value, Tensor)}
    if not (
        all(isinstance(count, int) for count in counts.values())
        and isinstance(calls, list)
        and isinstance(launches, list)
        and all(isinstance(names, list) for names in kernels.values())
        and isinstance(after, Mapping)
        and all(isinstance(after.get(name), Tensor) for name in tensors)
    ):
        raise Stopped(NONSENSE)
    modified = tuple(name for name, value in tensors.items() if not unchanged(value, after[name]))
    try:
        made = tuple(Launch.from_dict(launch) for launch in launches[:MOST_LAUNCHES])
    except ValueError as error:
        raise Stopped(NONSENSE) from error
    named = {name: tuple(map(str, cast("list[Any]", names))) for name, names in kernels.items()}
    return Observation(
        calls=frozenset(map(str, calls)),
        modified=modified,
        launches=made,
        strayed=named["strayed"],
        raced=named["raced"],
        narrowed=named["narrowed"],
        **cast("dict[str, int]", counts),
    )


class _Proxy(Remote):
    """What must not be asked of a proxy raises: a student's object could answer anything."""

    def __init__(self, worker: Worker, number: int):
        self.worker, self.number = worker, number

    def __repr__(self) -> str:
        return "<a class>" if isinstance(self, ClassProxy) else "<a function>"

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError("a student's object can be called, and nothing else")

    __bool__ = __eq__ = __ne__ = __len__ = __iter__ = __contains__ = __getitem__ = __lt__ = __gt__ = _refuse
    __hash__ = None  # type: ignore[assignment]


class FunctionProxy(_Proxy):
    """A student's function."""

    kind = "function"

    def __init__(self, worker: Worker, number: int, gpu: bool = False):
        super().__init__(worker, number)
        self.gpu = gpu

    def beside_the_gpu(self) -> FunctionProxy:
        return FunctionProxy(self.worker, self.number, gpu=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = {"do": "call", "object": self.number, "gpu": self.gpu}
        return _Call(self.worker, request, {"args": list(args), "kwargs": kwargs})()

    def observe(
        self,
        args: list[Any],
        kwargs: Mapping[str, Any],
        state: Mapping[str, Tensor] | None = None,
        *,
        idle: bool = False,
    ) -> Observation:
        """What a call does; `modified` holds a0, a1, ... for arguments and k<name> for keyword arguments."""
        return _observe(self.worker, self.number, args, kwargs, state, self.gpu, idle)


def _observe(
    worker: Worker,
    number: int,
    args: list[Any],
    kwargs: Mapping[str, Any],
    state: Mapping[str, Tensor] | None,
    gpu: bool = False,
    idle: bool = False,
) -> Observation:
    sent, named = _crossing(worker, args), _crossing(worker, kwargs)
    asked = worker.ask("observe", object=number, state=state, args=sent, kwargs=named, gpu=gpu, idle=idle)
    answer = _unwrap(asked)
    places = {f"a{n}": value for n, value in enumerate(args)}
    return _observation(answer, {**places, **{f"k{name}": value for name, value in kwargs.items()}})


class ClassProxy(_Proxy):
    """A student's class: calling it makes a module or another object."""

    kind = "class"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        sent = _crossing(self.worker, list(args)), _crossing(self.worker, kwargs)
        answer = _unwrap(self.worker.ask("make", object=self.number, args=sent[0], kwargs=sent[1]))
        number = answer.get("object")
        if not isinstance(number, int):
            raise Stopped("the process sent an object that makes no sense")
        if answer.get("kind") == "module":
            module = _module(self.worker, number, answer)
            module.common = answer.get("common") is True
            return module
        name = str(answer.get("type"))
        return type(name if name.isidentifier() else "object", (ObjectProxy,), {})(self.worker, number)

    def observe(
        self,
        args: list[Any],
        kwargs: Mapping[str, Any],
        state: Mapping[str, Tensor] | None = None,
        *,
        idle: bool = False,
    ) -> Observation:
        """What making an object does."""
        return _observe(self.worker, self.number, args, kwargs, state, idle=idle)


class ObjectProxy(_Proxy, RemoteObject):
    """A student's object that is no module: it has methods and attributes to ask for by name."""

    def __repr__(self) -> str:
        return f"<a {type(self).__name__}>"

    def call_method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What its method `name` returns."""
        request = {"do": "method", "object": self.number, "name": name}
        return _Call(self.worker, request, {"args": list(args), "kwargs": kwargs})()

    def look_up(self, name: str) -> Any:
        """What its attribute `name` holds."""
        return _Call(self.worker, {"do": "attribute", "object": self.number, "name": name}, {})()


class _ModuleProxy(nn.Module, Remote, RemoteObject):
    """A student's module: its weights lie here under their own names, its forward runs in the worker.

    Its other methods and attributes can be asked for as those of any object; they see the weights that it has there.
    """

    def __init__(self, worker: Worker, number: int):
        super().__init__()
        self._remote = worker, number  # a name that no student's weight has

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        worker, number = self._remote
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        request = {"do": "forward", "object": number, "training": self.training}
        return _Call(worker, request, {"args": list(args), "kwargs": kwargs, "state": state})()

    def call_method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What its method `name` returns."""
        return ObjectProxy(*self._remote).call_method(name, *args, **kwargs)

    def look_up(self, name: str) -> Any:
        """What its attribute `name` holds."""
        return ObjectProxy(*self._remote).look_up(name)

    def observe(
        self,
        args: list[Any],
        kwargs: Mapping[str, Any],
        state: Mapping[str, Tensor] | None = None,
        *,
        idle: bool = False,
    ) -> Observation:
        """What a forward pass with `state` as weights does."""
        return _observe(*self._remote, args, kwargs, state or {}, idle=idle)


def _module(worker: Worker, number: int, answer: Mapping[str, Any]) -> _ModuleProxy:
    """A proxy that holds the module's weights under their names, in a skeleton of empty modules."""
    state, learned, shared = answer.get("state"), answer.get("parameters"), answer.get("shared")
    if not (isinstance(state, Mapping) and isinstance(learned, Mapping) and isinstance(shared, Mapping)):
        raise Stopped("the process sent a module that makes no sense")
    if len(state) > MOST_WEIGHTS:
        raise Stopped(f"the module has more than {MOST_WEIGHTS} weights")
    module = _ModuleProxy(worker, number)
    held: dict[str, nn.Parameter] = {}
    for name, value in state.items():
        if not NAME.fullmatch(name) or name.count(".") > MOST_LEVELS or not isinstance(value, Tensor):
            raise Stopped("the process sent weights that make no sense")
        *path, last = name.split(".")
        home: nn.Module = module
        for part in path:
            if part not in home._modules:
                home.add_module(part, nn.Module())
            home = home.get_submodule(part)
        if name in learned and value.is_floating_point():
            first = held.get(str(shared.get(name)))
            held[name] = (
                nn.Parameter(value.detach(), requires_grad=bool(learned[name])) if first is None else first
            )
            home.register_parameter(last, held[name])
        else:
            home.register_buffer(last, value.detach())
    return module
