"""Exercise `alibi_bias`: slope[h] (j - i), the formula in two steps, each of which goes wrong in its own ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw
from autograder.checks import Target
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.tiles import alibi_bias, alibi_slopes
from autograder.situations import Factor, Group, Situations, groups

__all__ = ["ALIBI_BIAS"]

SIZES = ("num_heads", "length_q", "length_k")
LONG = [2053, 2063, 2069, 2081, 2083]
"""Longer than the whole numbers that float16 holds, and primes."""


def draw(draw: Draw, *, heads: int | tuple[int, int] = 8, q: Any = 0, k: Any = 0) -> dict[str, Any]:
    """So many heads, or a number of them from a range; lengths of which 0 stands for a few, a list for one of it."""
    few, many = sorted(draw.sizes(2, low=4, high=11))

    def length(wanted: Any) -> int:
        if isinstance(wanted, list):
            return int(wanted[draw.integer(0, len(wanted) - 1)])
        return int({"few": few, "many": many}.get(wanted, wanted) or few)

    heads = draw.integer(*heads) if isinstance(heads, tuple) else heads
    return dict(zip(SIZES, (heads, length(q), length(k)), strict=True))


HEADS: Factor = {
    **{f"{n} heads": {"heads": n} for n in (8, 4, 16)},
    "one head": {"heads": 1}, "two heads": {"heads": 2},
    **{f"{n} heads": {"heads": n} for n in (3, 6, 7, 12)},
    "no power of two": {"heads": (17, 31)},
    "some forty heads": {"heads": (33, 63)}, "64 heads": {"heads": 64}, "more than 128 heads": {"heads": (129, 150)},
}  # fmt: skip
LENGTHS: Factor = {
    "as many keys as queries": {},
    "more keys than queries": {"q": "few", "k": "many"},
    "more queries than keys": {"q": "many", "k": "few"},
    "a single query": {"q": 1, "k": "many"},
    "a single key": {"q": "many", "k": 1},
    "over two thousand keys": {"q": "few", "k": LONG},
    "over two thousand queries": {"q": LONG, "k": "few"},
}


def distance(length_q: int, length_k: int) -> Tensor:
    return torch.arange(length_k).double() - torch.arange(length_q).double().unsqueeze(-1)


def bias(
    num_heads: int,
    length_q: int,
    length_k: int,
    *,
    slopes: Callable[[int], Tensor] = alibi_slopes,
    distance: Callable[[int, int], Tensor] = distance,
) -> Tensor:
    """ALiBi's bias with other slopes or distances."""
    return slopes(num_heads).view(-1, 1, 1) * distance(length_q, length_k)


def below(heads: int) -> int:
    return 1 << (heads.bit_length() - 1)


def plain(heads: int) -> Tensor:
    """2^(-8 h / heads) for h = 1 ... heads, whatever the number is."""
    return 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1, dtype=torch.float64))


def missing(pick: Callable[[Tensor], Tensor]) -> Callable[[int], Tensor]:
    """Slopes whose missing ones are picked in another way from those for twice the power below."""
    return lambda H: torch.cat([plain(below(H)), pick(plain(2 * below(H)))[: H - below(H)]])


SLOPE = "For a power of two H the slopes are 2^(-8/H), 2^(-16/H), ..., 2^(-8)."
OTHER = (
    "Other H: all slopes of the power below, then every second of those for twice that power, from the first."
)
SIGN = "bias = slope * (key position - query position): zero for a position itself, negative in the past."

SLOPE_SLIPS: Slips = {
    SLOPE: {
        "no bias at all": {"slopes": lambda H: torch.zeros(H).double()},
        "slopes begin at one": {"slopes": lambda H: alibi_slopes(H) * 2.0 ** (8 / below(H))},
        "the same slope for every head": {"slopes": lambda H: torch.full((H,), 2.0 ** (-8 / H)).double()},
        "slopes half as steep": {"slopes": lambda H: alibi_slopes(H) / 2},
        "slopes to the base e": {"slopes": lambda H: alibi_slopes(H).pow(1 / math.log(2))},
    },
    f"{SLOPE} The first head has the steepest.": {"slopes in the reverse order": {"slopes": lambda H: alibi_slopes(H).flip(0)}},
    f"{SLOPE} Only for 8 heads do they halve.": {
        "slopes halve from head to head": {"slopes": lambda H: 2.0 ** -torch.arange(1.0, H + 1).double()},
    },
    f"{SLOPE} They are a geometric sequence.": {
        "slopes in even steps": {"slopes": lambda H: torch.arange(H, 0, -1).double() / H},
    },
    OTHER: {
        "the formula for powers of two used for all": {"slopes": plain},
        "slopes of the next power, cut off": {"slopes": lambda H: plain(2 * below(H))[:H] if below(H) != H else plain(H)},
        "missing slopes not interleaved": {"slopes": missing(lambda s: s)},
        "missing slopes begin with the second": {"slopes": missing(lambda s: s[1::2])},
        "missing slopes taken from the end": {"slopes": missing(lambda s: s[::2].flip(0))},
    },
    f"{OTHER} They stay in this order.": {
        "all slopes sorted": {"slopes": lambda H: alibi_slopes(H).sort(descending=True).values},
    },
}  # fmt: skip

DISTANCE_SLIPS: Slips = {
    SIGN: {
        "sign turned round": {"distance": lambda q, k: -distance(q, k)},
        "distance is off by one": {"distance": lambda q, k: distance(q, k) - 1},
    },
    f"{SIGN} The future follows the same formula.": {
        "distance without its sign": {"distance": lambda q, k: -distance(q, k).abs()},
        "no bias in the future": {"distance": lambda q, k: distance(q, k).clamp_max(0)},
    },
    f"{SIGN} Hiding the future is the causal mask's task.": {
        "future hidden by the bias": {"distance": lambda q, k: distance(q, k).masked_fill(distance(q, k) > 0, -torch.inf)},
    },
    f"{SIGN} A row without its query's position gives the same softmax, but not this bias.": {
        "distance not counted from the query": {"distance": lambda q, k: torch.arange(k).double().expand(q, k)},
    },
    "Both sequences are counted from their start: query 0 stands at key 0.": {
        "positions aligned at the end": {"distance": lambda q, k: distance(q, k) - (k - q)},
        "a single query stands at the end": {"distance": lambda q, k: distance(q, k) - (k - q if q == 1 else 0)},
    },
}  # fmt: skip

NO_TENSOR = "it is given no tensor"

ALIBI_BIAS = Exercise(
    name="alibi_bias",
    assignment="efficient_attention",
    target=Target("alibi_bias", ("bias",), alibi_bias),
    positional=SIZES,
    situations=Situations(
        draw=draw,
        factors={"heads": HEADS, "lengths": LENGTHS},
        never=({"lengths": tuple(LENGTHS)[-2:], "heads": tuple(HEADS)[1:]},),
        groups=groups(
            "slope[h] (j - i) for 8 heads", 1.0,
            more=(
                Group("numbers of heads", "powers of two, and others interleaved with the slopes for twice the power below",
                      1.0, ("heads",)),
                Group("lengths", "positions are counted from the start of both, also beyond two thousand", 0.5, ("lengths",)),
                Group("dtype", "float32, whatever the default dtype is", 0.25, ("default dtype",)),
            ),
            calls=0.5,
        ),
        left_out={
            **dict.fromkeys(("layout", "device"), NO_TENSOR),
            **dict.fromkeys((f"gradient: {one}" for one in
                             ("a gradient asked", "a gradient of one input", "activation checkpointing")), NO_TENSOR),
            "state: in tensors used before": NO_TENSOR,
            "state: with an earlier result": "a second call could only ask for the same numbers",
        },
    ),
    recipes=(),
    checks=(),
    mistakes=slips(bias, SLOPE_SLIPS, DISTANCE_SLIPS, output="bias"),
    hints=(
        "Two tables: one slope for each head, one signed distance for each pair. How do they come together?",
        "`arange(length_k) - arange(length_q)[:, None]` is j - i. The slopes are a geometric sequence whose first "
        "number and ratio are both 2^(-8/H); for H no power of two put two such sequences together.",
        "`slopes_of(n) = 2.0 ** (-8.0 / n * torch.arange(1, n + 1))`; with P the power of two below H: "
        "`torch.cat([slopes_of(P), slopes_of(2 * P)[::2][: H - P]])`, viewed as (H, 1, 1), times the distance.",
    ),
)  # fmt: skip
