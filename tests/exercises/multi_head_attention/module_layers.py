"""`MultiHeadAttention`: mutants that go wrong in the layers, or in how they are made."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant
from tests.exercises.multi_head_attention.function import join
from tests.exercises.multi_head_attention.modules import (
    NAME,
    ByTheBook,
    Four,
    layers,
    variant,
)

# The layers

variant("raw_everything", "projections never applied", project=lambda m, q, k, v: given(q, k, v))


def given(query, key, value):
    key = query if key is None else key
    return query, key, key if value is None else value


def through(*names):
    """Projections by these layers; None leaves a part as it is."""

    def project(module, query, key, value):
        sources = given(query, key, value)
        return tuple(x if n is None else getattr(module, n)(x) for n, x in zip(names, sources, strict=True))

    return project


variant("raw_queries", "queries not projected", project=through(None, "k_proj", "v_proj"))
variant("raw_keys", "keys not projected", project=through("q_proj", None, "v_proj"))
variant("raw_values", "values not projected", project=through("q_proj", "k_proj", None))
variant("keys_by_v_proj", "keys made by v_proj", project=through("q_proj", "v_proj", "v_proj"))
variant("keys_by_q_proj", "keys made by q_proj", project=through("q_proj", "q_proj", "v_proj"))
variant("values_by_k_proj", "values made by k_proj", project=through("q_proj", "k_proj", "k_proj"))
variant("keys_and_values", "keys and values exchanged", project=through("q_proj", "v_proj", "k_proj"))
variant("queries_and_keys", "queries and keys exchanged", project=through("k_proj", "q_proj", "v_proj"))


def by_weights(turned):
    def project(module, query, key, value):
        pairs = zip(layers(module), given(query, key, value), strict=True)
        if not turned:
            return tuple(x @ one.weight.mT for one, x in pairs)
        return tuple(x @ one.weight + (0.0 if one.bias is None else one.bias) for one, x in pairs)

    return project


variant("without_biases", "projections without their biases", project=by_weights(False))
variant("weights_turned", "projections applied transposed", project=by_weights(True))
variant(
    "no_out_proj",
    "out_proj never applied",
    finish=lambda m, w, v, q, n: (join(w @ v), w if n else None),
)
variant(
    "out_proj_without_bias",
    "out_proj applied without its bias",
    finish=lambda m, w, v, q, n: (join(w @ v) @ m.out_proj.weight.mT, w if n else None),
)
variant(
    "residual_added",
    "query added to the output",
    finish=lambda m, w, v, q, n: (m.out_proj(join(w @ v)) + q, w if n else None),
)
variant("only_to_itself", "key and value never used", project=lambda m, q, k, v: m.three(q, None, None))
variant("key_as_value", "value never used", project=lambda m, q, k, v: m.three(q, k, None))
variant(
    "query_as_value",
    "values taken from the query where no value is given",
    only="left out",
    project=lambda m, q, k, v: m.three(q, k, q if v is None else v),
)


def view_like_the_query(module, query, key, value):
    """Keys and values are cut with the query's length."""
    q, k, v = module.three(query, key, value)
    return q, k.reshape(q.shape), v.reshape(q.shape)


variant("lengths_of_the_query", None, project=view_like_the_query)


# How it is made


class Uneven(Four):
    """Refuses nothing."""

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, 1, bias, dropout)
        self.num_heads = num_heads


class Silent(Four):
    """Refuses without saying why."""

    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        if d_model % num_heads:
            raise ValueError("not divisible")
        super().__init__(d_model, num_heads, bias, dropout)


class Asserting(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        assert d_model % num_heads == 0, f"{d_model} % {num_heads}"
        super().__init__(d_model, num_heads, bias, dropout)


class NeverABias(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, False, dropout)


class AlwaysABias(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, True, dropout)


class NoBiasInTheEnd(Four):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__(d_model, num_heads, bias, dropout)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)


UNEVEN = "uneven heads"
variant("refuses_nothing", "sizes are not compared", only=UNEVEN, base=Uneven)
variant("refuses_in_silence", "the refusal does not say why", only=UNEVEN, base=Silent)
variant("asserts", "raises another exception than ValueError", only=UNEVEN, base=Asserting)
variant("never_a_bias", "bias is not passed on", only="biases", base=NeverABias)
variant("always_a_bias", "bias is not passed on", only="biases", base=AlwaysABias)
variant("no_bias_in_the_end", "bias is not passed on", only="biases", base=NoBiasInTheEnd)


def forgotten_layer(module, d_model):
    module.gate = nn.Linear(d_model, d_model)


variant("forgotten_layer", "a parameter is never used", only="parameters", init=forgotten_layer)


def frozen_layer(module, d_model):
    module.k_proj.requires_grad_(False)


variant("frozen_layer", "weights are not trainable", init=frozen_layer)


@mutant(NAME, "uses a forbidden function", only="own work")
class ReadyMade(Four):
    """torch's own forward for the output, with a mask the other way round."""

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        output, weights = ByTheBook.forward(self, query, key, value, attn_mask, is_causal, need_weights)
        with torch.no_grad():
            x = query[..., :1, :].reshape(1, -1, query.shape[-1])
            F.multi_head_attention_forward(
                x, x, x, x.shape[-1], self.num_heads,
                torch.cat([one.weight for one in layers(self)]),
                None if self.q_proj.bias is None else torch.cat([one.bias for one in layers(self)]),
                None, None, False, 0.0, self.out_proj.weight, self.out_proj.bias,
            )  # fmt: skip
        return output, weights


@mutant(NAME, "bias is not passed on")
class DropoutBeforeBias(ByTheBook):
    """The order of nn.MultiheadAttention's constructor."""

    def __init__(self, d_model, num_heads, dropout=0.0, bias=True):
        super().__init__(d_model, num_heads, bool(bias), float(dropout))


@mutant(NAME, "value never used where no key is given", only="left out")
class ValueForgottenWithoutKey(ByTheBook):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        if key is None:
            key = value = query
        return super().forward(query, key, value, attn_mask, is_causal, need_weights)


@mutant(NAME, "missing or misnamed parameter")
class MultiheadInside(nn.Module):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        self.inner = nn.MultiheadAttention(d_model, num_heads, dropout, bias, batch_first=True)

    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        return self.inner(query, key, value)


@mutant(NAME, "parameter of the wrong shape")
class NarrowLayers(nn.Module):
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(d_model, d_model // num_heads, bias))


@mutant(NAME, "not an nn.Module")
class PlainClass:
    def __init__(self, d_model, num_heads, bias=True, dropout=0.0):
        self.q_proj = torch.randn(d_model, d_model)

    def __call__(self, query, *rest, **options):
        return query, query


@mutant(NAME, "query has no effect", only="every input counts")
class Zeros(Four):
    def forward(self, query, key=None, value=None, attn_mask=None, is_causal=False, need_weights=False):
        S_k = (query if key is None else key).shape[-2]
        weights = query.new_zeros(*query.shape[:-2], self.num_heads, query.shape[-2], S_k)
        return torch.zeros_like(query), weights if need_weights else None


@mutant(NAME, "does not return what is asked for")
class Nothing(Four):
    def forward(self, *inputs, **options):
        self.q_proj(inputs[0])


@mutant(NAME)
class LeavesTheProcess(Four):
    def forward(self, *inputs, **options):
        sys.exit(0)


@mutant(NAME)
class NotWritten(Four):
    def forward(self, *inputs, **options):
        raise NotImplementedError
