"""Exercise `grouped_query_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.causality import causal
from autograder.checks.conduct import FUSED, affordable, obeys
from autograder.checks.customary import COUNTS, FORMULA, OUTPUTS, conduct
from autograder.checks.sharing import batch_stands_apart, groups
from autograder.checks.structure import permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise, Mistake
from autograder.mistakes import slips
from autograder.mistakes.attention import attend, only
from autograder.oracle.sharing import grouped_query_attention as formula
from autograder.situations import DTYPES, LENGTHS, Situations, besides, drawn_by, without

__all__ = ["GROUPED_QUERY_ATTENTION"]

RESULTS = (FORMULA, "weights")


def _inputs(
    draw: Draw,
    *,
    heads: tuple[int, int] = (6, 3),
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    lengths: str = "",
    is_causal: bool = False,
    high: int = 9,
) -> dict[str, Any]:
    """query (B, H_q, S_q, D), key (B, H_kv, S_k, D), value (B, H_kv, S_k, D_v), all but the heads different.

    heads: H_q and H_kv. lengths: "<" or ">" for S_q against S_k, "square" for S_q = S_k = D = D_v, "long" for 33 to 60.
    """
    B, S_q, S_k, D, D_v = draw.sizes(5, high=high)
    if lengths in ("<", ">"):
        shorter, longer = min(S_q, S_k) + 1, max(S_q, S_k) + high
        S_q, S_k = (shorter, longer) if lengths == "<" else (longer, shorter)
    elif lengths == "square":
        S_k = D = D_v = S_q
    elif lengths == "long":
        S_q, S_k = draw.sizes(2, 33, 60)
    H_q, H_kv = heads
    inputs: dict[str, Any] = {
        "query": draw.normal(B, H_q, S_q, D, dtype=dtype) * size,
        "key": draw.normal(B, H_kv, S_k, D, dtype=dtype),
        "value": draw.normal(B, H_kv, S_k, D_v, dtype=dtype),
    }
    return inputs | ({"is_causal": True} if is_causal else {})


def _uneven_values(draw: Draw) -> dict[str, Any]:
    """Three key heads and one value head: without a word, the one would stretch to all three."""
    inputs = _inputs(draw)
    return inputs | {"value": inputs["value"][:, :1].clone()}


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("two groups of three", heads=(6, 2)),
    _recipe("all sizes equal", heads=(4, 2), lengths="square"),
    _recipe("large scores", size=6.0, heads=(4, 2)),
    _recipe("one head for all", heads=(4, 1)),
    _recipe("a head for each", heads=(3, 3)),
    _recipe("four groups of two", heads=(8, 4)),
    _recipe("causal, fewer queries than keys", is_causal=True, lengths="<", heads=(4, 2)),
    _recipe("causal, more queries than keys", is_causal=True, lengths=">", heads=(6, 3)),
    _recipe("long sequences", lengths="long", heads=(4, 2)),
    _recipe("huge scores", size=1000.0),
    _recipe("small, float64", dtype=torch.float64, high=6),
    _recipe("float64", dtype=torch.float64),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16),
    _recipe("five heads on two", heads=(5, 2)),
    Recipe("three key heads and one value head", _uneven_values),
    _recipe("many heads", heads=(24, 6), high=6),
)


def _flops(inputs: Mapping[str, Any]) -> int:
    """The two products of every query head, each made twice if need be: sharing heads saves none of them."""
    B, H_q, S_q, D = inputs["query"].shape
    S_k, D_v = inputs["value"].shape[-2:]
    return int(B * H_q * 4 * S_q * S_k * (D + D_v))


def _largest(inputs: Mapping[str, Any]) -> int:
    """One tensor of (B, H_q, S_q, S_k, max(D, D_v)), for those who multiply and sum: twice that is too much."""
    B, H_q, S_q, D = inputs["query"].shape
    S_k, D_v = inputs["value"].shape[-2:]
    return int(B * H_q * 2 * S_q * S_k * max(D, D_v))


Spread = Callable[[Tensor, int], Tensor]
"""Keys or values (B, H_kv, S_k, D) and H_q -> (B, H_q, S_k, D)."""


def _interleaved(heads: Tensor, H_q: int) -> Tensor:
    return heads.repeat_interleave(H_q // heads.shape[1], 1)


def _tiled(heads: Tensor, H_q: int) -> Tensor:
    return heads.repeat(1, H_q // heads.shape[1], 1, 1)


def _variant(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool = False,
    *,
    keys: Spread = _interleaved,
    values: Spread = _interleaved,
    knobs: Mapping[str, Any] | None = None,
) -> Mapping[str, Tensor]:
    """Grouped attention with knobs; `knobs` are those of `attend`."""
    H_q = query.shape[1]
    return attend(query, keys(key, H_q), values(value, H_q), None, is_causal, **(knobs or {}))


def _mistakes() -> tuple[Mistake, ...]:
    order = "Neighbouring query heads share: is it repeat_interleave (0, 0, 1, 1), not repeat (0, 1, 0, 1)?"
    spread: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("heads tiled instead of interleaved", order, {"keys": _tiled, "values": _tiled}),
        ("key heads tiled, value heads interleaved", order, {"keys": _tiled}),
        ("value heads tiled, key heads interleaved", order, {"values": _tiled}),
        (
            "only the first head is read",
            "Is there a key head for each group?",
            {"keys": lambda x, n: x[:, :1], "values": lambda x, n: x[:, :1]},
        ),
        (
            "heads left as they are",
            "A product of 6 query heads with 3 key heads does not broadcast. Which key head does each of them read?",
            {"keys": lambda x, n: x, "values": lambda x, n: x},
        ),
        (
            "heads averaged before the attention",
            "Sharing takes one head for a group. Is there a mean over heads?",
            {"keys": lambda x, n: x.mean(1, keepdim=True), "values": lambda x, n: x.mean(1, keepdim=True)},
        ),
        (
            "heads in reverse order",
            "Does the first query head read the first key head?",
            {
                "keys": lambda x, n: _interleaved(x.flip(1), n),
                "values": lambda x, n: _interleaved(x.flip(1), n),
            },
        ),
    )
    shared = only(
        "not scaled",
        "divided by D",
        "divided by sqrt(D_v)",
        "divided by the root of axis 1",
        "softmax over the queries",
        "softmax over the second axis",
        "no softmax",
        "sigmoid of each score",
        "is_causal ignored",
        "always causal",
        "causal mask aligned at the bottom right",
        "causal mask hides the present",
        "causal mask turned round",
        "mask applied after the softmax",
        "output made of the scores, not of the weights",
        "scores returned as weights",
    )
    return (
        *(Mistake(name, question, partial(_variant, **ways)) for name, question, ways in spread),
        *slips(_variant, *shared, steps="knobs"),
    )


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    return weights @ _interleaved(inputs["value"], weights.shape[1])


KEYS = {"key": -2, "value": -2}
CAUSAL = ("causal, fewer queries than keys", "causal, more queries than keys")


def _situation_inputs(
    draw: Draw, *, heads: tuple[int, int] = (6, 3), scale: float = 1.0, **options: Any
) -> dict[str, Any]:
    """The inputs of a situation: the axes drawn as ever, with these heads of queries and keys."""
    inputs = _drawn(draw, **options)
    H_q, H_kv = heads
    key = inputs["key"][:, :1].repeat(1, H_kv, 1, 1)
    value = inputs["value"][:, :1].repeat(1, H_kv, 1, 1)
    rest = {n: v + 0.3 * draw.normal(*v.shape, dtype=v.dtype) for n, v in (("key", key), ("value", value))}
    query = inputs["query"][:, :1].repeat(1, H_q, 1, 1)
    return inputs | rest | {"query": (query + draw.normal(*query.shape, dtype=query.dtype)) * scale}


SHAPES = {"query": "B H S_q D", "key": "B H S_k D", "value": "B H S_k D_v"}
_drawn = drawn_by(SHAPES, low=2)
SITUATIONS = Situations(
    draw=_situation_inputs,
    factors={
        "lengths": without(LENGTHS, "one tensor for all"),
        "heads": {
            "groups of two": {}, "one key head": {"heads": (5, 1)}, "as many key heads": {"heads": (3, 3)},
            "groups of seven": {"heads": (14, 2)}, "one head": {"heads": (1, 1)},
        },
        "causal": {"not causal": {}, "is_causal": {"is_causal": True}},
        "numbers": {"ordinary numbers": {}, "large scores": {"scale": 8.0}},
        "dtype": DTYPES,
        "batch": {"several sentences": {}, "a batch of one": {"B": 1}},
    },
    axes={name: spec.replace("B H", "... H") for name, spec in SHAPES.items()},
    groups=besides(0.5),
    after=True,
)  # fmt: skip

GROUPED_QUERY_ATTENTION = Exercise(
    name="grouped_query_attention",
    assignment="shared_attention",
    target=Target("grouped_query_attention", OUTPUTS, formula),
    positional=("query", "key", "value"),
    situations=SITUATIONS,
    recipes=RECIPES,
    checks=(
        Check(
            COUNTS,
            "the results change when query, key or value do",
            0.25,
            ("unequal sizes",),
            responds({"query": OUTPUTS, "key": OUTPUTS, "value": ("output",)}),
        ),
        Check(
            FORMULA,
            "each query head attends with the key and value head of its group",
            1.5,
            ("unequal sizes", "two groups of three", "all sizes equal", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights of every query head, rows summing to 1",
            0.75,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(_made),
            COUNTS,
        ),
        Check(
            "both ends",
            "one head for all is multi-query, a head for each multi-head attention",
            0.5,
            ("one head for all", "a head for each"),
            agrees(*OUTPUTS),
            COUNTS,
        ),
        Check(
            "groups",
            "neighbouring query heads share a key and value head, and no others read it",
            1.0,
            ("four groups of two",),
            groups(),
            COUNTS,
        ),
        Check(
            "causal",
            "the future cannot change the past; query i sees keys 0..i",
            0.75,
            CAUSAL,
            causal(KEYS, {"query": -2}, OUTPUTS, attn_mask=False),
            COUNTS,
        ),
        Check(
            "causal results",
            "but for what is hidden, is_causal changes nothing in the formula",
            0.25,
            CAUSAL,
            agrees(*OUTPUTS),
            (FORMULA, "causal"),
        ),
        Check(
            "heads that do not fit",
            "are refused with a ValueError",
            0.5,
            ("five heads on two", "three key heads and one value head"),
            raises_value_error(),
            COUNTS,
        ),
        Check(
            "batch",
            "batch elements stand alone",
            0.25,
            ("many heads",),
            batch_stands_apart(("query", "key", "value"), OUTPUTS),
            COUNTS,
        ),
        Check(
            "order of the keys",
            "keys and values may come in any order",
            0.25,
            ("long sequences",),
            permutation(KEYS, {"output": None, "weights": -1}, "keys"),
            COUNTS,
        ),
        Check(
            "order of the queries",
            "each query stands alone",
            0.25,
            ("long sequences",),
            permutation({"query": -2}, {"output": -2, "weights": -2}, "queries"),
            COUNTS,
        ),
        Check(
            "huge scores",
            "no overflow for large inputs",
            0.25,
            ("huge scores",),
            survives_large_inputs(),
            RESULTS,
        ),
        *conduct(RESULTS, gradient="backward() gives the derivative: a shared head adds up its group's"),
        Check(
            "own work",
            "attention is written out",
            0.25,
            ("unequal sizes", "causal, fewer queries than keys"),
            obeys(FUSED, "attention"),
            RESULTS,
            binding=True,
        ),
        Check(
            "cost",
            "no more work and memory than the formula needs",
            0.25,
            ("many heads",),
            affordable(_flops, _largest),
            RESULTS,
        ),
    ),
    mistakes=_mistakes(),
    hints=(
        (
            "With 6 query heads and 3 key heads, which key head does each of the six read? Write the list down "
            "before you write code."
        ),
        (
            "0, 0, 1, 1, 2, 2. Either repeat each key and value head for its group, or reshape the query to "
            "(B, H_kv, group, S_q, D) and let broadcasting do it. Then it is ordinary attention."
        ),
        (
            "`key.repeat_interleave(H_q // H_kv, 1)`, the same for value, then scores, `tril()` if is_causal, "
            "softmax, average. First compare: `H_q % H_kv` must be 0, and value.shape[1] must be H_kv."
        ),
    ),
)
