"""Exercise `latent_cache_elements`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.counting import counts
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle import Quantity
from autograder.oracle.compressed import latent_cache_elements as formula

__all__ = ["LATENT_CACHE_ELEMENTS"]

SIZES = ("batch", "length", "layers", "d_latent", "d_rope")


def _quantity(round: Any = None, **sizes: int) -> dict[str, Quantity]:
    value = torch.tensor(float(formula(**sizes)), dtype=torch.float64)
    return {"count": Quantity(value, value)}


def _inputs(draw: Draw, *, rope: bool = True, large: bool = False, ones: bool = False) -> dict[str, Any]:
    """Five different sizes; odd ones of a large model, whose product float32 cannot hold; or one of everything."""
    sizes: tuple[int, ...] = draw.sizes(5, 3, 12)
    if large:
        sizes = (61, 2 * draw.integer(60_000, 65_000) + 1, 79, 511, 63)
    elif ones:
        sizes = (1, 1, 1, 1, 1)
    return dict(zip(SIZES, sizes, strict=True)) | ({} if rope else {"d_rope": 0})


def _slip(count: Callable[..., float], **sizes: int) -> Mapping[str, Tensor]:
    return {"count": torch.tensor(float(count(**sizes)), dtype=torch.float64)}


def _but(**changes: Callable[..., float]) -> Callable[..., float]:
    """The right product with some factors replaced."""

    def count(**sizes: int) -> float:
        factors: dict[str, float] = {name: sizes[name] for name in ("batch", "length", "layers")}
        factors["width"] = sizes["d_latent"] + sizes["d_rope"]
        product = 1.0
        for factor in (factors | {name: change(**sizes) for name, change in changes.items()}).values():
            product *= factor
        return product

    return count


SLIPS: tuple[tuple[str, str, Callable[..., float]], ...] = (
    (
        "keys and values counted apart",
        "One latent serves both: keys and values are made of it. Is there a factor 2?",
        _but(width=lambda d_latent, d_rope, **_: 2 * (d_latent + d_rope)),
    ),
    (
        "latent counted twice",
        "One latent serves keys and values.",
        _but(width=lambda d_latent, d_rope, **_: 2 * d_latent + d_rope),
    ),
    (
        "rotated key not counted",
        "It cannot be made of the latent again. Is it kept, too?",
        _but(width=lambda d_latent, **_: d_latent),
    ),
    (
        "rotated key counted twice",
        "All heads share one rotated key, and there is no rotated value.",
        _but(width=lambda d_latent, d_rope, **_: d_latent + 2 * d_rope),
    ),
    ("latent not counted", "Both are kept.", _but(width=lambda d_rope, **_: d_rope)),
    (
        "widths multiplied",
        "A latent and a rotated key stand side by side: d_latent + d_rope numbers.",
        _but(width=lambda d_latent, d_rope, **_: d_latent * d_rope),
    ),
    ("batch left out", "Each sequence of the batch has a cache of its own.", _but(batch=lambda **_: 1)),
    ("length left out", "Each token leaves a latent behind.", _but(length=lambda **_: 1)),
    ("layers left out", "Each layer has latents of its own.", _but(layers=lambda **_: 1)),
    (
        "length squared",
        "The cache holds latents, not a table of weights.",
        _but(length=lambda length, **_: length**2),
    ),
    ("nothing counted", "What does each token leave behind?", lambda **_: 0.0),
)


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


LATENT_CACHE_ELEMENTS = Exercise(
    name="latent_cache_elements",
    assignment="efficient_attention",
    target=Target("latent_cache_elements", ("count",), _quantity, whole=True),
    positional=SIZES,
    recipes=(
        _recipe("without a rotated key", rope=False),
        _recipe("with a rotated key"),
        _recipe("one of everything", ones=True),
        _recipe("a large model", large=True),
    ),
    checks=(
        Check(
            "latent and rotated key",
            "both, for each token and layer",
            1.0,
            ("with a rotated key",),
            counts("count"),
        ),
        Check(
            "no rotated key",
            "d_rope may be 0",
            0.5,
            ("without a rotated key",),
            counts("count"),
            "latent and rotated key",
        ),
        Check(
            "one of everything",
            "one token in one layer",
            0.25,
            ("one of everything",),
            counts("count"),
            "latent and rotated key",
        ),
        Check(
            "a large model",
            "exact for thousands of millions, too",
            0.25,
            ("a large model",),
            counts("count"),
            "latent and rotated key",
        ),
    ),
    mistakes=tuple(Mistake(name, question, partial(_slip, count)) for name, question, count in SLIPS),
    hints=(
        "What does one token leave behind in one layer, for later tokens to read? Is it there once or for each head?",
        "A latent of d_latent numbers, from which all heads make keys and values, and one rotated key of d_rope numbers.",
        "`batch * length * layers * (d_latent + d_rope)`: no factor 2, no heads.",
    ),
)
