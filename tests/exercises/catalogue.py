"""Where right writings and mutants of the exercises are registered, so that one set of tests can go through them all."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["MUTANTS", "OTHERWISE", "RIGHT", "Mutant", "Right", "load", "mutant", "right"]

RIGHT: list[Right] = []
MUTANTS: list[Mutant] = []
OTHERWISE = {
    ("MultiHeadAttention", "attn_mask replaces the causal mask"),
    ("MultiHeadAttention", "causal mask hides the present"),
    ("perplexity", "sentences weigh alike"),
    ("SelfAttention", "attn_mask replaces the causal mask"),  # is_causal is ignored, where there is a mask
    ("CrossAttention", "divided by the root of axis 1"),  # S_q, where there is one leading axis
    ("alibi_score", "future hidden by the bias"),
    ("attention", "causal mask hides the present"),  # two mistakes at once in rows of one key
    ("attention", "nan where no key is allowed"),
    ("block_sparse_attention", "nan where no key is allowed"),
    ("causal_linear_attention", "relu as the feature map"),  # nan, where all features are zero
    ("chunked_attention", "last block not read"),
    ("chunked_attention", "the block on the diagonal is skipped"),  # rows of nan, of which any two look alike
    ("flash_forward", "only the last tile counts"),  # one of its two ways needs many tiles to show
    ("linear_attention", "relu as the feature map"),
}
"""Exercise and mistake, where a report rightly gives another name: two mistakes look alike, or a plainer one comes first."""


@dataclass(frozen=True)
class Right:
    """A right solution in some writing: it must earn full marks."""

    exercise: str
    obj: Any

    def __str__(self) -> str:
        return f"{self.exercise}-{self.obj.__name__}"


@dataclass(frozen=True)
class Mutant:
    """A wrong solution: it must not pass.

    named: the report must name this mistake (None: it need not be named). only: the one check that fails it.
    """

    exercise: str
    obj: Any
    named: str | None = None
    only: str | None = None

    def __str__(self) -> str:
        return f"{self.exercise}-{self.obj.__name__}"


def right(exercise: str) -> Callable[[Any], Any]:
    """Register the decorated function or class as a right solution."""

    def register(obj: Any) -> Any:
        RIGHT.append(Right(exercise, obj))
        return obj

    return register


def mutant(exercise: str, named: str | None = None, *, only: str | None = None) -> Callable[[Any], Any]:
    """Register the decorated function or class as a wrong solution."""

    def register(obj: Any) -> Any:
        MUTANTS.append(Mutant(exercise, obj, named, only))
        return obj

    return register


def load(stem: str) -> None:
    """Import all that is registered for an assignment."""
    package = importlib.import_module(f"tests.exercises.{stem}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"tests.exercises.{stem}.{module.name}")
