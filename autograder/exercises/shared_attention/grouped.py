"""Exercise `grouped_query_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import raises_value_error
from autograder.checks.averaging import finite_when
from autograder.checks.causality import causal
from autograder.checks.conduct import FUSED, affordable, obeys
from autograder.checks.sharing import groups as heads_in_groups
from autograder.checks.structure import permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import attend, only
from autograder.oracle.sharing import grouped_query_attention as formula
from autograder.situations import (
    CAUSAL,
    DTYPES,
    LENGTHS,
    Group,
    Situations,
    drawn_by,
    groups,
    scores,
    without,
)
from autograder.situations.factors import VERY_LONG

__all__ = ["GROUPED_QUERY_ATTENTION"]

OUTPUTS = ("output", "weights")
RESULTS = ("agrees with the formula", "heads")
SHAPES = {"query": "... H_q S_q D", "key": "... H_kv S_k D", "value": "... H_kv S_k D_v"}
draw = drawn_by(SHAPES, derived={"H_q": lambda s: s["H_kv"] * s["group"]}, free="group", leading=1)

HEADS = {
    "groups of two": {"H_kv": 3, "group": 2}, "one key head for all": {"H_kv": 1, "group": 5},
    "a key head for each": {"H_kv": 3, "group": 1}, "four groups": {"H_kv": 4, "group": 2},
    "two groups of seven": {"H_kv": 2, "group": 7}, "one head": {"H_kv": 1, "group": 1}, "24 heads": {"H_kv": 6, "group": 4},
}  # fmt: skip
ALONE = {"batch": 1, "D": 3, "D_v": 2}


def _plain(one: Draw, **options: Any) -> dict[str, Any]:
    return draw(one, **{**HEADS["groups of two"], **options})


def _unfit(heads: int, values: int) -> Callable[[Draw], dict[str, Any]]:
    """That many query heads and value heads, for three key heads: without a word, one value head would stretch to three."""

    def drawn(one: Draw) -> dict[str, Any]:
        inputs = _plain(one)
        query, value = inputs["query"][:, :heads], inputs["value"].repeat(1, 2, 1, 1)[:, :values]
        return inputs | {"query": query.clone(), "value": value.clone()}

    return drawn


UNFIT = {
    "five heads on three": (5, 3), "two heads on three": (2, 3), "one head on three": (1, 3),
    "three key heads and one value head": (6, 1), "three key heads and six value heads": (6, 6),
}  # fmt: skip


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


def interleaved(heads: Tensor, H_q: int) -> Tensor:
    return heads.repeat_interleave(H_q // heads.shape[1], 1)


def tiled(heads: Tensor, H_q: int) -> Tensor:
    return heads.repeat(1, H_q // heads.shape[1], 1, 1)


def grouped(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False, *, keys: Spread = interleaved,
    values: Spread = interleaved, **steps: Any,
) -> Mapping[str, Tensor]:  # fmt: skip
    """keys, values: how they are handed to the query heads. The other steps are those of `attend`."""
    H_q = query.shape[1]
    return attend(query, keys(key, H_q), values(value, H_q), None, is_causal, **steps)


def _spread(way: Spread) -> dict[str, Spread]:
    return {"keys": way, "values": way}


HEAD_SLIPS: Slips = {
    "Neighbouring query heads share: is it repeat_interleave (0, 0, 1, 1), not repeat (0, 1, 0, 1)?": {
        "heads tiled instead of interleaved": _spread(tiled),
        "key heads tiled, value heads interleaved": {"keys": tiled},
        "value heads tiled, key heads interleaved": {"values": tiled},
    },
    "Is there a key head for each group?": {"only the first head is read": _spread(lambda x, n: x[:, :1])},
    "A product of 6 query heads with 3 key heads does not broadcast. Which key head does each of them read?": {
        "heads left as they are": _spread(lambda x, n: x),
    },
    "Sharing takes one head for a group. Is there a mean over heads?": {
        "heads averaged before the attention": _spread(lambda x, n: x.mean(1, keepdim=True)),
    },
    "Does the first query head read the first key head?": {
        "heads in reverse order": _spread(lambda x, n: interleaved(x.flip(1), n)),
    },
    "Should the future's scores be -inf before the softmax? Only then does the rest still sum to one.": {
        "mask applied after the softmax": {"weigh": lambda s, a: s.softmax(-1) * a},
    },
}  # fmt: skip


def _ahead(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """The last key of each head is far nearer to its queries than all others."""
    query, nearest = inputs["query"], inputs["key"].clone()
    nearest[..., -1, :] *= 8.0
    return {
        **inputs,
        "key": nearest,
        "query": query + interleaved(nearest[..., -1:, :].sign(), query.shape[1]) * 4.0,
    }


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    return weights @ interleaved(inputs["value"], weights.shape[1])


KEYS = {"key": -2, "value": -2}

GROUPED_QUERY_ATTENTION = Exercise(
    name="grouped_query_attention",
    assignment="shared_attention",
    target=Target("grouped_query_attention", OUTPUTS, formula),
    positional=("query", "key", "value"),
    situations=Situations(
        draw=draw,
        factors={
            "lengths": {
                **without(LENGTHS, "one tensor for several", "over 256 positions"),
                "over 256 positions": {**ALONE, "S_q": [269, 271], "S_k": [277, 281]},
                "over two thousand keys": {**ALONE, "S_q": (2, 4), "S_k": VERY_LONG},
                "over two thousand queries": {**ALONE, "S_q": VERY_LONG, "S_k": (2, 4)},
            },
            "heads": HEADS, "causal": CAUSAL, "scores": {**scores(), "one key far ahead": _ahead}, "dtype": DTYPES,
            "axes": {"several sentences": {}, "a batch of one": {"batch": 1}},
        },
        axes=SHAPES,
        groups=groups(
            "each query head attends with the key and value head of its group", 2.75,
            (Group("heads", "neighbours share, from one head for all to a head for each", 1.75, ("heads",)),),
            causal=1.25, lengths=0.5, scores=0.5, gradient=0.5, dtypes=0.25, calls=0.25,
        ),
    ),
    recipes=(
        *(Recipe(label, _unfit(*heads)) for label, heads in UNFIT.items()),
        Recipe("plain", _plain),
        Recipe("causal", lambda one: _plain(one, is_causal=True)),
        Recipe("many heads", lambda one: draw(one, H_kv=6, group=4)),
    ),
    checks=(
        Check("heads that do not fit", "are refused with a ValueError", 0.5, tuple(UNFIT),
              raises_value_error(takes=("is_causal",)), RESULTS[0]),
        Check("own work", "attention is written out", 0.25, ("plain", "causal"), obeys(FUSED, "attention"), RESULTS, True),
        Check("cost", "no more work and memory than the formula needs", 0.25, ("many heads",), affordable(_flops, _largest),
              RESULTS),
    ),
    diagnoses={
        "is_causal": (causal(KEYS, {"query": -2}, OUTPUTS, attn_mask=False),),
        "": (
            responds({"query": OUTPUTS, "key": OUTPUTS, "value": ("output",)}), heads_in_groups(), finite_when("all scores low"),
            weights_agree(_made), permutation(KEYS, {"output": None, "weights": -1}, "keys"),
            permutation({"query": -2}, {"output": -2, "weights": -2}, "queries"),
        ),
    },
    mistakes=(
        *slips(grouped, HEAD_SLIPS),
        *slips(grouped, *only(
            "not scaled", "divided by D", "divided by sqrt(D_v)", "divided by the root of axis 1", "softmax over the queries",
            "softmax over the second axis", "no softmax", "sigmoid of each score", "is_causal ignored", "always causal",
            "causal mask aligned at the bottom right", "causal mask hides the present", "causal mask turned round",
            "output made of the scores, not of the weights", "scores returned as weights",
        )),
    ),
    hints=(
        "With 6 query heads and 3 key heads, which key head does each of the six read? Write the list down "
        "before you write code.",
        "0, 0, 1, 1, 2, 2. Either repeat each key and value head for its group, or reshape the query to "
        "(B, H_kv, group, S_q, D) and let broadcasting do it. Then it is ordinary attention.",
        "`key.repeat_interleave(H_q // H_kv, 1)`, the same for value, then scores, `tril()` if is_causal, "
        "softmax, average. First compare: `H_q % H_kv` must be 0, and value.shape[1] must be H_kv.",
    ),
)  # fmt: skip
