"""Exercises `count_parameters` and `kv_cache_bytes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import raises_value_error
from autograder.checks.counting import counts
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle import Quantity
from autograder.oracle.sharing import kv_cache_bytes, layer_parameters

__all__ = ["COUNT_PARAMETERS", "KV_CACHE_BYTES"]


def _number(value: float) -> Tensor:
    return torch.tensor(float(value), dtype=torch.float64)


def _quantity(
    name: str, formula: Callable[..., int], round: Any = None, **inputs: Any
) -> dict[str, Quantity]:
    value = _number(formula(**inputs))
    return {name: Quantity(value, value)}


def _slip(name: str, formula: Callable[..., float], **inputs: Any) -> Mapping[str, Tensor]:
    return {name: _number(formula(**inputs))}


def _mistakes(output: str, rows: tuple[tuple[str, str, Callable[..., float]], ...]) -> tuple[Mistake, ...]:
    return tuple(Mistake(name, question, partial(_slip, output, formula)) for name, question, formula in rows)


# count_parameters


def _layer(
    draw: Draw, *, groups: bool = True, bias: bool = False, large: bool = False, one: bool = False
) -> dict[str, Any]:
    """Sizes of a layer: heads of an odd width, two or more groups of two or more heads, none of the sizes alike."""
    width = 2 * draw.integer(2, 6) + 1
    per_group, num_kv_heads = draw.sizes(2, low=2, high=5)
    if large:
        width, num_kv_heads = 128, 8
    if not groups:
        num_kv_heads, per_group = num_kv_heads * per_group, 1
    if one:
        num_kv_heads, per_group = 1, num_kv_heads * per_group
    return {
        "d_model": width * num_kv_heads * per_group,
        "num_heads": num_kv_heads * per_group,
        "num_kv_heads": num_kv_heads,
        "bias": bias,
    }


def _broken(draw: Draw, *, change: Mapping[str, int]) -> dict[str, Any]:
    """d_model = 24, 6 heads, 3 of keys and values, but for the changes."""
    return {"d_model": 24, "num_heads": 6, "num_kv_heads": 3, "bias": False} | dict(change)


def _layer_recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_layer, **options))


def _d_kv(d_model: int, num_heads: int, num_kv_heads: int) -> float:
    return d_model / num_heads * num_kv_heads


def _only(
    kept: Callable[[float, float], float], biases: Callable[[float, float], float]
) -> Callable[..., float]:
    """A count of weights and one of biases, of d_model and the width of all key heads."""

    def formula(d_model: int, num_heads: int, num_kv_heads: int, bias: bool) -> float:
        d_kv = _d_kv(d_model, num_heads, num_kv_heads)
        return kept(d_model, d_kv) + (biases(d_model, d_kv) if bias else 0)

    return formula


def _weights(d: float, kv: float) -> float:
    return 2 * d * d + 2 * d * kv


def _biases(d: float, kv: float) -> float:
    return 2 * d + 2 * kv


def _head_width(d_model: int, num_heads: int, num_kv_heads: int, bias: bool) -> float:
    width = d_model / num_heads
    return 2 * d_model**2 + 2 * d_model * width + (2 * d_model + 2 * width if bias else 0)


def _per_head(d_model: int, num_heads: int, num_kv_heads: int, bias: bool) -> float:
    return num_heads * (_weights(d_model, _d_kv(d_model, num_heads, num_kv_heads))) + (
        4 * d_model if bias else 0
    )


COUNT_SLIPS: tuple[tuple[str, str, Callable[..., float]], ...] = (
    (
        "key and value heads not shared",
        "k_proj and v_proj make num_kv_heads heads, not num_heads. How wide is their output?",
        _only(lambda d, kv: 4 * d * d, lambda d, kv: 4 * d),
    ),
    (
        "biases of k_proj and v_proj as wide as d_model",
        "A bias is as long as its layer's output. How wide are keys and values?",
        _only(_weights, lambda d, kv: 4 * d),
    ),
    (
        "biases not counted",
        "With bias=True, each of the four layers has one.",
        _only(_weights, lambda d, kv: 0),
    ),
    (
        "biases counted without bias",
        "With bias=False there are none.",
        lambda **sizes: _only(_weights, _biases)(**(sizes | {"bias": True})),
    ),
    (
        "one bias for all four layers",
        "Each of the four layers has a bias of its own.",
        _only(_weights, lambda d, kv: d),
    ),
    (
        "biases of q_proj, k_proj and v_proj only",
        "Does out_proj have a bias, too?",
        _only(_weights, lambda d, kv: d + 2 * kv),
    ),
    (
        "out_proj not counted",
        "There are four layers, out_proj among them.",
        _only(lambda d, kv: d * d + 2 * d * kv, lambda d, kv: d + 2 * kv),
    ),
    (
        "v_proj not counted",
        "Keys and values both have a layer.",
        _only(lambda d, kv: 2 * d * d + d * kv, lambda d, kv: 2 * d + kv),
    ),
    (
        "out_proj as narrow as the keys",
        "out_proj reads all query heads, which together are d_model wide.",
        _only(lambda d, kv: d * d + 3 * d * kv, lambda d, kv: 2 * d + 2 * kv),
    ),
    (
        "all four layers as narrow as the keys",
        "Only keys and values have fewer heads. How wide are q_proj and out_proj?",
        _only(lambda d, kv: 4 * d * kv, lambda d, kv: 4 * kv),
    ),
    (
        "one key head, whatever num_kv_heads",
        "How many key and value heads are there?",
        _head_width,
    ),
    ("nothing counted", "Which numbers does a linear map hold?", lambda **sizes: 0.0),
    ("counted once for each head", "Splitting d_model into heads makes no new numbers.", _per_head),
)

COUNT_PARAMETERS = Exercise(
    name="count_parameters",
    assignment="shared_attention",
    target=Target("count_parameters", ("count",), partial(_quantity, "count", layer_parameters), whole=True),
    positional=("d_model", "num_heads", "num_kv_heads", "bias"),
    recipes=(
        _layer_recipe("a head for each, no bias", groups=False),
        _layer_recipe("groups, no bias"),
        _layer_recipe("one head for all, no bias", one=True),
        _layer_recipe("groups, with bias", bias=True),
        _layer_recipe("a head for each, with bias", groups=False, bias=True),
        _layer_recipe("a large model", large=True, bias=True),
        Recipe("d_model no multiple of num_heads", partial(_broken, change={"d_model": 25})),
        Recipe("num_heads no multiple of num_kv_heads", partial(_broken, change={"num_kv_heads": 4})),
    ),
    checks=(
        Check(
            "a head for each",
            "4 d_model^2 without groups and bias",
            0.5,
            ("a head for each, no bias",),
            counts("count"),
        ),
        Check(
            "groups", "fewer key and value heads, fewer numbers", 1.0, ("groups, no bias",), counts("count")
        ),
        Check(
            "one head for all", "multi-query attention", 0.25, ("one head for all, no bias",), counts("count")
        ),
        Check(
            "bias",
            "each layer's bias is as long as its output",
            0.75,
            ("groups, with bias", "a head for each, with bias"),
            counts("count"),
        ),
        Check("a large model", "exact for millions, too", 0.25, ("a large model",), counts("count")),
        Check(
            "sizes that do not fit",
            "are refused with a ValueError",
            0.25,
            ("d_model no multiple of num_heads", "num_heads no multiple of num_kv_heads"),
            raises_value_error(),
            "a head for each",
        ),
    ),
    mistakes=_mistakes("count", COUNT_SLIPS),
    hints=(
        "Four linear maps. How wide is what each of them takes in, and what it gives out?",
        (
            "A map from n to m holds n m numbers, and m more with a bias. q_proj and out_proj go from d_model "
            "to d_model; k_proj and v_proj go to num_kv_heads heads of width d_model / num_heads."
        ),
        (
            "With d_kv = d_model // num_heads * num_kv_heads: 2 d_model^2 + 2 d_model d_kv, and with bias "
            "2 d_model + 2 d_kv more. Use //, so that the result is an int."
        ),
    ),
)


# kv_cache_bytes

CACHE_SIZES = ("batch", "length", "layers", "num_kv_heads", "head_dim")


def _cache(draw: Draw, *, dtype: torch.dtype = torch.float32, kind: str = "") -> dict[str, Any]:
    """Five different sizes. kind: "ones" for 1 each, "large" for odd ones of a large model, whose product float32 cannot hold."""
    sizes = draw.sizes(5, low=3, high=12)
    if kind == "ones":
        sizes = (1, 1, 1, 1, 1)
    elif kind == "large":
        sizes = (61, 2 * draw.integer(60_000, 65_000) + 1, 79, 7, 127)
    return dict(zip(CACHE_SIZES, sizes, strict=True)) | {"dtype": dtype}


def _cache_recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_cache, **options))


def _but(**changes: Callable[..., float]) -> Callable[..., float]:
    """The product with some factors replaced by others."""

    def formula(**inputs: Any) -> float:
        factors = {name: float(inputs[name]) for name in CACHE_SIZES}
        factors |= {"pair": 2.0, "bytes": float(inputs["dtype"].itemsize)}
        product = 1.0
        for factor in (factors | {name: change(**inputs) for name, change in changes.items()}).values():
            product *= factor
        return product

    return formula


CACHE_SLIPS: tuple[tuple[str, str, Callable[..., float]], ...] = (
    ("values not counted", "Both keys and values are kept.", _but(pair=lambda **_: 1.0)),
    ("numbers, not bytes", "How many bytes does one number of this dtype take?", _but(bytes=lambda **_: 1.0)),
    (
        "four bytes for every dtype",
        "How many bytes does one number of this dtype take? Does dtype enter?",
        _but(bytes=lambda **_: 4.0),
    ),
    (
        "two bytes for every dtype",
        "How many bytes does one number of this dtype take? Does dtype enter?",
        _but(bytes=lambda **_: 2.0),
    ),
    (
        "bits, not bytes",
        "A byte has 8 bits. Is it torch.finfo(dtype).bits?",
        _but(bytes=lambda dtype, **_: 8.0 * dtype.itemsize),
    ),
    ("nothing counted", "What does each token leave behind?", lambda **sizes: 0.0),
    ("batch left out", "Each sequence of the batch has a cache of its own.", _but(batch=lambda **_: 1.0)),
    ("length left out", "Each token leaves a key and a value.", _but(length=lambda **_: 1.0)),
    ("layers left out", "Each layer has keys and values of its own.", _but(layers=lambda **_: 1.0)),
    ("heads left out", "Each key and value head is kept.", _but(num_kv_heads=lambda **_: 1.0)),
    ("width left out", "A key is a vector of width head_dim.", _but(head_dim=lambda **_: 1.0)),
    (
        "length squared",
        "The cache holds keys and values, not a table of weights. Does it grow with the square of the length?",
        _but(length=lambda length, **_: float(length) ** 2),
    ),
    (
        "queries counted, too",
        "A query is used once, for its own token. Is it kept?",
        _but(pair=lambda **_: 3.0),
    ),
)

KV_CACHE_BYTES = Exercise(
    name="kv_cache_bytes",
    assignment="shared_attention",
    target=Target("kv_cache_bytes", ("count",), partial(_quantity, "count", kv_cache_bytes), whole=True),
    positional=(*CACHE_SIZES, "dtype"),
    recipes=(
        _cache_recipe("float32"),
        _cache_recipe("bfloat16", dtype=torch.bfloat16),
        _cache_recipe("float16", dtype=torch.float16),
        _cache_recipe("float64", dtype=torch.float64),
        _cache_recipe("int8", dtype=torch.int8),
        _cache_recipe("one of everything", kind="ones", dtype=torch.bfloat16),
        _cache_recipe("a large model", kind="large", dtype=torch.bfloat16),
    ),
    checks=(
        Check("float32", "four bytes a number", 1.0, ("float32",), counts("count")),
        Check("half precision", "two bytes a number", 0.5, ("bfloat16", "float16"), counts("count")),
        Check(
            "other dtypes", "eight bytes in float64, one in int8", 0.5, ("float64", "int8"), counts("count")
        ),
        Check(
            "one of everything",
            "one token in one layer",
            0.25,
            ("one of everything",),
            counts("count"),
            "float32",
        ),
        Check(
            "a large model",
            "exact for thousands of millions, too",
            0.25,
            ("a large model",),
            counts("count"),
            "float32",
        ),
    ),
    mistakes=_mistakes("count", CACHE_SLIPS),
    hints=(
        "What does one token leave behind in one layer, for later tokens to read?",
        (
            "A key and a value for each key/value head: 2 num_kv_heads head_dim numbers. Multiply by the number "
            "of layers, of tokens and of sequences, and by the bytes of a number."
        ),
        "`dtype.itemsize` is the bytes of a number. The result is a plain product of seven whole numbers.",
    ),
)
