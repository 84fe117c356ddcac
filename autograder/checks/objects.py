"""Student objects, here or in another process: made, asked and watched in the same words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from torch import Tensor

from autograder.case import Layer
from autograder.circumstance import Circumstance, entered
from autograder.observation import Observation

__all__ = ["Remote", "RemoteObject", "attribute", "construct", "invoke", "is_class", "is_function"]


class Remote:
    """A student's object that lives in another process, and can say there what a call does.

    kind: "class", "function", or "" for a module made from a class. uses: the global names that its code uses. common: it
    is a module that holds a parameter of another one.
    """

    kind = ""
    uses: frozenset[str] = frozenset()
    common = False

    def beside_the_gpu(self) -> Remote:
        """The same, with its tensors moved to the GPU there for a call, where kernels are not interpreted."""
        raise NotImplementedError

    def observe(
        self,
        args: list[Any],
        kwargs: Mapping[str, Any],
        state: Mapping[str, Tensor] | None = None,
        *,
        idle: bool = False,
    ) -> Observation:
        """What the call does there. `modified` holds "a0", "a1", ... for arguments and "k<name>" for named ones.

        idle: its kernels are launched, but do not run.
        """
        raise NotImplementedError


class RemoteObject:
    """A student's object in another process that is neither a function nor a module."""

    def call_method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What its method `name` returns."""
        raise NotImplementedError

    def look_up(self, name: str) -> Any:
        """What its attribute `name` holds."""
        raise NotImplementedError


def construct(made: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """An object of a student's class; a Layer among the arguments becomes the module that it describes, in its process."""
    if isinstance(made, Remote):
        return made(*args, **kwargs)
    given = [*map(_built, args)], {name: _built(value) for name, value in kwargs.items()}
    with entered(Circumstance(poisoned=True)):  # what is left as torch.empty made it shows each time
        return made(*given[0], **given[1])


def _built(value: Any) -> Any:
    return value.build() if isinstance(value, Layer) else value


def is_class(obj: Any) -> bool:
    """Whether a student's object is a class, wherever it lives."""
    return isinstance(obj, type) or (isinstance(obj, Remote) and obj.kind == "class")


def is_function(obj: Any) -> bool:
    """Whether a student's object is a plain function, wherever it lives."""
    return isinstance(obj, FunctionType) or (isinstance(obj, Remote) and obj.kind == "function")


def invoke(obj: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    """`obj.method(*args, **kwargs)`, wherever the object lives; `__len__` among the methods."""
    if isinstance(obj, RemoteObject):
        return obj.call_method(method, *args, **kwargs)
    return getattr(obj, method)(*args, **kwargs)


def attribute(obj: Any, name: str) -> Any:
    """`obj.name`, wherever the object lives."""
    return obj.look_up(name) if isinstance(obj, RemoteObject) else getattr(obj, name)
