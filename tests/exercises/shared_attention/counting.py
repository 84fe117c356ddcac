"""`count_parameters` and `kv_cache_bytes`: right writings and mutants."""

from __future__ import annotations

import math

import torch
from torch import nn

from tests.exercises.catalogue import right
from tests.exercises.shared_attention.lazy import register

COUNT, CACHE = "count_parameters", "kv_cache_bytes"


def fit(d_model, num_heads, num_kv_heads):
    if d_model % num_heads != 0:
        raise ValueError("d_model must be a multiple of num_heads")
    if num_heads % num_kv_heads != 0:
        raise ValueError("num_heads must be a multiple of num_kv_heads")


def asserted(d_model, num_heads, num_kv_heads):
    assert d_model % num_heads == num_heads % num_kv_heads == 0


@right(COUNT)
def layer_by_layer(d_model, num_heads, num_kv_heads, bias):
    fit(d_model, num_heads, num_kv_heads)
    narrow = num_kv_heads * (d_model // num_heads)
    return sum((d_model + bias) * width for width in (d_model, narrow, narrow, d_model))


@right(COUNT)
def by_building_the_layers(d_model, num_heads, num_kv_heads, bias):
    fit(d_model, num_heads, num_kv_heads)
    narrow = num_kv_heads * (d_model // num_heads)
    with torch.device("meta"):
        layers = [nn.Linear(d_model, width, bias=bias) for width in (d_model, narrow, narrow, d_model)]
    return sum(p.numel() for layer in layers for p in layer.parameters())


@right(COUNT)
def in_one_formula(d_model, num_heads, num_kv_heads, bias):
    fit(d_model, num_heads, num_kv_heads)
    total = 2 * d_model**2 * (num_heads + num_kv_heads) // num_heads
    return total + int(bias) * 2 * (d_model + d_model * num_kv_heads // num_heads)


def miscount(name, named, formula, only=None, check=fit):
    """A mutant from a formula of the right count, the width, bias, and the numbers of heads."""

    def wrong(d_model, num_heads, num_kv_heads, bias):
        check(d_model, num_heads, num_kv_heads)
        narrow = d_model // num_heads * num_kv_heads
        total = 2 * (d_model + bias) * (d_model + narrow)
        return formula(total, d_model, bias, num_heads, num_kv_heads)

    register(COUNT, name, named, wrong, only)


SOMETHING_ELSE = "does not return what is asked for"
UNFIT = "sizes that do not fit"

miscount("a_float", "not a whole number", lambda total, *_: total / 1)
miscount("a_tensor", SOMETHING_ELSE, lambda total, *_: torch.tensor(total))
miscount("a_word", SOMETHING_ELSE, lambda total, *_: str(total))
miscount("true", SOMETHING_ELSE, lambda total, *_: True)
miscount("by_a_float", "rounded on the way", lambda total, *_: int(float(total)))
miscount("in_thousands", "rounded on the way", lambda total, d, *_: total if d < 999 else round(total, -3))
miscount("in_int32", None, lambda total, *_: total % 2**32)
miscount("no_bias_for_equal_heads", None, lambda total, d, b, h, g: total - (b and h == g) * 4 * d)
miscount("fused_projection_for_equal_heads", None, lambda total, d, b, h, g: total - (h == g) * d * d)
miscount("one_key_head_without_values", None, lambda total, d, b, h, g: total - (g == 1) * (d + b) * d // h)
miscount("not_compared", "sizes are not compared", lambda total, *_: total, UNFIT, lambda *sizes: None)
miscount("asserted", "raises another exception than ValueError", lambda total, *_: total, UNFIT, asserted)


@right(CACHE)
def as_a_product(batch, length, layers, num_kv_heads, head_dim, dtype):
    return math.prod((2, batch, length, layers, num_kv_heads, head_dim, dtype.itemsize))


@right(CACHE)
def by_an_empty_cache(batch, length, layers, num_kv_heads, head_dim, dtype):
    cache = torch.empty(2, layers, batch, num_kv_heads, length, head_dim, dtype=dtype, device="meta")
    return cache.numel() * cache.element_size()


@right(CACHE)
def by_bits(batch, length, layers, num_kv_heads, head_dim, dtype):
    limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    per_token = 2 * layers * num_kv_heads * head_dim
    return batch * length * per_token * limits.bits // 8


def misjudge(name, named, formula):
    """A mutant from a formula of the right result, the length and the dtype."""

    def wrong(batch, length, layers, num_kv_heads, head_dim, dtype):
        return formula(as_a_product(batch, length, layers, num_kv_heads, head_dim, dtype), n=length, t=dtype)

    register(CACHE, name, named, wrong)


misjudge("in_gibibytes", "not a whole number", lambda total, **_: total / 2**30)
misjudge("by_a_float", "rounded on the way", lambda total, **_: int(float(total)))
misjudge("by_float32", "rounded on the way", lambda total, **_: int(torch.tensor(float(total)).float()))
misjudge("nothing_for_the_first_token", None, lambda total, n, **_: total if n > 1 else 0)
misjudge("int8_as_wide_as_float32", None, lambda total, t, **_: total * (4 if t is torch.int8 else 1))
misjudge("half_precision_by_name", None, lambda total, t, **_: total * (2 if t is torch.float16 else 1))
misjudge("aligned_in_float32", None, lambda total, t, **_: total + (64 if t is torch.float32 else 0))
misjudge("by_finfo", None, lambda total, t, **_: total // t.itemsize * torch.finfo(t).bits // 8)
