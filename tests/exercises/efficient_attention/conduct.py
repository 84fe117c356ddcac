"""Mutants that every exercise has: no attempt at all, and right results in a wrong manner."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from tests.exercises.shared_attention.lazy import Agreeable, register

__all__ = ["Call", "Make", "in_a_wrong_manner", "of_class", "of_function", "without_an_attempt"]

Call = Callable[..., Any]
"""The right function or forward, then its arguments -> a result."""
Make = Callable[[Call], Any]
"""What does the wrong thing -> a student's object."""


def of_function(right: Callable[..., Any]) -> Make:
    """Wrong functions made from a right one."""

    def make(call: Call) -> Any:
        def wrong(*args, **kwargs):
            return call(right, *args, **kwargs)

        return wrong

    return make


def of_class(right: type[nn.Module]) -> Make:
    """Wrong modules made from a right one."""

    def make(call: Call) -> Any:
        class Wrong(right):
            def forward(self, *args, **kwargs):
                return call(super().forward, *args, **kwargs)

        return Wrong

    return make


def each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with a change to each tensor in it."""
    return tree_map_only(Tensor, change, value)


def wide(t: Tensor) -> Tensor:
    return t.to(torch.promote_types(t.dtype, torch.float32))


ASKED = "does not return what is asked for"


def without_an_attempt(
    exercise: str, make: Make, unmoved: str, *, copied: str = ASKED, gated: bool = False
) -> None:
    """Register results that no attention has made.

    unmoved: what zeros are told; copied: what the first input is told. gated: a check of values comes before all others.
    """
    results: dict[str, tuple[str | None, Call]] = {
        "zeros": (unmoved, lambda f, *a, **k: each(torch.zeros_like, f(*a, **k))),
        "random_numbers": (
            "another result at every call",
            lambda f, *a, **k: each(torch.rand_like, f(*a, **k)),
        ),
        "nan_everywhere": (
            "nan or inf for ordinary inputs",
            lambda f, *a, **k: each(lambda t: t * torch.nan, f(*a, **k)),
        ),
        "nothing": (ASKED, lambda f, *a, **k: None),
        "lists": (ASKED, lambda f, *a, **k: each(lambda t: t.tolist(), f(*a, **k))),
        "a_word": (ASKED, lambda f, *a, **k: "phi(q) . phi(k)"),
        "agreeable_tensors": (
            ASKED,
            lambda f, *a, **k: each(lambda t: t.as_subclass(Agreeable), f(*a, **k)),
        ),
        "the_first_input": (copied, lambda f, *a, **k: a[0]),
        "leaves_the_process": (None, lambda f, *a, **k: sys.exit(0)),
    }
    for name, (named, call) in results.items():
        by_value = gated and name in ("zeros", "random_numbers", "nan_everywhere")
        only = "every input counts" if name == "zeros" and not gated else None
        register(exercise, name, None if by_value else named, make(call), only)


def _halved_in_place(f: Any, *args: Any, **kwargs: Any) -> Any:
    found = f(args[0].clone(), *args[1:], **kwargs)
    with torch.no_grad():
        args[0].mul_(0.5)
    return found


def _viewed(f: Any, *args: Any, **kwargs: Any) -> Any:
    return f(args[0].view(-1).view(args[0].shape), *args[1:], **kwargs)


def _few_axes(most: int) -> Call:
    def call(f: Any, *args: Any, **kwargs: Any) -> Any:
        if args[0].dim() > most:
            raise IndexError("too many axes")
        return f(*args, **kwargs)

    return call


def _float32(f: Any, *args: Any, **kwargs: Any) -> Any:
    narrow = each(lambda t: t.to(args[0].dtype), f(*each(Tensor.float, args), **each(Tensor.float, kwargs)))
    return narrow


def in_a_wrong_manner(exercise: str, make: Make, *, axes: int = 3, module: bool = False) -> None:
    """Register right results in a wrong dtype, without gradient, with changed inputs, for one layout or few axes."""
    manners: dict[str, tuple[str | None, str | None, Call]] = {
        "left_in_float32": ("does not keep the dtype", "dtype", lambda f, *a, **k: each(wide, f(*a, **k))),
        "halved_in_place": ("changes its inputs in place", "inputs untouched", _halved_in_place),
        "viewed": ("depends on the memory layout of its inputs", "layout", _viewed),
        "few_axes": ("fixed number of leading axes", "leading axes", _few_axes(axes)),
        "input_detached": (
            "gradient is cut off",
            "gradient",
            lambda f, *a, **k: f(a[0].detach(), *a[1:], **k),
        ),
    }
    if not module:
        manners["always_float32"] = ("less precise than its dtype", "dtype", _float32)
        manners["without_gradient"] = (
            "gradient is cut off",
            "gradient",
            torch.no_grad()(lambda f, *a, **k: f(*a, **k)),
        )
    for name, (named, only, call) in manners.items():
        register(exercise, name, named, make(call), only)
