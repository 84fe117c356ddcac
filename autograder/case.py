"""Cases: concrete inputs, each drawn again from its number alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "CASES_PER_SEED",
    "Case",
    "Draw",
    "Layer",
    "Recipe",
    "Results",
    "describe",
    "draw_case",
    "without_root",
]

CASES_PER_SEED = 1000
"""A case's number is seed * CASES_PER_SEED + its recipe's place in the exercise."""


class Draw:
    """A seeded source of sizes, numbers and masks. Draws in float64, so that every dtype rounds the same numbers."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed % 2**63)

    def sizes(self, count: int, low: int = 2, high: int = 9) -> tuple[int, ...]:
        """`count` different sizes in low..high: a swapped axis can never go unnoticed."""
        order = torch.randperm(high - low + 1, generator=self.generator)[:count]
        return tuple(int(low + place) for place in order)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Independent N(0, 1) numbers of shape `shape`."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(dtype)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Independent numbers in [low, high), float64."""
        return low + (high - low) * torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def integer(self, low: int, high: int) -> int:
        """One whole number in low..high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def permutation(self, length: int) -> Tensor:
        """A permutation of 0..length-1 that moves something (length > 1)."""
        order = torch.randperm(length, generator=self.generator)
        return order.roll(1) if torch.equal(order, torch.arange(length)) else order

    def mask(self, *shape: int, dead_rows: bool = False) -> Tensor:
        """A bool mask (..., S_q, S_k): about six in ten allowed, each row with both kinds; one dead row on request."""
        allowed = self.uniform(*shape) < 0.6
        keep = torch.randint(shape[-1], shape[:-1], generator=self.generator)
        hide = (keep + 1) % shape[-1]
        allowed.scatter_(-1, hide.unsqueeze(-1), False)
        allowed.scatter_(-1, keep.unsqueeze(-1), True)
        if dead_rows:
            allowed[..., self.integer(0, shape[-2] - 1), :] = False
        return allowed


class Residual(nn.Module):
    """x + scale * inner(x), of width d; scale is a buffer: 0.5, 1, 1.5, and again."""

    def __init__(self, inner: nn.Module, d: int):
        super().__init__()
        self.inner = inner
        self.register_buffer("scale", self.scales(d))

    @staticmethod
    def scales(d: int) -> Tensor:
        """The buffer (d,)."""
        return torch.arange(d, dtype=torch.float32) % 3 / 2 + 0.5

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d) -> the same shape."""
        made: Tensor = x + self.scale.to(x.dtype) * self.inner(x)
        return made


class Centred(nn.Module):
    """Less half of the mean over the first axis: what stands there does not stand alone."""

    def forward(self, x: Tensor) -> Tensor:
        """x (n, ...) -> the same shape."""
        return x - x.mean(0, keepdim=True) / 2


OWN = {"Residual": Residual, "Centred": Centred}


class Layer:
    """A module of torch.nn by its recipe, for constructors that are handed one: `Layer("Linear", 6, 4, bias=False)`.

    args and kwargs are the torch class's own, other layers among them; the weights are drawn from `seed`. Besides there are
    "Residual" and "Centred".
    """

    def __init__(self, kind: str, *args: Any, seed: int = 0, **kwargs: Any):
        self.kind, self.args, self.kwargs, self.seed = kind, args, kwargs, seed

    def build(self) -> nn.Module:
        """A fresh module, with the same weights each time. Raises: ValueError if torch.nn has no such class."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)  # torch.manual_seed goes round all devices
            return self._made()

    def _made(self) -> nn.Module:
        made = OWN.get(self.kind) or getattr(nn, self.kind, None)
        if not (isinstance(made, type) and issubclass(made, nn.Module)):
            raise ValueError(f"Layer({self.kind!r}): torch.nn has no module class of that name.")
        args = [item._made() if isinstance(item, Layer) else item for item in self.args]
        return made(*args, **self.kwargs)

    def __repr__(self) -> str:
        shown = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.kind}({', '.join(shown)})"


@dataclass(frozen=True)
class Recipe:
    """How to draw one kind of case.

    draw returns the arguments by name; for a module, `init` in the result holds the constructor's arguments.
    """

    label: str
    draw: Callable[[Draw], dict[str, Any]]


@dataclass(frozen=True)
class Results:
    """What was found out about these inputs, by what it is."""

    inputs: Mapping[str, Any]
    known: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One concrete input: arguments by name (tensors and plain values), constructor arguments for modules.

    situation: the level of every factor, where the exercise has factors.
    adjust: makes of inputs and drawn weights the weights that the situation asks for. results: what is known of its inputs,
    where it is drawn many times.
    """

    number: int
    label: str
    inputs: Mapping[str, Any]
    init: Mapping[str, Any] = field(default_factory=dict)
    situation: Mapping[str, str] = field(default_factory=dict)
    adjust: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    results: Results | None = field(default=None, compare=False, repr=False)

    @property
    def seed(self) -> int:
        """The seed of the run that this case belongs to."""
        return self.number // CASES_PER_SEED

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in self.init.items()]
        parts += [describe(name, value) for name, value in self.inputs.items() if name not in self.init]
        return f"{', '.join(parts)}, seed {self.seed} ({self.label})"


def without_root(width: int) -> int:
    """A width whose root no dtype holds exactly, near `width`: a scale of another dtype shows with every seed."""
    return {4: 10, 9: 11}.get(width, width)


def describe(name: str, value: Any) -> str:
    """An argument in a few words: name, shape, dtype and device of a tensor; the value of anything else."""
    if not isinstance(value, Tensor):
        return f"{name}={value!r}"
    layout = "" if value.is_contiguous() else " non-contiguous"
    return (
        f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')} {value.device.type}{layout}"
    )


def draw_case(recipes: tuple[Recipe, ...], number: int) -> Case:
    """The case of that number. Raises: ValueError if there is no such recipe."""
    place = number % CASES_PER_SEED
    if number < 0 or place >= len(recipes):
        raise ValueError(
            f"case={number} does not exist: its last three digits must be below {len(recipes):03d}. "
            "Copy the number from a report of the same exercise."
        )
    values = dict(recipes[place].draw(Draw(number)))
    init = values.pop("init", {})
    return Case(number, recipes[place].label, values, init)
