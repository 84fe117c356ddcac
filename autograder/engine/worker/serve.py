"""The worker: runs cells, calls what they defined, and answers the judge, one request after the other."""

from __future__ import annotations

import builtins
import contextlib
import inspect
import resource
import signal
import socket
import subprocess
import sys
import threading
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from autograder.case import Layer
from autograder.circumstance import Circumstance, entered, performed, standing, with_state
from autograder.engine.wire import (
    MOST_GIVEN,
    TOO_MUCH,
    Callback,
    Closed,
    Handle,
    Limits,
    Opaque,
    numbers_in,
    receive,
    send,
)
from autograder.engine.worker.cells import quiet, run_cell
from autograder.kernels import quick_interpreter
from autograder.kernels.placing import beside_the_gpu
from autograder.observation import laid_out, observe, unobserved
from autograder.trees import mapped
from autograder.uses import used_names

__all__ = ["serve"]

KEPT_CALLS = 10_000
"""So many past calls keep their graph for a backward pass, until the judge says that it will not ask for it."""

MOST_NAMES = 200
"""So many of the names that an object uses are told."""


class OutOfTime(BaseException):
    """The time of one request is over."""


def _tied(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, one tensor for all names of a parameter or a buffer: each name came over by itself."""
    held = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    first: dict[int, Tensor] = {}
    tied = dict(weights)
    for name, own in held:
        if name in tied:
            tied[name] = first.setdefault(id(own), tied[name])
    return tied


class _Worker:
    def __init__(self, shell: Any):
        self.shell = shell
        self.objects: dict[int, Any] = {}
        self.owned: dict[int, nn.Parameter] = {}
        self.graphs: OrderedDict[int, list[Any]] = OrderedDict()
        self.stood = contextlib.ExitStack()
        self.weights: dict[int, tuple[nn.Module, dict[str, Tensor]]] = {}
        self.count = 0

    def _number(self) -> int:
        self.count += 1
        return self.count

    def forget(self, calls: Iterable[int]) -> None:
        """Drop the graphs of these calls: nobody will ask for their gradients."""
        for call in calls:
            self.graphs.pop(call, None)
            self.weights.pop(call, None)

    def run(self, source: str) -> dict[str, Any]:
        return run_cell(self.shell, source)

    def look(self, name: str) -> dict[str, Any]:
        """What a name stands for: nothing, something to call, or a plain value."""
        if name not in self.shell.user_ns:
            return {"kind": "missing"}
        value = self.shell.user_ns[name]
        if inspect.isclass(value) or callable(value):
            number = self._number()
            self.objects[number] = value
            kind = "class" if inspect.isclass(value) else "function"
            return {"kind": kind, "object": number, "uses": sorted(used_names(value))[:MOST_NAMES]}
        return {"kind": "value", "value": _plain(value)}

    def call(self, object: int, args: Any, kwargs: Any, gpu: bool, circumstance: Any) -> dict[str, Any]:
        function = beside_the_gpu(self.objects[object]) if gpu else self.objects[object]
        return self._called(function, list(args), dict(kwargs), {}, circumstance)

    def make(self, object: int, args: Any, kwargs: Any) -> dict[str, Any]:
        with entered(Circumstance(poisoned=True)):  # what is left as torch.empty made it shows each time
            made = self.objects[object](*args, **kwargs)
        number = self._number()
        self.objects[number] = made
        if not isinstance(made, nn.Module):
            return {"kind": "other", "object": number, "type": type(made).__name__[:80]}
        parameters = dict(made.named_parameters(remove_duplicate=False))
        first = {id(p): name for name, p in reversed(parameters.items())}
        handed = {
            id(p)
            for layer in (*args, *kwargs.values())
            if isinstance(layer, nn.Module)
            for p in layer.parameters()
        }
        mine = set(first) - handed
        common = not mine.isdisjoint(self.owned)
        self.owned.update((id(p), p) for p in parameters.values())
        return {
            "kind": "module",
            "object": number,
            "type": type(made).__name__[:80],
            "state": {
                name: value.detach() for name, value in made.state_dict().items() if isinstance(value, Tensor)
            },
            "parameters": {name: bool(p.requires_grad) for name, p in parameters.items()},
            "common": common,
            "shared": {name: first[id(p)] for name, p in parameters.items() if first[id(p)] != name},
        }

    def method(self, object: int, name: str, args: Any, kwargs: Any, circumstance: Any) -> dict[str, Any]:
        return self._called(getattr(self.objects[object], name), list(args), dict(kwargs), {}, circumstance)

    def attribute(self, object: int, name: str, circumstance: Any) -> dict[str, Any]:
        return self._called(lambda: getattr(self.objects[object], name), [], {}, {}, circumstance)

    def forward(
        self,
        object: int,
        state: Mapping[str, Tensor],
        args: Any,
        kwargs: Any,
        training: bool,
        circumstance: Any,
    ) -> dict[str, Any]:
        module = self.objects[object].train(training)

        def function(*given: Any, own_weights: Mapping[str, Tensor], **named: Any) -> Any:
            return with_state(module, _tied(module, own_weights), given, named, self.stood)

        made = self._called(function, list(args), dict(kwargs), state, circumstance, module)
        if (
            made["call"] in self.graphs
        ):  # what is computed again in the backward pass needs these weights, too
            self.weights[made["call"]] = module, _tied(module, state)
        return made

    def _called(
        self,
        function: Callable[..., Any],
        args: Any,
        kwargs: Any,
        state: Mapping[str, Tensor],
        circumstance: Mapping[str, Any],
        module: nn.Module | None = None,
    ) -> dict[str, Any]:
        leaves = [tensor for tensor in _tensors([args, kwargs, state]) if tensor.requires_grad]
        given, named = _offshoots(args), _offshoots(kwargs)
        weights = {"own_weights": dict(state)} if module is not None else {}
        made = Circumstance.from_dict(circumstance)
        earlier: list[tuple[Tensor, Tensor]] = []
        handed = _tensors([given, named, state])
        result = performed(
            lambda change: function(*_changed(given, change), **_changed({**named, **weights}, change)),
            [given, named, dict(state)],
            made,
            module,
            tell=earlier.extend,
            weights=state.values(),
        )
        outputs = _tensors(result)
        number = self._number()
        if leaves and any(output.requires_grad for output in outputs):
            self.graphs[number] = [leaves, outputs]
            while len(self.graphs) > KEPT_CALLS:
                self.weights.pop(self.graphs.popitem(last=False)[0], None)
        generators = [v.get_state() for v in (*args, *kwargs.values()) if isinstance(v, torch.Generator)]
        # Whether inputs and earlier results have changed is for the judge to say: here torch may be patched.
        after = [one.detach() for one in handed] if made.watched else []
        told = {"after": after, "earlier": [list(pair) for pair in earlier]}
        return {"result": _plain(result), "call": number, "generators": generators, **told}

    def backward(self, call: int, gradients: Any) -> dict[str, Any]:
        leaves, outputs = self.graphs[call]
        pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if o.requires_grad and g is not None]
        held = standing(*self.weights[call]) if call in self.weights else contextlib.nullcontext()
        with held, contextlib.closing(self.stood):
            found = torch.autograd.grad(
                [o for o, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True, retain_graph=True
            )
        return {"gradients": list(found)}

    def observe(
        self,
        object: int,
        state: Mapping[str, Tensor] | None,
        args: Any,
        kwargs: Any,
        gpu: bool,
        idle: bool,
    ) -> dict[str, Any]:
        target: Any = beside_the_gpu(self.objects[object]) if gpu else self.objects[object]
        places = {**{f"a{n}": v for n, v in enumerate(args)}, **{f"k{n}": v for n, v in kwargs.items()}}

        after: dict[str, Tensor] = {}

        def call(given: Mapping[str, Any]) -> Any:
            after.update({name: value for name, value in given.items() if isinstance(value, Tensor)})
            handed = {
                name: given[name]
                if name in given
                else type(held)(given[f"{name}.{n}"] for n in range(len(held)))
                for name, held in places.items()
            }
            positional = [handed[f"a{n}"] for n in range(len(args))]
            named = {n: handed[f"k{n}"] for n in kwargs}
            if state is None:
                result = target(*positional, **named)
            else:
                result = torch.func.functional_call(target, dict(state), tuple(positional), named)
            # A list may hold other tensors now.
            lists = laid_out({name: value for name, value in handed.items() if isinstance(value, list)})
            after.update({name: value for name, value in lists.items() if name in after})
            return result

        with _no_new_threads():  # torch's modes see one thread only
            seen = observe(call, laid_out(places), idle=idle)
        return {
            "flops": seen.flops,
            "largest": seen.largest,
            "held": seen.held,
            "made": seen.made,
            "calls": sorted(seen.calls),
            "after": {name: value.detach() for name, value in after.items()},
            "launches": [launch.to_dict() for launch in seen.launches],
            "unwritten": seen.unwritten,
            "reckoned": seen.reckoned,
            "launched": seen.launched,
            "programs": seen.programs,
            "strayed": list(seen.strayed),
            "raced": list(seen.raced),
            "narrowed": list(seen.narrowed),
        }

    def compile(self, program: str, asked: str) -> dict[str, Any]:
        """Run a program of the judge's in a process of its own, on an input that may hold student code: its output."""
        run = subprocess.run(
            [sys.executable, "-c", program],
            input=asked,
            capture_output=True,
            text=True,
            check=False,
        )
        return {"answer": run.stdout}


class _Caller:
    """Asks the judge to call a function of its own, while a request with this ticket is being answered."""

    def __init__(self, channel: socket.socket, limits: Limits):
        self.channel, self.limits, self.ticket = channel, limits, None

    def function(self, number: int) -> Callable[..., Any]:
        """What student code gets in place of the judge's function `number`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.ticket is None or threading.current_thread() is not threading.main_thread():
                raise RuntimeError(
                    "this function answers only during a check, in the thread that the check runs in"
                )
            given = [_plain(each) for each in args], {name: _plain(each) for name, each in kwargs.items()}
            if numbers_in(given) > MOST_GIVEN:  # the judge would not read them, and hang up
                raise RuntimeError(TOO_MUCH)
            # An alarm in the middle of a frame would leave the rest of it for the next one.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            try:
                with unobserved():
                    asked = {"ticket": self.ticket, "callback": number}
                    send(self.channel, {**asked, "args": given[0], "kwargs": given[1]})
                    answer = receive(self.channel, self.limits)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
            if "raised" in answer:
                kind = getattr(builtins, str(answer["raised"]["name"]), RuntimeError)
                raise (kind if issubclass(kind, Exception) else RuntimeError)(answer["raised"]["message"])
            return answer["result"]

        return call


def _arrived(value: Any, worker: _Worker, caller: _Caller) -> Any:
    """A leaf of a request: the real function, object or layer in place of what stood for it."""
    if isinstance(value, Callback):
        return caller.function(value.number)
    if isinstance(value, Handle):
        return worker.objects[value.number]
    if isinstance(value, Layer):
        return value.build()
    return value


@contextlib.contextmanager
def _no_new_threads() -> Iterator[None]:
    """A block in which no thread and no process can be started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))


REQUESTS = (
    "run", "look", "call", "make", "method", "attribute", "forward", "backward", "observe", "compile"
)  # fmt: skip


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in a result, in the order in which they cross."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    return []


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same, with what `change` makes of each tensor."""
    return mapped(value, lambda item: change(item) if isinstance(item, Tensor) else item)


def _offshoots(value: Any) -> Any:
    """The same, with each tensor that wants a gradient as a copy in its graph: a leaf may not be written to."""
    return mapped(
        value, lambda item: item.clone() if isinstance(item, Tensor) and item.requires_grad else item
    )


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as far as it can cross: tensors stripped of subclasses, what is unknown by the name of its type."""
    if isinstance(value, Tensor):
        # The graph stays here; whether there is one is part of the answer.
        return value.as_subclass(Tensor) if value.layout == torch.strided else value
    if value is None or value is ... or type(value) in (bool, int, float, str):
        return value[:10_000] if isinstance(value, str) else value
    kind = next(
        (one for one in (list, tuple) if issubclass(type(value), one)), None
    )  # a named tuple is a tuple
    if depth < 4 and kind and kind.__len__(value) <= 100:
        return kind(_plain(item, depth + 1) for item in kind.__iter__(value))
    if depth < 4 and type(value) is dict and len(value) <= 100 and all(type(key) is str for key in value):
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if hasattr(value, "item") and getattr(value, "shape", None) == () and type(value).__module__ == "numpy":
        value = value.item()
        return value if type(value) in (bool, int, float, str) else _number(value)
    return _number(value) if isinstance(value, (Fraction, Decimal)) else Opaque(type(value).__name__)


def _number(value: Any) -> Any:
    """A number of another kind as a float, where it is one: numpy's long double, a fraction."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return Opaque(type(value).__name__)


def _stand_in() -> None:
    """`from autograder import check` works in a student's cell, and does nothing: the judge does the checking."""
    for name in [name for name in sys.modules if name == "autograder" or name.startswith("autograder.")]:
        del sys.modules[name]
    module = types.ModuleType("autograder")
    for name in ("check", "grade", "hint", "exercises", "inputs"):
        setattr(module, name, lambda *args, **kwargs: None)
    sys.modules["autograder"] = module


def serve(channel: socket.socket, shell: Any) -> None:
    """Answer requests until the judge hangs up. Never raises for what student code does."""
    with quick_interpreter():
        _serve(channel, shell)


def _serve(channel: socket.socket, shell: Any) -> None:
    _stand_in()
    torch.set_num_threads(1)
    worker, limits = _Worker(shell), Limits(trusted=True)
    caller = _Caller(channel, limits)
    arrived = partial(_arrived, worker=worker, caller=caller)

    def ring(signum: int, frame: FrameType | None) -> None:
        raise OutOfTime

    while True:
        try:
            request = receive(channel, limits)
        except Closed:
            return
        ticket, what = request.get("ticket"), request.get("do")
        seconds = float(request.pop("seconds", 0) or 0)
        worker.forget(request.pop("forget", ()))
        arguments = {
            key: mapped(value, arrived) for key, value in request.items() if key not in ("ticket", "do")
        }
        caller.ticket = ticket
        try:
            signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
            try:
                answer = _answer(worker, str(what), arguments)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except BaseException as error:  # noqa: BLE001  whatever a student's code raises is an answer
            answer = {"raised": _error(error)}
        caller.ticket = None
        _reply(channel, {**answer, "ticket": ticket})


def _answer(worker: _Worker, what: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if what not in REQUESTS:
        return {"raised": {"name": "ValueError", "message": "unknown request", "bases": ["ValueError"]}}
    if what == "run":
        return worker.run(**arguments)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer: dict[str, Any] = getattr(worker, what)(**arguments)
        return answer


def _error(error: BaseException) -> dict[str, Any]:
    try:
        message = str(error)[:2000]
    except BaseException:  # noqa: BLE001  an exception whose text raises
        message = ""
    return {
        "name": type(error).__name__[:80],
        "message": message,
        "bases": [base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins"],
    }


def _reply(channel: socket.socket, answer: Mapping[str, Any]) -> None:
    try:
        send(channel, answer)
    except Closed:
        raise
    except Exception as error:  # noqa: BLE001  whatever cannot be sent, that it cannot is an answer
        note = {
            "name": "TypeError",
            "message": f"the result cannot be used: {error}"[:300],
            "bases": ["TypeError"],
        }
        send(channel, {"raised": note, "ticket": answer["ticket"]})
