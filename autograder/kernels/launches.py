"""Recording kernel launches: enough of each to build its kernel for another machine."""

from __future__ import annotations

import ast
import contextlib
import inspect
import math
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from autograder.kernels.memory import watching

__all__ = ["Launch", "Launches", "TooManyLaunches", "recording"]

DEFAULT_WARPS, DEFAULT_STAGES = 4, 3
ALIGNMENT = 16
MOST_REHEARSED = 500
"""Launches in one call where none runs."""

POINTERS = {
    "float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32", "float64": "*fp64", "bool": "*i1",
    "int8": "*i8", "uint8": "*u8", "int16": "*i16", "int32": "*i32", "int64": "*i64",
}  # fmt: skip
"""Triton's name for a pointer to elements of a torch dtype."""

DESCRIPTOR = "TensorDescriptor"
"""Name of Triton's class for a tensor that a kernel takes blocks from, rather than a pointer."""


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    kernel: its name. grid: programs along each axis. source: the text of the kernel and of all that it uses. signature:
    Triton's type of each argument ("*fp16", "i32", "constexpr", "tensordesc<fp16[16, 64]>"). constants: the compile-time
    arguments. aligned: names of arguments that are multiples of 16, as pointers from torch are. problem: why it cannot be
    built elsewhere, or "".
    """

    kernel: str
    grid: tuple[int, ...] = ()
    source: str = ""
    signature: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    aligned: tuple[str, ...] = ()
    num_warps: int = DEFAULT_WARPS
    num_stages: int = DEFAULT_STAGES
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Launch:
        """The launch that `to_dict` wrote, wherever it comes from. Raises: ValueError if it is no such dictionary."""
        plain = (bool, int, float, str, type(None))
        if not (
            isinstance(values, Mapping)
            and values.keys() == cls.__dataclass_fields__.keys()
            and all(isinstance(values[name], str) for name in ("kernel", "source", "problem"))
            and all(type(values[name]) is int for name in ("num_warps", "num_stages"))
            and all(isinstance(values[name], (list, tuple)) for name in ("grid", "aligned"))
            and all(type(size) is int for size in values["grid"])
            and all(isinstance(name, str) for name in values["aligned"])
            and all(isinstance(values[name], Mapping) for name in ("signature", "constants"))
            and all(isinstance(kind, str) for kind in values["signature"].values())
            and all(isinstance(one, (*plain, Mapping)) for one in values["constants"].values())
        ):
            raise ValueError("not a kernel launch")
        return cls(**{**values, "grid": tuple(values["grid"]), "aligned": tuple(values["aligned"])})


class TooManyLaunches(BaseException):
    """A call launches so many kernels that nothing new is to be seen. Not an Exception: no student's code swallows it."""


class Launches(list[Launch]):
    """The launches of all kernels, in order, one for each kernel and set of types.

    launched: how many there were in all; programs: how many programs they had together. strayed, raced: kernels that read or
    wrote outside their tensors, and kernels whose result depends on which program runs first; narrowed: kernels that multiply
    float32 in TF32. All three are seen in the interpreter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launched = self.programs = 0
        self.strayed: dict[str, None] = {}
        self.raced: dict[str, None] = {}
        self.narrowed: dict[str, None] = {}


@contextlib.contextmanager
def recording(
    around: Callable[[], contextlib.AbstractContextManager[None]], *, idle: bool = False, memory: bool = False
) -> Iterator[Launches]:
    """Within the block, the launches of all Triton kernels; they are known at its end.

    around: a context for each launch to run in. idle: record the launches, but run nothing, and raise TooManyLaunches where
    there is no end of them. memory: watch what the kernels read and write. Nothing is recorded where Triton has not been
    imported. Not for use in two threads at once.
    """
    found = Launches()
    launches: dict[str, Launch] = {}
    kinds = [kind for kind in map(_kind, KINDS) if kind is not None]
    before = [kind.run for kind in kinds]
    for kind, run in zip(kinds, before, strict=True):
        kind.run = _watched(run, found, launches, around, idle, memory)
    try:
        yield found
    finally:
        for kind, run in zip(kinds, before, strict=True):
            kind.run = run
        found += launches.values()


KINDS = (
    ("triton.runtime.interpreter", "InterpretedFunction"),
    ("triton.runtime.jit", "JITFunction"),
)


def _kind(place: tuple[str, str]) -> Any:
    module = sys.modules.get(place[0])
    return getattr(module, place[1], None)


def _watched(
    run: Callable[..., Any],
    found: Launches,
    launches: dict[str, Launch],
    around: Callable[[], contextlib.AbstractContextManager[None]],
    idle: bool,
    memory: bool,
) -> Callable[..., Any]:
    def watched(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        if warmup:
            with around():
                return run(self, *args, grid=grid, warmup=warmup, **kwargs)
        found.launched += 1
        if idle and found.launched > MOST_REHEARSED:
            raise TooManyLaunches
        launch = _launch(self, args, grid, kwargs)
        launches.setdefault(repr((launch.kernel, launch.signature, launch.constants)), launch)
        found.programs += math.prod(launch.grid)
        if idle:
            return None
        watch = watching((*args, *kwargs.values())) if memory else contextlib.nullcontext()
        with around(), watch as seen:
            result = run(self, *args, grid=grid, warmup=warmup, **kwargs)
        if seen is not None and seen.strayed:
            found.strayed[launch.kernel] = None
        if seen is not None and seen.raced():
            found.raced[launch.kernel] = None
        if seen is not None and seen.narrowed:
            found.narrowed[launch.kernel] = None
        return result

    return watched


def _launch(kernel: Any, args: tuple[Any, ...], grid: Any, kwargs: Mapping[str, Any]) -> Launch:
    name = str(getattr(kernel.fn, "__name__", "kernel"))
    try:
        parameters = inspect.signature(kernel.fn).parameters
        given = {**dict(zip(parameters, args, strict=False)), **kwargs}
        given = {n: given.get(n, p.default) for n, p in parameters.items()}
        signature: dict[str, str] = {}
        constants: dict[str, Any] = {}
        for parameter, value in given.items():
            declared = "constexpr" in str(parameters[parameter].annotation)
            signature[parameter] = "constexpr" if declared else _type_of(value)
            if signature[parameter] == "constexpr":
                constants[parameter] = _constant(value)
        return Launch(
            name,
            tuple(int(n) for n in (grid({**given, **kwargs}) if callable(grid) else grid)),
            _source(kernel),
            signature,
            constants,
            tuple(n for n, v in given.items() if signature[n] != "constexpr" and _is_aligned(v)),
            int(kwargs.get("num_warps", DEFAULT_WARPS)),
            int(kwargs.get("num_stages", DEFAULT_STAGES)),
        )
    except (TypeError, ValueError, OSError, SyntaxError) as error:
        return Launch(name, problem=f"{type(error).__name__}: {error}"[:300])


def _type_of(value: Any) -> str:
    """Triton's type for an argument, as at a launch: None and 1 are compile-time constants."""
    if type(value).__name__ == DESCRIPTOR:  # its block is part of the type, its shape and strides are not
        element = _type_of(value.base).removeprefix("*")
        return f"tensordesc<{element}{[int(size) for size in value.block_shape]}>"
    if hasattr(value, "data_ptr"):
        return POINTERS[str(value.dtype).removeprefix("torch.")]
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int) and value != 1:
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    if isinstance(value, float):
        return "fp32"
    if value is None or type(value) is int or type(value).__name__ in ("dtype", "constexpr"):
        return "constexpr"
    raise TypeError(f"an argument of type {type(value).__name__} cannot be described")


def _constant(value: Any) -> Any:
    """A compile-time argument as plain data; a Triton dtype as {"dtype": name}."""
    value = getattr(value, "value", value) if type(value).__name__ == "constexpr" else value
    if type(value).__name__ == "dtype" and type(value).__module__.startswith("triton"):
        return {"dtype": value.name}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a compile-time argument of type {type(value).__name__} cannot be described")


def _is_aligned(value: Any) -> bool:
    address = value.data_ptr() if hasattr(value, "data_ptr") else value
    return type(address) is int and address % ALIGNMENT == 0


def _source(kernel: Any) -> str:
    """The text of a kernel and of the kernels, constants and modules that it names, each before its use."""
    parts: dict[str, str] = {}
    _gather(kernel.fn, parts)
    return "\n".join(parts.values())


def _gather(function: Any, parts: dict[str, str]) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef):
        raise TypeError(f"{function.__name__} is no function with a def")
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    known = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    for name in sorted(names & known.keys() - {function.__name__} - parts.keys()):
        value = known[name]
        if inspect.ismodule(value):
            parts[name] = f"import {value.__name__} as {name}"
        elif hasattr(value, "rewrite") or type(value).__name__ == "JITFunction":
            if not value.fn.__module__.startswith("triton"):
                _gather(value.fn, parts)
            else:
                parts[name] = f"from {value.fn.__module__} import {value.fn.__name__} as {name}"
        elif type(value).__name__ == "constexpr":
            parts[name] = f"{name} = triton.language.constexpr({_constant(value)!r})"
        elif type(value) in (bool, int, float, str):  # without the annotation Triton refuses it on a GPU
            constant = "constexpr" in str(known.get("__annotations__", {}).get(name, ""))
            parts[name] = f"{name}{': triton.language.constexpr' if constant else ''} = {value!r}"
        elif getattr(value, "__module__", "").startswith("triton"):
            parts[name] = f"from {value.__module__} import {value.__name__} as {name}"
    node.decorator_list = [ast.parse("triton.jit", mode="eval").body]
    parts[function.__name__] = ast.unparse(node)
