"""Exercise `latent_cache_elements`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autograder.case import Draw
from autograder.checks import Target
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.counting import NO_TENSORS, counted, product
from autograder.oracle.compressed import latent_cache_elements as formula
from autograder.situations import Factor, Group, Situations, groups

__all__ = ["LATENT_CACHE_ELEMENTS"]

SIZES = ("batch", "length", "layers", "d_latent", "d_rope")
LARGE = {
    "over a thousand million": dict(zip(SIZES, (61, 125_003, 79, 511, 63), strict=True)),
    "over 2^53, beyond which a float64 is rounded": dict(zip(SIZES, (1009, 2**27 + 29, 127, 4095, 64), strict=True)),
}  # fmt: skip


def _sizes(draw: Draw, **sizes: int) -> dict[str, Any]:
    """Five different sizes, but for those that are asked for."""
    return dict(zip(SIZES, draw.sizes(5, 3, 12), strict=True)) | sizes


FACTORS: Mapping[str, Factor] = {
    **{name: {f"{name} several": {}, f"{name} one": {name: 1}} for name in SIZES[:3]},
    "d_latent": {"a latent": {}, "no latent": {"d_latent": 0}, "a latent of one number": {"d_latent": 1}},
    "d_rope": {
        "a rotated key": {},
        "no rotated key": {"d_rope": 0},
        "a rotated key of one number": {"d_rope": 1},
    },
    "sizes": {"small sizes": {}, **LARGE},
}
BESIDE = {name: tuple(of)[1:] for name, of in FACTORS.items() if name != "sizes"}
"""What the large sizes leave no room for."""

SLIPS: Slips = {
    "One latent serves both: keys and values are made of it. Is there a factor 2?": {
        "keys and values counted apart": {"width": lambda d_latent, d_rope, **_: 2 * (d_latent + d_rope)},
    },
    "One latent serves keys and values.": {
        "latent counted twice": {"width": lambda d_latent, d_rope, **_: 2 * d_latent + d_rope},
    },
    "It cannot be made of the latent again. Is it kept, too?": {
        "rotated key not counted": {"width": lambda d_latent, **_: d_latent},
    },
    "All heads share one rotated key, and there is no rotated value.": {
        "rotated key counted twice": {"width": lambda d_latent, d_rope, **_: d_latent + 2 * d_rope},
    },
    "Both are kept.": {"latent not counted": {"width": lambda d_rope, **_: d_rope}},
    "A latent and a rotated key stand side by side: d_latent + d_rope numbers.": {
        "widths multiplied": {"width": lambda d_latent, d_rope, **_: d_latent * d_rope},
    },
    "Each sequence of the batch has a cache of its own.": {"batch left out": {"batch": lambda **_: 1}},
    "Each token leaves a latent behind.": {"length left out": {"length": lambda **_: 1}},
    "Each layer has latents of its own.": {"layers left out": {"layers": lambda **_: 1}},
    "The cache holds latents, not a table of weights.": {"length squared": {"length": lambda length, **_: length**2}},
    "What does each token leave behind?": {"nothing counted": {"width": lambda **_: 0}},
}  # fmt: skip


@product
def _elements(d_latent: int, d_rope: int, **sizes: int) -> dict[str, int]:
    return {**sizes, "width": d_latent + d_rope}


LATENT_CACHE_ELEMENTS = Exercise(
    name="latent_cache_elements",
    assignment="efficient_attention",
    target=Target("latent_cache_elements", ("count",), counted(formula), whole=True),
    positional=SIZES,
    situations=Situations(
        draw=_sizes,
        factors=FACTORS,
        groups=groups(
            "both latent and rotated key, for each token, layer and sequence", 1.0,
            (Group("widths", "d_rope may be 0, and d_latent; either may be 1", 0.5, ("d_latent", "d_rope")),
             Group("ones", "one sequence, one token, one layer", 0.25, SIZES[:3]),
             Group("sizes", "exact for numbers that no float holds, too", 0.25, ("sizes", "default dtype"))),
        ),
        left_out=NO_TENSORS,
        never=tuple({"sizes": tuple(LARGE), name: levels} for name, levels in BESIDE.items()),
    ),
    recipes=(),
    checks=(),
    mistakes=slips(_elements, SLIPS, steps="change", output="count"),
    hints=(
        "What does one token leave behind in one layer, for later tokens to read? Is it there once or for each head?",
        "A latent of d_latent numbers, from which all heads make keys and values, and one rotated key of d_rope numbers.",
        "`batch * length * layers * (d_latent + d_rope)`: no factor 2, no heads.",
    ),
)  # fmt: skip
