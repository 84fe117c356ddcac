"""Exercise `attention`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from autograder.checks import Check, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.averaging import average_of_values, few_keys, sharp, ties_share
from autograder.checks.causality import causal, causal_at_any_length, future_never_wins
from autograder.checks.check import by_case
from autograder.checks.conduct import FUSED, affordable, dtype_kept, inputs_untouched, obeys, repeatable
from autograder.checks.gradients import differentiable
from autograder.checks.masking import dead_rows, hidden_keys_do_nothing, mask_selects
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.basic_attention.attention_cases import RECIPES, flops, largest
from autograder.exercises.basic_attention.attention_slips import ATTENTION_SLIPS
from autograder.exercises.basic_attention.variants import attend
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.attention import attention as formula

__all__ = ["ATTENTION"]

OUTPUTS = ("output", "weights")
COUNTS = "every input counts"
FORMULA = "agrees with the formula"
RESULTS = (FORMULA, "weights")
MASKED_RESULTS = (*RESULTS, "mask", "behind the mask")


def _made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    output: Tensor = weights @ inputs["value"]
    return output


LOW = "causal, low scores"
VERY_MANY = ("causal, very many keys", "causal, very many queries")
KEYS = {"key": -2, "value": -2}
MASKED = ("query", ("key", "value"))
BATCHED = {"query": 2, "key": 2, "value": 2, "attn_mask": 2}

ATTENTION = Exercise(
    name="attention",
    assignment="basic_attention",
    target=Target("attention", OUTPUTS, formula),
    positional=("query", "key", "value"),
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
            "softmax(query key^T / sqrt(D)) value",
            1.5,
            ("unequal sizes", "many keys", "worked example", "large scores", "all sizes equal"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights that made the output, rows summing to 1",
            1.0,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(_made),
            COUNTS,
        ),
        Check(
            "mask",
            "attn_mask says which keys each query may see",
            1.0,
            ("a mask for each head", "one mask for all", "one mask for all batch elements", "a padding mask"),
            mask_selects(*MASKED),
            COUNTS,
        ),
        Check(
            "behind the mask",
            "forbidden keys weigh exactly zero, and nothing there matters",
            0.5,
            ("a mask for each head", LOW),
            by_case({LOW: future_never_wins("query", "weights")}, hidden_keys_do_nothing(_made)),
            COUNTS,
        ),
        Check(
            "dead rows",
            "a query that may see no key gets zero, with finite gradients",
            0.75,
            ("rows that allow no key",),
            dead_rows(through=("query", "key", "value")),
            COUNTS,
        ),
        Check(
            "causal",
            "the future cannot change the past; query i sees keys 0..i",
            1.0,
            (
                "causal, fewer queries than keys",
                "causal, more queries than keys",
                "causal, one query",
                *VERY_MANY,
            ),
            by_case(
                dict.fromkeys(VERY_MANY, causal_at_any_length(KEYS, {"query": -2}, OUTPUTS)),
                causal(KEYS, {"query": -2}, OUTPUTS),
            ),
            COUNTS,
        ),
        Check(
            "both masks",
            "with attn_mask and is_causal, a key must be allowed by both",
            0.25,
            ("causal and masked", "causal and masked, one query left without a key"),
            mask_selects(*MASKED),
            COUNTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements and heads stand alone",
            0.5,
            ("three leading axes", "a mask for each head"),
            agrees_with_slices(BATCHED, OUTPUTS),
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
        Check("ties", "equal keys share their weight", 0.25, ("one leading axis",), ties_share(), COUNTS),
        Check(
            "average",
            "the output is linear in the values and stays among them",
            0.25,
            ("one leading axis",),
            average_of_values(),
            COUNTS,
        ),
        Check(
            "few keys",
            "one key gets all the weight, two keys share it by a sigmoid",
            0.25,
            ("unequal sizes",),
            few_keys(),
            COUNTS,
        ),
        Check(
            "huge scores",
            "no overflow; all weight goes to the best key",
            0.25,
            ("unequal sizes",),
            sharp(),
            COUNTS,
        ),
        Check(
            "sizes that do not fit",
            "are refused with a ValueError",
            0.25,
            (
                "a key wider than the query",
                "a key narrower than the query",
                "a key of width 1",
                "a value longer than the key",
                "a value shorter than the key",
                "a value of length 1",
                "a key of length 1",
            ),
            raises_value_error(),
            COUNTS,
        ),
        Check(
            "gradient",
            "backward() gives the derivative",
            0.25,
            ("small, float64", "float64, masked"),
            differentiable(OUTPUTS),
            MASKED_RESULTS,
        ),
        Check(
            "dtype",
            "the inputs' dtype is kept, and its precision",
            0.25,
            ("float64", "bfloat16", "float16", "float16, masked", "float16, causal"),
            by_case({"float16, causal": dtype_kept(OUTPUTS, precise=False)}, dtype_kept(OUTPUTS)),
            MASKED_RESULTS,
        ),
        Check(
            "inputs untouched",
            "no input is written to",
            0.25,
            ("a mask for each head", "causal and masked"),
            inputs_untouched(),
            RESULTS,
        ),
        Check(
            "layout",
            "strides and earlier calls do not matter",
            0.25,
            ("unequal sizes",),
            repeatable(OUTPUTS),
            RESULTS,
        ),
        Check(
            "own work",
            "attention is written out",
            0.25,
            ("unequal sizes", "a mask for each head", "causal, fewer queries than keys"),
            obeys(FUSED, "attention"),
            RESULTS,
            binding=True,
        ),
        Check(
            "cost",
            "no more work and memory than the formula needs",
            0.25,
            ("many heads",),
            affordable(flops, largest),
            RESULTS,
        ),
    ),
    mistakes=tuple(
        Mistake(name, question, partial(attend, **knobs)) for name, question, knobs in ATTENTION_SLIPS
    ),
    hints=(
        (
            "Four steps: scores, mask, softmax over the keys, average of the values. Check the widths and "
            "the lengths before the first step."
        ),
        (
            "Build one boolean table `allowed` of shape (S_q, S_k): all True, its lower triangle if "
            "is_causal, and `&` with attn_mask if there is one. Fill the rest of the scaled scores with "
            "the dtype's lowest number, softmax over -1, then zero the forbidden weights."
        ),
        (
            "`allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)`; `.tril()` "
            "aligns at the top left. After the softmax: `weights = weights.masked_fill(~allowed, 0.0)`, "
            "and the output is `weights @ value`."
        ),
    ),
)
