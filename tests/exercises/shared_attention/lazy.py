"""No attempt at all: what is handed in for an exercise with (output, weights) in the hope of points."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.exercises.catalogue import mutant

__all__ = ["Pair", "register", "without_attention"]

Pair = tuple[Tensor, Tensor]
"""Output and weights, or blanks of their shapes."""


def register(exercise: str, name: str, named: str | None, obj: Any, only: str | None = None) -> None:
    """A mutant under a name of its own."""
    obj.__name__ = name
    mutant(exercise, named, only=only)(obj)


class Agreeable(Tensor):
    """A tensor that says yes to everything."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return torch.zeros(()).new_zeros(0) if func.__name__ in ("detach", "to") else True


def without_attention(
    exercise: str, unmoved: str, make: Callable[[Callable[[Tensor, Tensor], Any]], Any]
) -> None:
    """Register results that no attention has made.

    make turns (right output, right weights) -> result into a student's object; unmoved names what zeros are told.
    """
    asked = "does not return what is asked for"
    results: dict[str, tuple[str | None, Callable[[Tensor, Tensor], Any]]] = {
        "zeros": (unmoved, lambda o, w: (o * 0, w * 0)),
        "random_numbers": (
            "another result at every call",
            lambda o, w: (torch.rand_like(o), torch.rand_like(w)),
        ),
        "nan_everywhere": ("nan or inf for ordinary inputs", lambda o, w: (o * torch.nan, w * torch.nan)),
        "nothing": (asked, lambda o, w: None),
        "output_alone": (asked, lambda o, w: o),
        "weights_first": ("results in the wrong order", lambda o, w: (w, o)),
        "two_lists": (asked, lambda o, w: (o.tolist(), w.tolist())),
        "a_dictionary": (asked, lambda o, w: {"output": o, "weights": w}),
        "a_word": (asked, lambda o, w: "softmax(q k^T) v"),
        "agreeable_tensors": (asked, lambda o, w: (o.as_subclass(Agreeable), w.as_subclass(Agreeable))),
        "leaves_the_process": (None, lambda o, w: sys.exit(0)),
    }
    for name, (named, result) in results.items():
        only = "every input counts" if name == "zeros" else None
        register(exercise, name, named, make(result), only)
