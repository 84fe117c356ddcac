"""What is being checked: a student's function, or a student's module made to look like a function of its weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from autograder.case import Case, Draw
from autograder.checks.deadline import OutOfTime
from autograder.checks.failure import Failure
from autograder.checks.objects import Remote, construct
from autograder.circumstance import standing, with_state
from autograder.observation import Observation, observe
from autograder.trees import mapped

__all__ = ["FunctionSubject", "ModuleSubject", "Parameter", "Subject", "is_remote"]


@dataclass(frozen=True)
class Parameter:
    """A weight that a module must have.

    name is the attribute (`q_proj`); shape is spelled with the constructor's argument names or whole numbers. An
    nn.Linear of that name or a bare nn.Parameter will do, the latter either way round. linear says that an nn.Linear
    must hold its weight as `shape` (its (out, in)); bias, that it may have one. Canonical shape is `shape`.
    """

    name: str
    shape: tuple[str | int, ...]
    bias: bool = False
    linear: bool = True

    def sizes(self, init: Mapping[str, Any]) -> tuple[int, ...]:
        """The canonical shape for these constructor arguments."""
        return tuple(init[size] if isinstance(size, str) else size for size in self.shape)


class Subject(Protocol):
    """One function of tensors, by argument name."""

    def prepare(self, case: Case) -> dict[str, Tensor]:
        """Weights to add to the case's inputs, by canonical name."""
        ...

    def call(self, case: Case, inputs: Mapping[str, Any]) -> Any:
        """The student's raw result."""
        ...

    def observe(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """What a call does."""
        ...


def is_remote(subject: Subject) -> bool:
    """Whether the student's object lives in another process."""
    return any(
        isinstance(getattr(subject, name, None), Remote) for name in ("function", "module_class", "made")
    )


def _split(inputs: Mapping[str, Any], positional: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Tensors that every call has go by position; options go by name."""
    return [inputs[name] for name in positional if name in inputs], {
        name: value for name, value in inputs.items() if name not in positional
    }


def _observe_there(
    remote: Remote,
    inputs: Mapping[str, Any],
    positional: tuple[str, ...],
    state: Mapping[str, Tensor] | None = None,
    idle: bool = False,
) -> Observation:
    """`remote.observe`, with the inputs that were modified under their own names."""
    args, kwargs = _split(inputs, positional)
    seen = remote.observe(args, kwargs, state, idle=idle)
    names = {f"a{n}": name for n, name in enumerate(name for name in positional if name in inputs)}
    names |= {f"k{name}": name for name in kwargs}
    return replace(seen, modified=_named(seen.modified, names))


def _named(modified: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    """The inputs at these places; `kstate.0` lies in `state`."""
    found = (names.get(place.partition(".")[0]) for place in modified)
    return tuple(dict.fromkeys(name for name in found if name is not None))


@dataclass(frozen=True)
class FunctionSubject:
    """A student's function."""

    function: Callable[..., Any]
    positional: tuple[str, ...]

    def prepare(self, case: Case) -> dict[str, Tensor]:
        """A function has no weights."""
        return {}

    def call(self, case: Case, inputs: Mapping[str, Any]) -> Any:
        """The function's raw result on `inputs`."""
        args, kwargs = _split(inputs, self.positional)
        return self.function(*args, **kwargs)

    def observe(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """What the function does on `inputs`."""
        return self._observed(case, inputs, idle=False)

    def rehearse(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """What the function does on `inputs` where kernels are launched, but do not run."""
        return self._observed(case, inputs, idle=True)

    def _observed(self, case: Case, inputs: Mapping[str, Any], idle: bool) -> Observation:
        if isinstance(self.function, Remote):
            return _observe_there(self.function, inputs, self.positional, idle=idle)
        return observe(lambda given: self.call(case, given), inputs, idle=idle)


class ModuleSubject:
    """A student's nn.Module class, called with weights that the grader draws."""

    def __init__(
        self, module_class: Callable[..., Any], positional: tuple[str, ...], parameters: tuple[Parameter, ...]
    ):
        self.module_class = module_class
        self.positional = positional
        self.parameters = parameters
        self.stood = contextlib.ExitStack()
        self.modules: dict[Any, tuple[Any, dict[str, tuple[str, Callable[[Tensor], Tensor]]]]] = {}

    def expected(self, case: Case) -> tuple[Parameter, ...]:
        """The weights that a module made for this case must have."""
        return self.parameters

    def make(self, case: Case) -> Any:
        """A new module of the student's class. What the constructor raises is passed on."""
        return construct(self.module_class, *case.init.values())

    def module(self, case: Case) -> Any:
        """The student's module for this case, made once; another one where its number is tried in another situation."""
        return self._built(case)[0]

    def prepare(self, case: Case) -> dict[str, Tensor]:
        """Fresh N(0, 1 / fan_in) weights for every parameter that the module has, by canonical name."""
        _, places = self._built(case)
        draw = Draw(case.number + 1)
        weights = {}
        for parameter in self.expected(case):
            sizes = parameter.sizes(case.init)
            weights[parameter.name] = draw.normal(*sizes, dtype=torch.float64) / sizes[-1] ** 0.5
            if f"{parameter.name}_bias" in places:
                weights[f"{parameter.name}_bias"] = draw.normal(sizes[0], dtype=torch.float64)
        return weights

    def call(self, case: Case, inputs: Mapping[str, Any]) -> Any:
        """The module's raw result on `inputs`, with the weights among them in place of its own."""
        _, places = self._built(case)
        state = {raw: turn(inputs[name]) for name, (raw, turn) in places.items()}
        return self.call_with(case, inputs, state)

    def call_with(self, case: Case, inputs: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
        """The module's raw result on `inputs`, with `state` (by the module's own names) in place of its own."""
        module, places = self._built(case)
        args, kwargs = _split({k: v for k, v in inputs.items() if k not in places}, self.positional)
        return self.with_weights(module, state, tuple(args), kwargs)

    def with_weights(
        self,
        module: Any,
        state: Mapping[str, Tensor],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        tie: bool = True,
    ) -> Any:
        """The module's raw result with `state` in place of its own weights, also for what the backward pass computes again."""

        def stand() -> None:
            self.stood.close()
            self.stood.enter_context(standing(module, state, tie))

        there = isinstance(module, Remote)  # who calls there keeps the weights standing there
        if there:
            return torch.func.functional_call(module, dict(state), args, dict(kwargs), tie_weights=tie)
        result = with_state(module, state, args, kwargs, self.stood, tie)

        def leaf(one: Any) -> Any:
            graph = type(one) is Tensor and one.requires_grad and torch.is_grad_enabled()
            return _Standing.apply(stand, one) if graph else one

        return mapped(result, leaf)

    def beside(self, case: Case) -> tuple[Any, bool]:
        """A second module of the class, made for this case, and whether it holds a parameter of the first."""
        first, second = self.module(case), self.make(case)
        if isinstance(second, Remote):
            return second, second.common
        held = {id(one) for one in first.parameters()}
        return second, any(id(one) in held for one in second.parameters())

    def trainable(self, case: Case) -> dict[str, Tensor]:
        """Fresh float leaves for all the parameters that the module would train, by its own names."""
        module, _ = self._built(case)
        draw = Draw(case.number + 3)
        dtype = next((v.dtype for v in case.inputs.values() if isinstance(v, Tensor)), torch.float32)
        return {
            name: draw.normal(*held.shape, dtype=dtype).requires_grad_()
            for name, held in module.named_parameters()
            if held.requires_grad
        }

    def untrained(self, case: Case) -> tuple[str, ...]:
        """Canonical names of the weights that the module would not train: buffers, and parameters that are frozen."""
        module, places = self._built(case)
        held = dict(module.named_parameters(remove_duplicate=False))
        return tuple(n for n, (raw, _) in places.items() if raw not in held or not held[raw].requires_grad)

    def surplus(self, case: Case) -> tuple[str, ...]:
        """The module's own names of the parameters that it would train, but the formula does not have."""
        module, places = self._built(case)
        held = dict(module.named_parameters(remove_duplicate=False))
        known = {id(held[raw]) for raw, _ in places.values() if raw in held}
        return tuple(n for n, p in module.named_parameters() if p.requires_grad and id(p) not in known)

    def observe(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """What the module's forward does on `inputs`."""
        module, places = self._built(case)
        if isinstance(module, Remote):
            state = {raw: turn(inputs[name]) for name, (raw, turn) in places.items()}
            rest = {name: value for name, value in inputs.items() if name not in places}
            return _observe_there(module, rest, self.positional, state)
        return observe(lambda given: self.call(case, given), inputs)

    def _built(self, case: Case) -> tuple[Any, dict[str, tuple[str, Callable[[Tensor], Tensor]]]]:
        self.stood.close()
        key = (case.number, *case.situation.items())
        if key not in self.modules:
            module = self._made(case)
            if not hasattr(module, "state_dict") or not callable(module):
                raise Failure(
                    f"the class must be an nn.Module; calling it made a {type(module).__name__}. "
                    "Does it inherit from nn.Module?",
                    mistake="not an nn.Module",
                )
            places = self._places(dict(module.state_dict()), case)
            _refuse_twins(module, places)
            self.modules[key] = (module, places)
        return self.modules[key]

    def _made(self, case: Case) -> Any:
        try:
            return self.make(case)
        except (Failure, OutOfTime, KeyboardInterrupt):
            raise
        except NotImplementedError as error:
            raise Failure("is not written yet: it raises NotImplementedError.", errored=True) from error
        except BaseException as error:  # a student's sys.exit is a student's mistake, too
            widths = ", ".join(f"{name}={value}" for name, value in case.init.items())
            raise Failure(
                f"making the module with {widths} raised {type(error).__name__}: {str(error)[:300]}",
                errored=True,
            ) from error

    def _places(
        self, state: dict[str, Tensor], case: Case
    ) -> dict[str, tuple[str, Callable[[Tensor], Tensor]]]:
        """Where each canonical weight lies in the module's state: its raw name, and how to turn it round."""
        places = {}
        for parameter in self.expected(case):
            sizes = parameter.sizes(case.init)
            raw = next((n for n in (parameter.name, f"{parameter.name}.weight") if n in state), None)
            if raw is None:
                raise Failure(
                    f"the module has no parameter {parameter.name}. Expected one of shape {sizes}; "
                    f"its parameters are: {', '.join(sorted(state)) or 'none'}. "
                    f"Is self.{parameter.name} an nn.Linear or nn.Parameter, set in __init__?",
                    mistake="missing or misnamed parameter",
                )
            places[parameter.name] = (raw, _orientation(parameter, sizes, raw, state[raw]))
            bias = f"{parameter.name}.bias"
            if bias in state:
                if not parameter.bias:
                    raise Failure(
                        f"{bias} exists, but the formula has no bias there. Is it nn.Linear(..., bias=False)?",
                        mistake="a bias where the formula has none",
                    )
                places[f"{parameter.name}_bias"] = (bias, _same)
        return places


class _Standing(torch.autograd.Function):
    """A result as it is, whose backward pass begins with `stand()`."""

    @staticmethod
    def forward(ctx: Any, stand: Callable[[], None], result: Tensor) -> Tensor:
        ctx.stand = stand
        return result.view_as(result)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.stand()
        return None, gradient


def _same(weight: Tensor) -> Tensor:
    return weight


def _refuse_twins(module: Any, places: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]]) -> None:
    """Raises: Failure if two of the formula's weights are one and the same parameter."""
    held = dict(module.named_parameters(remove_duplicate=False))
    owners: dict[int, str] = {}
    for name, (raw, _) in places.items():
        if raw in held and owners.setdefault(id(held[raw]), name) != name:
            first, second = (one.removesuffix("_bias") for one in (owners[id(held[raw])], name))
            raise Failure(
                f"{first} and {second} are one and the same parameter; each must have weights of its own. "
                "Is a layer put into a list several times, or set under two names?",
                mistake="one layer in two places",
            )


def _orientation(
    parameter: Parameter, sizes: tuple[int, ...], raw: str, held: Tensor
) -> Callable[[Tensor], Tensor]:
    """How to lay a canonical weight out as the student holds it. Raises: Failure if no way fits."""
    shape = tuple(held.shape)
    if shape == sizes:
        return _same
    if len(sizes) == 2 and shape == sizes[::-1] and not (parameter.linear and raw.endswith(".weight")):
        return lambda weight: weight.mT
    if held.numel() == math.prod(sizes) and 1 in shape:
        return lambda weight: weight.reshape(shape)
    raise Failure(
        f"parameter {parameter.name} has shape {shape}; expected {sizes} for ({', '.join(map(str, parameter.shape))}). "
        "Are the widths the right way round? nn.Linear(in, out) holds its weight as (out, in).",
        mistake="parameter of the wrong shape",
    )
