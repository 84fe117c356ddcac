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
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.counting import NO_TENSORS, counted, product
from autograder.oracle import whole
from autograder.oracle.sharing import kv_cache_bytes, layer_parameters
from autograder.situations import Factor, Group, Situations, groups

__all__ = ["COUNT_PARAMETERS", "KV_CACHE_BYTES"]

OVER_INT32 = "over a thousand million"
OVER_FLOAT = "over 2^53, beyond which a float64 is rounded"


def _layer(
    draw: Draw, *, heads: str = "", bias: bool = False, width: int = 0, d_model: int = 0
) -> dict[str, Any]:
    """A layer of heads of an odd width, two or more groups of two or more; none of the sizes alike.

    heads: "each" for a key head for each query head, "one" for one for all, "single" for one of each. d_model: about as wide.
    """
    per_group, num_kv_heads = draw.sizes(2, 2, 5)
    sharing = {
        "each": (1, num_kv_heads * per_group),
        "one": (num_kv_heads * per_group, 1),
        "single": (1, 1),
        "odd": (3, 5),
    }
    per_group, num_kv_heads = sharing.get(heads, (per_group, num_kv_heads))
    num_heads = per_group * num_kv_heads
    width = width or ((d_model // num_heads) | 1 if d_model else 2 * draw.integer(2, 6) + 1)
    return {"d_model": width * num_heads, "num_heads": num_heads, "num_kv_heads": num_kv_heads, "bias": bias}


LAYERS: Mapping[str, Factor] = {
    "heads": {
        "groups of heads": {}, "a key head for each": {"heads": "each"}, "one key head for all": {"heads": "one"},
        "a single head": {"heads": "single"},
    },
    "bias": {"no bias": {}, "with bias": {"bias": True}},
    "sizes": {
        "small sizes": {}, "heads of width 1": {"width": 1}, OVER_INT32: {"d_model": 100_000},
        OVER_FLOAT: {"d_model": 2**29, "heads": "odd"},
    },
}  # fmt: skip
UNFIT: Mapping[str, dict[str, int]] = {
    "d_model no multiple of num_heads": {"d_model": 25},
    "num_heads no multiple of num_kv_heads": {"num_kv_heads": 4},
    "more key heads than query heads": {"num_kv_heads": 12},
}


def _unfit(sizes: Mapping[str, int], draw: Draw) -> dict[str, Any]:
    return {"d_model": 24, "num_heads": 6, "num_kv_heads": 3, "bias": False, **sizes}


def _parameters(
    d_model: int,
    num_heads: int,
    num_kv_heads: int,
    bias: bool,
    *,
    weights: Callable[[int, int], int] = lambda d, kv: 2 * d * d + 2 * d * kv,
    biases: Callable[[int, int], int] = lambda d, kv: 2 * d + 2 * kv,
    kept: Callable[[int, int], int] = lambda num_heads, num_kv_heads: num_kv_heads,
    times: Callable[[int], int] = lambda num_heads: 1,
    always: bool = False,
) -> Tensor:
    """The count in steps. weights, biases: of d_model and the width of all key heads. kept: how many of these there are."""
    d_kv = d_model // num_heads * kept(num_heads, num_kv_heads)
    count = times(num_heads) * weights(d_model, d_kv)
    return whole(count + (biases(d_model, d_kv) if bias or always else 0))


COUNT_SLIPS: Slips = {
    "k_proj and v_proj make num_kv_heads heads, not num_heads. How wide is their output?": {
        "key and value heads not shared": {"kept": lambda num_heads, num_kv_heads: num_heads},
    },
    "A bias is as long as its layer's output. How wide are keys and values?": {
        "biases of k_proj and v_proj as wide as d_model": {"biases": lambda d, kv: 4 * d},
    },
    "With bias=True, each of the four layers has one.": {"biases not counted": {"biases": lambda d, kv: 0}},
    "With bias=False there are none.": {"biases counted without bias": {"always": True}},
    "Each of the four layers has a bias of its own.": {"one bias for all four layers": {"biases": lambda d, kv: d}},
    "Does out_proj have a bias, too?": {"biases of q_proj, k_proj and v_proj only": {"biases": lambda d, kv: d + 2 * kv}},
    "There are four layers, out_proj among them.": {
        "out_proj not counted": {"weights": lambda d, kv: d * d + 2 * d * kv, "biases": lambda d, kv: d + 2 * kv},
    },
    "Keys and values both have a layer.": {
        "v_proj not counted": {"weights": lambda d, kv: 2 * d * d + d * kv, "biases": lambda d, kv: 2 * d + kv},
    },
    "out_proj reads all query heads, which together are d_model wide.": {
        "out_proj as narrow as the keys": {"weights": lambda d, kv: d * d + 3 * d * kv},
    },
    "Only keys and values have fewer heads. How wide are q_proj and out_proj?": {
        "all four layers as narrow as the keys": {"weights": lambda d, kv: 4 * d * kv, "biases": lambda d, kv: 4 * kv},
    },
    "How many key and value heads are there?": {
        "one key head, whatever num_kv_heads": {"kept": lambda num_heads, num_kv_heads: 1},
    },
    "Which numbers does a linear map hold?": {"nothing counted": {"weights": lambda d, kv: 0, "biases": lambda d, kv: 0}},
    "Splitting d_model into heads makes no new numbers.": {
        "counted once for each head": {"times": lambda num_heads: num_heads, "biases": lambda d, kv: 4 * d},
    },
}  # fmt: skip

COUNT_PARAMETERS = Exercise(
    name="count_parameters",
    assignment="shared_attention",
    target=Target("count_parameters", ("count",), counted(layer_parameters), whole=True),
    positional=("d_model", "num_heads", "num_kv_heads", "bias"),
    situations=Situations(
        draw=_layer,
        factors=LAYERS,
        groups=groups(
            "2 d_model^2 + 2 d_model d_kv without a bias", 1.0,
            (Group("heads", "a key head for each query head, one for all, a single head", 0.75, ("heads",)),
             Group("bias", "each layer's bias is as long as its output", 0.75, ("bias",)),
             Group("sizes", "exact for any sizes, and numbers that no float holds", 0.25, ("sizes", "default dtype"))),
        ),
        left_out=NO_TENSORS,
        never=({"sizes": OVER_FLOAT, "bias": "with bias"},),  # which next to such a number is none
    ),
    recipes=tuple(Recipe(name, partial(_unfit, sizes)) for name, sizes in UNFIT.items()),
    checks=(
        Check("sizes that do not fit", "are refused with a ValueError", 0.25, tuple(UNFIT), raises_value_error(),
              "agrees with the formula"),
    ),
    mistakes=slips(_parameters, COUNT_SLIPS, output="count"),
    hints=(
        "Four linear maps. How wide is what each of them takes in, and what it gives out?",
        "A map from n to m holds n m numbers, and m more with a bias. q_proj and out_proj go from d_model "
        "to d_model; k_proj and v_proj go to num_kv_heads heads of width d_model / num_heads.",
        "With d_kv = d_model // num_heads * num_kv_heads: 2 d_model^2 + 2 d_model d_kv, and with bias "
        "2 d_model + 2 d_kv more. Use //, so that the result is an int.",
    ),
)  # fmt: skip


# kv_cache_bytes

CACHE_SIZES = ("batch", "length", "layers", "num_kv_heads", "head_dim")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16,
          torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)  # fmt: skip
LARGE = {
    OVER_INT32: {"batch": 61, "length": 125_003, "layers": 79, "num_kv_heads": 7, "head_dim": 127},
    OVER_FLOAT: {"batch": 1009, "length": 2**25 + 35, "layers": 127, "num_kv_heads": 63, "head_dim": 255},
}


def _cache(draw: Draw, *, dtype: torch.dtype = torch.float32, **sizes: int) -> dict[str, Any]:
    """Five different sizes, but for those that are asked for."""
    return dict(zip(CACHE_SIZES, draw.sizes(5, 3, 12), strict=True)) | sizes | {"dtype": dtype}


CACHES: Mapping[str, Factor] = {
    "kept": {f"kept in {dtype}".replace("torch.", ""): {"dtype": dtype} for dtype in DTYPES},
    **{name: {f"{name} several": {}, f"{name} one": {name: 1}} for name in CACHE_SIZES},
    "sizes": {"small sizes": {}, **LARGE},
}

ITEMSIZE = "How many bytes does one number of this dtype take?"
CACHE_SLIPS: Slips = {
    "Both keys and values are kept.": {"values not counted": {"pair": lambda **_: 1}},
    ITEMSIZE: {"numbers, not bytes": {"bytes": lambda **_: 1}},
    ITEMSIZE + " Does dtype enter?": {
        "four bytes for every dtype": {"bytes": lambda **_: 4},
        "two bytes for every dtype": {"bytes": lambda **_: 2},
    },
    "A byte has 8 bits. Is it torch.finfo(dtype).bits?": {"bits, not bytes": {"bytes": lambda dtype, **_: 8 * dtype.itemsize}},
    "What does each token leave behind?": {"nothing counted": {"pair": lambda **_: 0}},
    "Each sequence of the batch has a cache of its own.": {"batch left out": {"batch": lambda **_: 1}},
    "Each token leaves a key and a value.": {"length left out": {"length": lambda **_: 1}},
    "Each layer has keys and values of its own.": {"layers left out": {"layers": lambda **_: 1}},
    "Each key and value head is kept.": {"heads left out": {"num_kv_heads": lambda **_: 1}},
    "A key is a vector of width head_dim.": {"width left out": {"head_dim": lambda **_: 1}},
    "The cache holds keys and values, not a table of weights. Does it grow with the square of the length?": {
        "length squared": {"length": lambda length, **_: length**2},
    },
    "A query is used once, for its own token. Is it kept?": {"queries counted, too": {"pair": lambda **_: 3}},
}  # fmt: skip


@product
def _bytes(dtype: torch.dtype, **sizes: int) -> dict[str, int]:
    return {**sizes, "pair": 2, "bytes": dtype.itemsize}


KV_CACHE_BYTES = Exercise(
    name="kv_cache_bytes",
    assignment="shared_attention",
    target=Target("kv_cache_bytes", ("count",), counted(kv_cache_bytes), whole=True),
    positional=(*CACHE_SIZES, "dtype"),
    situations=Situations(
        draw=_cache,
        factors=CACHES,
        groups=groups(
            "keys and values of each token, head, layer and sequence, four bytes a number", 1.0,
            (Group("dtypes", "eight bytes a number in float64, two in bfloat16, one in int8", 1.0, ("kept", "default dtype")),
             Group("ones", "one sequence, one token, one layer, one head, vectors of width 1", 0.25, CACHE_SIZES),
             Group("sizes", "exact for numbers that no float holds, too", 0.25, ("sizes",))),
        ),
        left_out=NO_TENSORS,
        never=tuple({"sizes": tuple(LARGE), name: f"{name} one"} for name in CACHE_SIZES),
    ),
    recipes=(),
    checks=(),
    mistakes=slips(_bytes, CACHE_SLIPS, steps="change", output="count"),
    hints=(
        "What does one token leave behind in one layer, for later tokens to read?",
        "A key and a value for each key/value head: 2 num_kv_heads head_dim numbers. Multiply by the number "
        "of layers, of tokens and of sequences, and by the bytes of a number.",
        "`dtype.itemsize` is the bytes of a number. The result is a plain product of seven whole numbers.",
    ),
)  # fmt: skip
