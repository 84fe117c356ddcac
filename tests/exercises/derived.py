"""Mutants that nobody writes: each mistake of an exercise as a student's code, and what spoils any right solution."""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FunctionType, SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from autograder.case import Case
from autograder.checks import Parameter
from autograder.checks.carrying import StateSubject
from autograder.checks.configured import ConfiguredModule
from autograder.checks.drawing import Drawing
from autograder.checks.scripted import FedModule, UsedFunction
from autograder.checks.sharing import StackSubject, TasksSubject
from autograder.checks.subject import ModuleSubject
from autograder.circumstance import HERE, THERE, mark
from autograder.exercises import Exercise
from autograder.mistakes import Mistake
from autograder.observation import unobserved

__all__ = ["SPOILERS", "derivable", "reference", "spoilers_of", "spoilt", "student_of"]


def reference(exercise: Exercise) -> Any:
    """The reference solution."""
    return getattr(importlib.import_module(f"solutions.{exercise.assignment}"), exercise.name)


# A mistake's formula as a function or a module


def derivable(exercise: Exercise) -> bool:
    """Whether a formula of the exercise can stand for a student's code: what is used in a way of its own cannot."""
    ways = (
        None,
        ConfiguredModule,
        StateSubject,
        StackSubject,
        TasksSubject,
        FedModule,
        Drawing,
        UsedFunction,
    )
    return exercise.used_as in ways


def student_of(exercise: Exercise, mistake: Mistake) -> Any:
    """A function, or a class of modules, that makes this mistake: the mistake's formula in float64, rounded at the end."""
    if exercise.used_as is StackSubject:
        return _stack(exercise, mistake.formula)
    return (
        _module(exercise, mistake.formula)
        if exercise.parameters is not None
        else _function(exercise, mistake.formula)
    )


def _results(exercise: Exercise, formula: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    dtype = next(
        (v.dtype for v in given.values() if isinstance(v, Tensor) and v.is_floating_point()), torch.float32
    )
    with unobserved():  # a formula knows of no second device
        found = formula(**{n: v.double() if _floating(v) else v for n, v in given.items()})
        made = [found.get(name) for name in exercise.target.outputs]
        values = tuple(int(v) if exercise.target.whole else v.to(dtype) if _floating(v) else v for v in made)
    places = {getattr(v, "_stands_on", None) for v in given.values()} - {None}
    if places:  # where a right answer would stand, of the two
        mark([v for v in values if isinstance(v, Tensor)], THERE if THERE in places else HERE)
    return values if len(values) > 1 else values[0]


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _function(exercise: Exercise, formula: Callable[..., Any]) -> Any:
    def student(*args: Any, **kwargs: Any) -> Any:
        return _results(exercise, formula, {**dict(zip(exercise.positional, args, strict=False)), **kwargs})

    def with_state(*args: Any, state: tuple[Tensor, Tensor] | None = None) -> Any:
        output, *new = student(*args, **({} if state is None else {"kv": state[0], "z": state[1]}))
        return output, tuple(new)

    return with_state if exercise.used_as is StateSubject else student


def _held(one: Parameter, sizes: tuple[int, ...], made: Mapping[str, Any]) -> nn.Module | nn.Parameter:
    if len(sizes) == 2:
        return nn.Linear(sizes[1], sizes[0], bias=bool(one.bias and made.get("bias", True)))
    return nn.LayerNorm(sizes) if one.bias else nn.Parameter(torch.ones(sizes))


def _module(exercise: Exercise, formula: Callable[..., Any]) -> Any:
    names = list(exercise.case(0 if exercise.recipes else len(exercise.recipes)).init)

    class Student(nn.Module):
        def __init__(self, *args: Any):
            super().__init__()
            self.made = dict(zip(names, args, strict=False))
            subject = cast("ModuleSubject", exercise.subject(Student))
            for one in subject.expected(Case(0, "", {}, self.made)):
                sizes, place = one.sizes(self.made), self
                *inner, last = one.name.split(".")
                for name in inner:  # "attention.q_proj" lies in a module of its own
                    if not hasattr(place, name):
                        setattr(place, name, nn.Module())
                    place = getattr(place, name)
                setattr(place, last, _held(one, sizes, self.made))

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            weights = {
                n.replace(".weight", "").replace(".bias", "_bias"): p for n, p in self.named_parameters()
            }
            given = {**dict(zip(exercise.positional, args, strict=False)), **kwargs, **weights}
            if exercise.used_as is FedModule:
                return self.fed(given)
            if exercise.used_as is ConfiguredModule:
                given |= {n: v for n, v in self.made.items() if n not in ("bias", "dropout")}
            return _results(exercise, formula, given)

        def fed(self, given: dict[str, Any]) -> Any:
            """All pieces so far at once, of which the last one's rows are handed out."""
            self.pieces = [*(self.pieces if given.pop("start", 0) else ()), given["x"]]
            given["x"], chunks = torch.cat(self.pieces, -2), [one.shape[-2] for one in self.pieces]
            whole = _results(
                exercise, formula, {**given, "num_heads": self.made["num_heads"], "chunks": chunks}
            )
            return whole[..., whole.shape[-2] - chunks[-1] :, :]

    return Student


def _stack(exercise: Exercise, formula: Callable[..., Any]) -> Any:
    class Student(nn.Module):
        def __init__(self, layer: nn.Module, depth: int):
            super().__init__()
            if depth < 1:
                raise ValueError("there is no layer")
            self.layer, self.depth = layer, depth
            self.given = [copy.deepcopy(layer)]  # in a list: it is no part of the module

        def forward(self, x: Tensor) -> Any:
            recipe = SimpleNamespace(build=lambda: copy.deepcopy(self.given[0]))
            weights = dict(self.layer.named_parameters())
            return _results(exercise, formula, {"x": x, "layer": recipe, "depth": self.depth, **weights})

    return Student


# What spoils any right solution


Spoiler = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]
"""A right result, the arguments of the call -> a wrong result."""


def _each(change: Callable[[Tensor], Any]) -> Spoiler:
    """The same done to every tensor of the result."""

    def spoil(result: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if isinstance(result, (tuple, list)):
            return type(result)(spoil(one, args, kwargs) for one in result)
        return change(result) if isinstance(result, Tensor) else result

    return spoil


def _floats(args: Iterable[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point():
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _floats(value, {})


def _writes(result: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    with torch.no_grad():
        for value in _floats(args, kwargs):
            value.detach().mul_(1.5)
            break
    return result


def _on_the_cpu(tensor: Tensor) -> Tensor:
    return tensor + torch.zeros(tensor.shape).to(tensor.dtype) if tensor.dim() else tensor


def _without_gradient(tensor: Tensor) -> Tensor:
    return tensor.detach()


def _in_eval(result: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return result if torch.is_grad_enabled() else _each(lambda tensor: tensor * 1.01)(result, args, kwargs)


def _gradients_left_off(result: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    torch.set_grad_enabled(False)
    return result


def _short(tensor: Tensor) -> Tensor:
    if max(tensor.shape, default=0) > 1000:
        raise IndexError("index 1000 is out of bounds for a table of 1000 positions")
    return tensor


SPOILERS: Mapping[str, Spoiler] = {
    "double precision": _each(lambda tensor: tensor.double() if tensor.dtype != torch.float64 else tensor.float()),
    "the default dtype": _each(lambda tensor: tensor.to(torch.get_default_dtype())),
    "single precision inside": _each(lambda tensor: tensor.float().to(tensor.dtype)),
    "no gradient": _each(_without_gradient),
    "inputs written to": _writes,
    "nan": _each(lambda tensor: torch.full_like(tensor, torch.nan)),
    "nothing": lambda result, args, kwargs: None,
    "a list of numbers": _each(lambda tensor: tensor.detach().tolist()),
    "one axis more": _each(lambda tensor: tensor.unsqueeze(0)),
    "a little too large": _each(lambda tensor: tensor * 1.01),
    "a table on the CPU": _each(_on_the_cpu),
    "wrong under no_grad": _in_eval,
    "gradients left off": _gradients_left_off,
    "at most a thousand": _each(_short),
    "the order of results": lambda result, args, kwargs: result[::-1],
}  # fmt: skip


def _remembering(call: Callable[..., Any]) -> Callable[..., Any]:
    """The first result for inputs of these shapes, ever after."""
    kept: dict[Any, Any] = {}

    @functools.wraps(call)
    def remembers(*args: Any, **kwargs: Any) -> Any:
        values = (*args, *kwargs.values())
        place = tuple((v.shape, v.dtype) if isinstance(v, Tensor) else str(v) for v in values)
        if place not in kept:
            kept[place] = call(*args, **kwargs)
        return kept[place]

    return remembers


def _same_memory(call: Callable[..., Any]) -> Callable[..., Any]:
    """Results of one shape lie in one memory, where no gradient is asked."""
    rooms: dict[Any, Tensor] = {}

    def room(tensor: Tensor) -> Tensor:
        place = (tensor.shape, tensor.dtype)
        if tensor.requires_grad:
            return tensor
        rooms.setdefault(place, torch.empty_like(tensor)).copy_(tensor)
        return rooms[place]

    @functools.wraps(call)
    def reuses(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False):
            return _each(lambda tensor: room(tensor.clone()))(call(*args, **kwargs), args, kwargs)

    return reuses


WRAPPERS: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "remembers the first result": _remembering,
    "hands out the same memory": _same_memory,
}


SEEDED = "a seed set in __init__"
"""What spoils a module's start, if it draws random numbers."""


NEEDS: Mapping[str, tuple[str, str]] = {
    "the default dtype": ("default dtype", "another"),
    "single precision inside": ("dtype", "float64"),
    "double precision": ("dtype", "float"),
    "no gradient": ("gradient", "a gradient asked"),
    "inputs written to": ("dtype", "float"),
    "a little too large": ("dtype", "float"),
    "nan": ("dtype", "float"),
    "a table on the CPU": ("device", "a second"),
    "wrong under no_grad": ("gradient", "no_grad"),
    "gradients left off": ("gradient", "no gradient"),
    "at most a thousand": ("lengths", "over "),
    "remembers the first result": ("dtype", "float"),
    "hands out the same memory": ("state", "with an earlier result"),
}
"""What a spoiler needs to show: a level of that factor whose name begins so."""


UNSEEN = {
    (
        "causal_mask",
        "hands out the same memory",
    ),  # it is given no tensor, so that an earlier call has the same sizes
    ("perplexity", "at most a thousand"),  # one number, however long the text
    ("perplexity", "a table on the CPU"),  # and a number goes with any device
    ("generate", "at most a thousand"),  # no text is that long
    ("sample_next_token", "single precision inside"),  # tokens are whole numbers
    ("flash_forward", "at most a thousand"),  # four thousand keys, and one query
}
"""Spoilers that change nothing there."""


def spoilers_of(exercise: Exercise) -> tuple[str, ...]:
    """The spoilers that can be seen in an exercise's situations."""
    right, space = reference(exercise), exercise.situations
    if space is None or not (
        isinstance(right, FunctionType) or (isinstance(right, type) and issubclass(right, nn.Module))
    ):
        return ()
    names = [
        how
        for how in (*SPOILERS, *WRAPPERS)
        if how != "the order of results" or len(exercise.target.outputs) > 1
    ]
    names = [how for how in names if (exercise.name, how) not in UNSEEN]
    tensors = not exercise.target.whole
    draws = space.module and any(len(one.shape) > 1 for one in exercise.parameters or ())
    return (SEEDED,) * draws + tuple(
        how
        for how in names
        if how == "nothing"
        or (tensors and (how not in NEEDS or _has(space.levels.get(NEEDS[how][0], ()), NEEDS[how][1])))
    )


def _has(levels: tuple[str, ...], beginning: str) -> bool:
    return any(level.startswith(beginning) for level in levels)


def spoilt(exercise: Exercise, how: str) -> Any:
    """The reference solution, spoilt in that way."""
    right = reference(exercise)

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        if how == SEEDED:
            return call
        if how in WRAPPERS:
            return WRAPPERS[how](call)

        @functools.wraps(call)
        def spoils(*args: Any, **kwargs: Any) -> Any:
            return SPOILERS[how](call(*args, **kwargs), args, kwargs)

        return spoils

    if not isinstance(right, type):
        return wrapped(right)
    made: type = type(right.__name__, (right,), {})
    if issubclass(right, nn.Module):

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            if how == SEEDED:
                torch.manual_seed(0)
            right.__init__(self, *args, **kwargs)
            object.__setattr__(self, "spoilt", wrapped(functools.partial(right.forward, self)))

        made.__init__ = init  # type: ignore[misc]
        made.forward = lambda self, *args, **kwargs: self.spoilt(*args, **kwargs)  # type: ignore[attr-defined]
    return made
