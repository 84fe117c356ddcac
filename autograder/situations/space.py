"""The situations of an exercise: its factors, the covering array over them, and the inputs of each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any

from torch import Tensor

from autograder.case import Draw
from autograder.checks import Check, Trial
from autograder.situations.covering import Row, covering_array, pairs
from autograder.situations.factors import Factor, Level

__all__ = [
    "CIRCUMSTANCES",
    "OF_KERNELS",
    "OF_MODULES",
    "Group",
    "Situations",
    "expanded",
    "groups",
]

GRADIENT = ("a gradient asked", "a gradient of one input", "activation checkpointing")

CIRCUMSTANCES: Mapping[str, tuple[str, ...]] = {
    "gradient": ("no gradient asked", *GRADIENT[:2], "no_grad", "inference_mode", GRADIENT[2]),
    "state": ("first call", "after other sizes", "with an earlier result", "in tensors used before",
              "after results were written over"),
    "layout": ("contiguous", "strided", "expanded"),
    "device": ("one device", "a second device"),
    "default dtype": ("the default dtype", "another default dtype"),
}  # fmt: skip
"""How a function is called; every exercise has them, but for those that it leaves out with a reason."""

OF_MODULES: Mapping[str, tuple[str, ...]] = {
    "state": (*CIRCUMSTANCES["state"], "beside a second object", "after an optimizer step"),
    "mode": ("train mode", "eval mode"),
}
"""What there is besides for a module."""

OF_KERNELS: Mapping[str, tuple[str, ...]] = {"layout": (*CIRCUMSTANCES["layout"], "far apart in memory")}
"""What there is besides for a function that launches kernels."""

HIDING: Mapping[str, tuple[str, ...]] = {
    "one key": ("no mask", "is_causal", "a row that allows no key"),
    "one position": ("no mask", "is_causal", "a row that allows no key"),
}
"""Levels beside which others can show little, and the masks that are tried with them."""

BOTH = ("no mask", "is_causal", "a padding mask")
WITH_LONG: Mapping[str, tuple[str, ...]] = {
    "over two thousand keys": BOTH,
    "over two thousand queries": BOTH,
    "over a thousand positions": ("is_causal",),
    "over 256 positions": ("is_causal",),
}
"""The masks that are tried with long inputs."""

HALVED = "bfloat16"
LONG_SUMS = "over two thousand keys"
LONG_IN_HALF = {LONG_SUMS: "no mask", "over 256 positions": "is_causal"}
"""Long inputs that are tried in bfloat16, too, each with a mask: sums in it stand still, positions beyond 256 are rounded."""

MANY = ("a thousand keys", "hundreds of keys", "hundreds of queries", "hundreds of positions")
WITH_MANY = ("no mask", "is_causal", "a padding mask", "a mask per head", "a row that allows no key")
"""Inputs beyond a block of any usual size, and the masks that are tried with them."""

LONG = "over "
"""Levels that begin so are tried without a gradient, in ordinary numbers, and not with every level of the other factors."""


@dataclass(frozen=True)
class Group:
    """Factors that are worth points together: a check on whether results are right whatever their levels.

    Which group loses its points is found from the situations that fail. A group without factors stands for the ordinary
    situation, and comes first.
    """

    name: str
    claim: str
    points: float
    factors: tuple[str, ...]


GROUPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "lengths": ("right for any lengths and any number of leading axes", ("lengths", "axes")),
    "masks": ("a query sees the keys that attn_mask allows it, in any shape, and gets zero if there are none", ("mask",)),
    "causal": ("with is_causal the future cannot change the past, with and without a mask", ("causal",)),
    "scores": ("large, low, equal and far apart scores, and huge numbers behind a mask", ("scores",)),
    "dtypes": ("the inputs' dtype is kept, and its precision, under any default dtype", ("dtype", "default dtype")),
    "gradient": ("backward() gives the derivative; no_grad and checkpointing change nothing", ("gradient",)),
    "calls": ("earlier calls, layout, device and mode change nothing; no input is written to",
              ("state", "layout", "device", "mode")),
}  # fmt: skip
"""What most exercises group their factors into: claim and factors."""


def groups(formula: str, points: float, more: tuple[Group, ...] = (), **worth: float) -> tuple[Group, ...]:
    """The group of the ordinary situation, what it claims and is worth, then `more`, then those of GROUPS by their points."""
    rest = tuple(Group(name, GROUPS[name][0], points, GROUPS[name][1]) for name, points in worth.items())
    return (Group("agrees with the formula", formula, points, ()), *more, *rest)


@dataclass(frozen=True)
class Situations:
    """In which ways the inputs and circumstances of an exercise differ.

    draw: Draw and the options of the levels -> inputs by name, as a recipe draws them. factors: of the inputs, by name.
    axes: of the inputs, such as {"x": "... S D"}; the layout "expanded" and "after other sizes" need them, for a length
    named in `lengths`. left_out: circumstances ("device") or levels of one ("state: after other sizes") that are not tried,
    each with the reason. never: levels that do not go together, as {factor: level or levels} each; together: factors all
    combinations of which are tried. meet: where one call costs much, sets of factors within which all pairs of levels are
    tried, and no others. module, kernels: it is one, it launches some. names: what it is called where that level goes wrong,
    and the question to ask, by factor and level, or "" for any level of the factor.
    groups: what is worth points; a factor that none of them names belongs to the last.
    """

    draw: Callable[..., dict[str, Any]]
    factors: Mapping[str, Factor]
    groups: tuple[Group, ...]
    axes: Mapping[str, str] = field(default_factory=dict)
    lengths: tuple[str, ...] = ("S_q", "S_k", "S")
    left_out: Mapping[str, str] = field(default_factory=dict)
    never: tuple[Mapping[str, Any], ...] = ()
    together: tuple[tuple[str, ...], ...] = ()
    meet: tuple[tuple[str, ...], ...] = ()
    module: bool = False
    kernels: bool = False
    names: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    right: Callable[[Trial, Mapping[str, Tensor]], None] | None = None

    def arranged(self, checks: tuple[Check, ...]) -> tuple[Check, ...]:
        """The groups as checks, and then the exercise's written ones."""
        ordinary = tuple(one.name for one in self.groups if not one.factors)
        groups = tuple(
            Check(one.name, one.claim, one.points, (), _no_probe, ordinary if one.factors else None)
            for one in self.groups
        )
        return (*groups, *checks)

    @property
    def circumstances(self) -> Mapping[str, tuple[str, ...]]:
        """How such an exercise can be called, with what it leaves out."""
        modules, kernels = OF_MODULES if self.module else {}, OF_KERNELS if self.kernels else {}
        return {**CIRCUMSTANCES, **modules, **kernels}

    @cached_property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """All factors with the names of their levels."""
        missing = {"layout": "expanded", "state": "after other sizes"} if not self.axes else {}
        tried = {
            name: tuple(
                one for one in of if f"{name}: {one}" not in self.left_out and missing.get(name) != one
            )
            for name, of in self.circumstances.items()
            if name not in self.left_out
        }
        return {**{name: tuple(of) for name, of in self.factors.items()}, **tried}

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The covering array."""
        return covering_array(self.levels, self.allows, self.together, asked=self.asks, hiding=HIDING)

    def wanted(self) -> list[tuple[tuple[str, str], ...]]:
        """What must stand together in some situation: pairs of levels, chosen triples, and each level by itself."""
        return pairs(self.levels, self.allows, self.together, self.asks)

    @property
    def pairs(self) -> int:
        """How many of them there are."""
        return len(self.wanted())

    def is_long(self, row: Row) -> bool:
        """Whether the inputs are long."""
        return not self.long.isdisjoint(row.values())

    def is_small(self, row: Row) -> bool:
        """Whether the inputs are long nowhere, and not many."""
        return not self.is_long(row) and not any(level in MANY for level in row.values())

    def asks(self, part: Row) -> bool:
        """Whether these levels must stand together in some situation: long inputs cost time, and meet masks only."""
        if self.meet and len(part) > 1 and not any(set(part) <= set(one) for one in self.meet):
            return False
        long = next((level for level in part.values() if level in self.long), None)
        if long is not None:
            if long in LONG_IN_HALF and HALVED in part.values():
                return len(part) == 2
            masks = WITH_LONG.get(long, BOTH)
            return set(part) <= {*self.lengthy, "mask", "causal"} and part.get("mask", masks[0]) in masks
        if any(level in MANY for level in part.values()):
            besides = {"mask", "causal", "gradient", "dtype", "scores", "axes", *self.lengthy}
            return set(part) <= besides and part.get("mask", "no mask") in WITH_MANY
        hidden = next((HIDING[level] for level in part.values() if level in HIDING), None)
        return hidden is None or part.get("mask", hidden[0]) in hidden

    @cached_property
    def lengthy(self) -> tuple[str, ...]:
        """The factors that have long inputs among their levels."""
        return tuple(name for name, of in self.levels.items() if not self.long.isdisjoint(of))

    @cached_property
    def refused(self) -> list[list[tuple[str, frozenset[str]]]]:
        """What `never` says, the levels of each factor as a set."""
        return [
            [(name, frozenset([of] if isinstance(of, str) else of)) for name, of in one.items()]
            for one in self.never
        ]

    @cached_property
    def long(self) -> frozenset[str]:
        """The levels with long inputs."""
        return frozenset(level for of in self.levels.values() for level in of if level.startswith(LONG))

    def allows(self, row: Row) -> bool:
        """Whether these levels go together."""
        if self.is_long(row):
            mask = next((LONG_IN_HALF[level] for level in row.values() if level in LONG_IN_HALF), None)
            halved = mask is not None and HALVED in row.values()
            wanted: dict[str, str | None] = dict.fromkeys(("scores", "axes", "gradient", "state", "layout"))
            wanted |= dict.fromkeys(("mask", "causal"), mask) if halved else {"dtype": None}
            for name, level in wanted.items():
                levels = self.levels.get(name, ())
                if name in row and row[name] != (level if level in levels else levels[0]):
                    return False
        if row.get("layout") == "expanded" and (
            "no leading axis" in row.values()
            or row.get("state") in ("in tensors used before", "after results were written over")
            or row.get("gradient") in GRADIENT
        ):
            return False
        if row.get("gradient") in GRADIENT and (
            row.get("state") in ("in tensors used before", "after results were written over")
        ):
            return False
        if row.get("gradient") == "no_grad" and row.get("mode") == "train mode":
            return False  # as inference is done: what is quicker then meets every other level
        return not any(all([row.get(name) in of for name, of in one]) for one in self.refused)

    def row(self, seed: int, place: int) -> Row:
        """The situation at that place in the run of that seed: the ordinary one, then the array.

        Circumstances of two levels change places from run to run, where each goes with every other level: all pairs stay
        covered, and three levels together are others each time.
        """
        if place == 0:
            return self.rows[0]
        row = dict(self.rows[place - 1])
        for name in ("device", "default dtype", "mode"):
            levels = self.levels.get(name, ())
            fixed = len(levels) < 2 or any(name in one for one in self.never)
            if not fixed and Random(f"{seed} {name}").random() < 0.5:
                other = levels[1 - levels.index(row[name])]
                row[name] = other if self.allows({**row, name: other}) else row[name]
        return row

    @property
    def places(self) -> int:
        """How many situations one run has."""
        return len(self.rows) + 1

    def options(
        self, row: Row
    ) -> tuple[dict[str, Any], list[Callable[[Draw, dict[str, Any]], dict[str, Any]]]]:
        """What a situation asks of the drawing function, and the changes that it makes of what was drawn."""
        chosen: list[Level] = [of[row[name]] for name, of in self.factors.items()]
        asked: dict[str, Any] = {}
        changes = []
        for level in chosen:
            for part in level if isinstance(level, tuple) else (level,):
                if callable(part):
                    changes.append(part)
                else:
                    asked |= part
        return asked, changes

    def inputs(self, draw: Draw, row: Row) -> dict[str, Any]:
        """The inputs of a case in that situation."""
        asked, changes = self.options(row)
        inputs = self.draw(draw, **asked)
        for change in changes:
            inputs = change(draw, inputs)
        return expanded(inputs, self.axes) if row.get("layout") == "expanded" else inputs

    def departures(self, row: Row) -> dict[str, str]:
        """The levels that are not the ordinary ones, by factor."""
        return {name: level for name, level in row.items() if level != self.levels[name][0]}

    def group(self, factor: str) -> str:
        """The name of the group that a factor belongs to."""
        return next((one.name for one in self.groups if factor in one.factors), self.groups[-1].name)


def _no_probe(trial: Trial) -> None:
    raise NotImplementedError("a group of situations is tried situation by situation")


def expanded(inputs: Mapping[str, Any], axes: Mapping[str, str]) -> dict[str, Any]:
    """The inputs with all elements of the first leading axis alike, in one memory: what `expand` gives."""
    return {
        name: value[:1].clone().expand(value.shape) if _leads(name, value, axes) else value
        for name, value in inputs.items()
    }


def _leads(name: str, value: Any, axes: Mapping[str, str]) -> bool:
    spec = axes.get(name, "").split()
    return isinstance(value, Tensor) and spec[:1] == ["..."] and value.dim() >= len(spec)
