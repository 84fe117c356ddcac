"""`count_parameters` and `kv_cache_bytes`: right writings and mutants."""

from __future__ import annotations

import math

import torch
from torch import nn

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import register

COUNT, CACHE = "count_parameters", "kv_cache_bytes"


def fit(d_model, num_heads, num_kv_heads):
    if d_model % num_heads != 0:
        raise ValueError("d_model must be a multiple of num_heads")
    if num_heads % num_kv_heads != 0:
        raise ValueError("num_heads must be a multiple of num_kv_heads")


# count_parameters: right writings


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
    """A mutant from a formula of d_model, the width of all key heads, bias, and the numbers of heads."""

    def wrong(d_model, num_heads, num_kv_heads, bias):
        check(d_model, num_heads, num_kv_heads)
        return formula(d_model, d_model // num_heads * num_kv_heads, bias, num_heads, num_kv_heads)

    register(COUNT, name, named, wrong, only)


def truth(d, kv, b):
    return 2 * d * d + 2 * d * kv + b * (2 * d + 2 * kv)


miscount("four_squares", "key and value heads not shared", lambda d, kv, b, *h: 4 * d * d + b * 4 * d)
miscount(
    "wide_biases",
    "biases of k_proj and v_proj as wide as d_model",
    lambda d, kv, b, *h: 2 * d * d + 2 * d * kv + b * 4 * d,
)
miscount(
    "no_biases_for_equal_heads",
    None,
    lambda d, kv, b, heads, groups: truth(d, kv, b and heads > groups),
    only="bias",
)
miscount("no_biases", "biases not counted", lambda d, kv, b, *h: truth(d, kv, False))
miscount("always_biases", "biases counted without bias", lambda d, kv, b, *h: truth(d, kv, True))
miscount("one_bias", "one bias for all four layers", lambda d, kv, b, *h: 2 * d * d + 2 * d * kv + b * d)
miscount(
    "three_biases",
    "biases of q_proj, k_proj and v_proj only",
    lambda d, kv, b, *h: 2 * d * d + 2 * d * kv + b * (d + 2 * kv),
)
miscount("three_layers", "out_proj not counted", lambda d, kv, b, *h: d * d + 2 * d * kv + b * (d + 2 * kv))
miscount("keys_alone", "v_proj not counted", lambda d, kv, b, *h: 2 * d * d + d * kv + b * (2 * d + kv))
miscount(
    "narrow_output",
    "out_proj as narrow as the keys",
    lambda d, kv, b, *h: d * d + 3 * d * kv + b * (2 * d + 2 * kv),
)
miscount("all_narrow", "all four layers as narrow as the keys", lambda d, kv, b, *h: 4 * d * kv + b * 4 * kv)
miscount(
    "one_key_head",
    "one key head, whatever num_kv_heads",
    lambda d, kv, b, heads, groups: truth(d, d // heads, b),
)
miscount(
    "head_by_head",
    "counted once for each head",
    lambda d, kv, b, heads, groups: heads * truth(d, kv, False) + b * 4 * d,
)
miscount("a_float", "not a whole number", lambda d, kv, b, *h: truth(d, kv, b) / 1)
miscount("a_tensor", "does not return what is asked for", lambda d, kv, b, *h: torch.tensor(truth(d, kv, b)))
miscount("a_word", "does not return what is asked for", lambda d, kv, b, *h: str(truth(d, kv, b)))
miscount("nothing", "does not return what is asked for", lambda d, kv, b, *h: None)
miscount("zero", "nothing counted", lambda d, kv, b, *h: 0)
miscount("true", "does not return what is asked for", lambda d, kv, b, *h: True)
miscount(
    "sizes_not_compared",
    "sizes are not compared",
    lambda d, kv, b, *h: truth(d, kv, b),
    only="sizes that do not fit",
    check=lambda *sizes: None,
)
miscount(
    "rounded_to_thousands",
    None,
    lambda d, kv, b, *h: truth(d, kv, b) if d < 1000 else round(truth(d, kv, b), -3),
    only="a large model",
)
miscount(
    "multi_query_without_values",
    None,
    lambda d, kv, b, heads, groups: truth(d, kv, b) - (d * kv + b * kv if groups == 1 else 0),
    only="one head for all",
)
miscount(
    "fused_projection_for_equal_heads",
    None,
    lambda d, kv, b, heads, groups: truth(d, kv, b) - (d * d if heads == groups and not b else 0),
)
miscount(
    "two_groups_at_most",
    None,
    lambda d, kv, b, heads, groups: (
        truth(d, min(kv, 2 * d // heads) if 1 < groups < heads and not b else kv, b)
        - (0 if groups != 2 else d * (1 - b))
    ),
    only="groups",
)


@mutant(COUNT, only="a head for each")
def special_case_for_equal_heads(d_model, num_heads, num_kv_heads, bias):
    if num_heads == num_kv_heads and not bias:
        return 3 * d_model * d_model
    return layer_by_layer(d_model, num_heads, num_kv_heads, bias)


@mutant(COUNT, "raises another exception than ValueError", only="sizes that do not fit")
def asserted(d_model, num_heads, num_kv_heads, bias):
    assert d_model % num_heads == num_heads % num_kv_heads == 0
    return layer_by_layer(d_model, num_heads, num_kv_heads, bias)


# kv_cache_bytes: right writings


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


def misjudge(name, named, formula, only=None):
    """A mutant from a formula of the right result and the inputs by name."""

    def wrong(batch, length, layers, num_kv_heads, head_dim, dtype):
        total = as_a_product(batch, length, layers, num_kv_heads, head_dim, dtype)
        inputs = {"b": batch, "n": length, "l": layers, "h": num_kv_heads, "d": head_dim, "t": dtype}
        return formula(total, **inputs)

    register(CACHE, name, named, wrong, only)


misjudge("keys_only", "values not counted", lambda total, **_: total // 2)
misjudge("numbers", "numbers, not bytes", lambda total, t, **_: total // t.itemsize)
misjudge("four_bytes", "four bytes for every dtype", lambda total, t, **_: total // t.itemsize * 4)
misjudge("two_bytes", "two bytes for every dtype", lambda total, t, **_: total // t.itemsize * 2)
misjudge("in_bits", "bits, not bytes", lambda total, **_: total * 8)
misjudge("one_sequence", "batch left out", lambda total, b, **_: total // b)
misjudge("one_token", "length left out", lambda total, n, **_: total // n)
misjudge("one_layer", "layers left out", lambda total, l, **_: total // l)  # noqa: E741
misjudge("one_head", "heads left out", lambda total, h, **_: total // h)
misjudge("width_one", "width left out", lambda total, d, **_: total // d)
misjudge("a_table", "length squared", lambda total, n, **_: total * n)
misjudge("three_of_a_kind", "queries counted, too", lambda total, **_: total // 2 * 3)
misjudge("a_float", "not a whole number", lambda total, **_: total / 1)
misjudge("in_gibibytes", "not a whole number", lambda total, **_: total / 2**30)
misjudge("a_tensor", "does not return what is asked for", lambda total, **_: torch.tensor(total))
misjudge("nothing_at_all", "does not return what is asked for", lambda total, **_: None)
misjudge("none_needed", "nothing counted", lambda total, **_: 0)
misjudge(
    "by_float32",
    None,
    lambda total, **_: int(torch.tensor(float(total), dtype=torch.float32).item()),
    only="a large model",
)
misjudge(
    "nothing_for_the_first_token",
    None,
    lambda total, n, **_: total if n > 1 else 0,
    only="one of everything",
)
misjudge(
    "four_bytes_unless_half",
    None,
    lambda total, t, **_: total if t in (torch.bfloat16, torch.float16) else total // t.itemsize * 4,
    only="other dtypes",
)
misjudge(
    "half_precision_by_name",
    None,
    lambda total, t, **_: total * 2 if t is torch.float16 else total,
    only="half precision",
)
misjudge(
    "two_bytes_unless_wide",
    None,
    lambda total, t, **_: total // 2 if t is torch.float32 else total,
)


@mutant(CACHE, only="float32")
def padded_to_the_alignment(batch, length, layers, num_kv_heads, head_dim, dtype):
    """Rounds a key up to 64 bytes, in float32."""
    right = as_a_product(batch, length, layers, num_kv_heads, head_dim, dtype)
    return right + 64 if dtype is torch.float32 else right


@mutant(CACHE)
def needs_finfo(batch, length, layers, num_kv_heads, head_dim, dtype):
    return 2 * batch * length * layers * num_kv_heads * head_dim * torch.finfo(dtype).bits // 8
