"""Exercise `alibi_bias`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.index_grids import has_dtype
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.tiles import alibi_bias, alibi_slopes

__all__ = ["ALIBI_BIAS"]

POWERS = "powers of two"
SIZES = ("num_heads", "length_q", "length_k")


def _inputs(
    draw: Draw,
    *,
    heads: int = 0,
    square: bool = True,
    longer: str = "",
    lengths: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """num_heads (0: some number that is no power of two), and as many keys as queries, or more of one, or `lengths`."""
    heads = heads or 2 ** draw.integer(3, 4) + draw.integer(1, 7)
    if lengths is not None:
        return dict(zip(SIZES, (heads, *lengths), strict=True))
    few, many = sorted(draw.sizes(2, low=4, high=11))
    lengths = (few, few) if square else (many, few) if longer == "queries" else (few, many)
    return dict(zip(SIZES, (heads, *lengths), strict=True))


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


def _slopes(heads: int) -> Tensor:
    """2^(-8 h / heads) for h = 1 ... heads, whatever the number is."""
    return 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1, dtype=torch.float64))


def _distance(length_q: int, length_k: int) -> Tensor:
    return torch.arange(length_k).double() - torch.arange(length_q).double().unsqueeze(-1)


def _variant(
    num_heads: int,
    length_q: int,
    length_k: int,
    *,
    slopes: Callable[[int], Tensor] = alibi_slopes,
    distance: Callable[[int, int], Tensor] = _distance,
) -> Mapping[str, Tensor]:
    """ALiBi's bias with other slopes or distances."""
    return {"bias": slopes(num_heads).view(-1, 1, 1) * distance(length_q, length_k)}


def _below(heads: int) -> int:
    return 1 << (heads.bit_length() - 1)


def _missing(pick: Callable[[Tensor], Tensor]) -> Callable[[int], Tensor]:
    """Slopes whose missing ones are picked in another way from those for twice the power below."""

    def slopes(heads: int) -> Tensor:
        power = _below(heads)
        return torch.cat([_slopes(power), pick(_slopes(2 * power))[: heads - power]])

    return slopes


def _mistakes() -> tuple[Mistake, ...]:
    slope = "For a power of two H the slopes are 2^(-8/H), 2^(-16/H), ..., 2^(-8)."
    other = "Other H: all slopes of the power below, then every second of those for twice that power, from the first."
    sign = "bias = slope * (key position - query position): zero for a position itself, negative in the past."
    slopes: tuple[tuple[str, str, Callable[[int], Tensor]], ...] = (
        ("no bias at all", slope, lambda H: torch.zeros(H, dtype=torch.float64)),
        ("slopes begin at one", slope, lambda H: alibi_slopes(H) * 2.0 ** (8 / _below(H))),
        (
            "slopes in the reverse order",
            slope + " The first head has the steepest.",
            lambda H: alibi_slopes(H).flip(0),
        ),
        (
            "slopes halve from head to head",
            slope + " Only for 8 heads do they halve.",
            lambda H: 2.0 ** -torch.arange(1.0, H + 1).double(),
        ),
        (
            "the same slope for every head",
            slope,
            lambda H: torch.full((H,), 2.0 ** (-8 / H), dtype=torch.float64),
        ),
        (
            "slopes in even steps",
            slope + " They are a geometric sequence.",
            lambda H: torch.arange(H, 0, -1).double() / H,
        ),
        ("slopes half as steep", slope, lambda H: alibi_slopes(H) / 2),
        ("slopes to the base e", slope, lambda H: alibi_slopes(H).pow(1 / math.log(2))),
        ("the formula for powers of two used for all", other, _slopes),
        (
            "slopes of the next power, cut off",
            other,
            lambda H: _slopes(2 * _below(H))[:H] if _below(H) != H else _slopes(H),
        ),
        ("missing slopes not interleaved", other, _missing(lambda s: s)),
        ("missing slopes begin with the second", other, _missing(lambda s: s[1::2])),
        ("missing slopes taken from the end", other, _missing(lambda s: s[::2].flip(0))),
        (
            "all slopes sorted",
            other + " They stay in this order.",
            lambda H: alibi_slopes(H).sort(descending=True).values,
        ),
    )
    distances: tuple[tuple[str, str, Callable[[int, int], Tensor]], ...] = (
        ("sign turned round", sign, lambda q, k: -_distance(q, k)),
        (
            "distance without its sign",
            sign + " The future follows the same formula.",
            lambda q, k: -_distance(q, k).abs(),
        ),
        (
            "no bias in the future",
            sign + " The future follows the same formula.",
            lambda q, k: _distance(q, k).clamp_max(0),
        ),
        (
            "future hidden by the bias",
            sign + " Hiding the future is the causal mask's task.",
            lambda q, k: _distance(q, k).masked_fill(_distance(q, k) > 0, -torch.inf),
        ),
        (
            "distance not counted from the query",
            sign + " A row without its query's position gives the same softmax, but not this bias.",
            lambda q, k: torch.arange(k).double().expand(q, k),
        ),
        (
            "positions aligned at the end",
            "Both sequences are counted from their start: query 0 stands at key 0.",
            lambda q, k: _distance(q, k) - (k - q),
        ),
        ("distance is off by one", sign, lambda q, k: _distance(q, k) - 1),
    )
    return (
        *(Mistake(name, question, partial(_variant, slopes=made)) for name, question, made in slopes),
        *(Mistake(name, question, partial(_variant, distance=made)) for name, question, made in distances),
    )


ALIBI_BIAS = Exercise(
    name="alibi_bias",
    assignment="efficient_attention",
    target=Target("alibi_bias", ("bias",), alibi_bias),
    positional=SIZES,
    recipes=(
        _recipe("8 heads", heads=8),
        _recipe("4 heads", heads=4),
        _recipe("16 heads", heads=16),
        _recipe("6 heads", heads=6),
        _recipe("12 heads", heads=12),
        _recipe("3 heads", heads=3),
        _recipe("7 heads", heads=7),
        _recipe("one head", heads=1),
        _recipe("two heads", heads=2),
        _recipe("8 heads, more keys", heads=8, square=False),
        _recipe("4 heads, more queries", heads=4, square=False, longer="queries"),
        _recipe("any number of heads"),
        _recipe("5 heads", heads=5),
        _recipe("a single query", heads=4, lengths=(1, 6)),
        _recipe("long sequences", heads=2, lengths=(600, 700)),
    ),
    checks=(
        Check(
            POWERS,
            "slope[h] (j - i) for 4, 8 and 16 heads",
            1.25,
            ("8 heads", "4 heads", "16 heads"),
            agrees("bias"),
        ),
        Check(
            "other numbers of heads",
            "interleaved with the slopes for twice the power of two",
            1.0,
            ("6 heads", "12 heads", "3 heads", "7 heads", "5 heads", "any number of heads"),
            agrees("bias"),
            POWERS,
        ),
        Check("few heads", "one head and two", 0.25, ("one head", "two heads"), agrees("bias"), POWERS),
        Check(
            "unequal lengths",
            "positions are counted from the start of both",
            0.5,
            ("8 heads, more keys", "4 heads, more queries", "a single query", "long sequences"),
            agrees("bias"),
            POWERS,
        ),
        Check(
            "dtype",
            "the bias is float32",
            0.25,
            ("8 heads", "6 heads"),
            has_dtype("bias", torch.float32),
            POWERS,
        ),
    ),
    mistakes=_mistakes(),
    hints=(
        "Two tables: one slope for each head, one signed distance for each pair. How do they come together?",
        (
            "`arange(length_k) - arange(length_q)[:, None]` is j - i. The slopes are a geometric sequence whose first "
            "number and ratio are both 2^(-8/H); for H no power of two put two such sequences together."
        ),
        (
            "`slopes_of(n) = 2.0 ** (-8.0 / n * torch.arange(1, n + 1))`; with P the power of two below H: "
            "`torch.cat([slopes_of(P), slopes_of(2 * P)[::2][: H - P]])`, viewed as (H, 1, 1), times the distance."
        ),
    ),
)
