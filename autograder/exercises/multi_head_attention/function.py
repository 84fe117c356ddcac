"""Exercise `multi_head_attention`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from autograder.checks import Check, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.conduct import FUSED, affordable, dtype_kept, inputs_untouched, obeys, repeatable
from autograder.checks.configured import refuses
from autograder.checks.gradients import differentiable
from autograder.checks.heads import dead_rows_by_head, masks_by_head
from autograder.checks.masking import hidden_keys_do_nothing
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.multi_head_attention.function_cases import RECIPES, flops, largest
from autograder.exercises.multi_head_attention.slips import HEAD_SLIPS, SHARED_SLIPS
from autograder.exercises.multi_head_attention.variants import heads, made_of_parts
from autograder.oracle.multi_head import multi_head

__all__ = ["MULTI_HEAD_ATTENTION"]

OUTPUTS = ("output", "weights")
COUNTS = "every input counts"
FORMULA = "agrees with the formula"
RESULTS = (FORMULA, "weights")
MASKED_RESULTS = (*RESULTS, "mask", "behind the mask")


def _width(inputs: Mapping[str, Any]) -> int:
    """The width that num_heads does not divide."""
    widths = [int(inputs[name].shape[-1]) for name in ("query", "value")]
    return next((width for width in widths if width % int(inputs["num_heads"])), widths[0])


MULTI_HEAD_ATTENTION = Exercise(
    name="multi_head_attention",
    assignment="multi_head_attention",
    target=Target("multi_head_attention", OUTPUTS, multi_head),
    positional=("query", "key", "value", "num_heads"),
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
            "each head attends with its own piece of query, key and value; the pieces are joined",
            2.0,
            ("unequal sizes", "one head", "heads of width 1", "all sizes equal", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is each head's own weights, rows summing to 1",
            1.0,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(made_of_parts),
            COUNTS,
        ),
        Check(
            "mask",
            "attn_mask says which keys each head's queries may see",
            1.0,
            (
                "a mask for each head",
                "a mask for each head, the same in the batch",
                "a mask for each batch element",
                "one mask for all",
                "a padding mask",
            ),
            masks_by_head(made_of_parts),
            COUNTS,
        ),
        Check(
            "behind the mask",
            "forbidden keys weigh exactly zero, and nothing there matters",
            0.25,
            ("a mask for each head",),
            hidden_keys_do_nothing(made_of_parts),
            COUNTS,
        ),
        Check(
            "dead rows",
            "a head that may see no key gives zero, with finite gradients",
            0.5,
            ("rows that allow no key",),
            dead_rows_by_head(("query", "key", "value"), made_of_parts),
            COUNTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.5,
            ("unequal sizes", "two leading axes", "a mask for each head"),
            agrees_with_slices({"query": 2, "key": 2, "value": 2, "attn_mask": 3}, OUTPUTS),
            COUNTS,
        ),
        Check(
            "order of the keys",
            "keys and values may come in any order",
            0.25,
            ("long sequences",),
            permutation({"key": -2, "value": -2}, {"output": None, "weights": -1}, "keys"),
            COUNTS,
        ),
        Check(
            "uneven heads",
            "a width that num_heads does not divide is refused, saying why",
            0.5,
            ("a width that num_heads does not divide", "a value width that num_heads does not divide"),
            refuses(width=_width, num_heads=lambda inputs: int(inputs["num_heads"])),
            COUNTS,
        ),
        Check(
            "sizes that do not fit",
            "are refused with a ValueError",
            0.25,
            (
                "query and key of unequal width",
                "key and value of unequal length",
                "a value of length 1",
                "a key of length 1",
            ),
            raises_value_error(),
            COUNTS,
        ),
        Check(
            "huge scores",
            "no overflow; a low mask value does not win",
            0.25,
            ("huge scores", "huge scores, masked"),
            survives_large_inputs(),
            MASKED_RESULTS,
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
            ("float64", "bfloat16", "float16", "float16, masked"),
            dtype_kept(OUTPUTS),
            MASKED_RESULTS,
        ),
        Check(
            "inputs untouched",
            "no input is written to",
            0.25,
            ("a mask for each head",),
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
            ("unequal sizes", "a mask for each head"),
            obeys(FUSED, "attention"),
            RESULTS,
            binding=True,
        ),
        Check(
            "cost",
            "no more work and memory than one head of the whole width, weights aside",
            0.25,
            ("many heads",),
            affordable(flops, largest),
            RESULTS,
        ),
    ),
    mistakes=tuple(
        Mistake(name, question, partial(heads, **knobs))
        for name, question, knobs in HEAD_SLIPS + SHARED_SLIPS
    ),
    hints=(
        "Attention you can write. What is new is before it and after it: which axis is cut, and what is put together?",
        (
            "Split query, key and value with split_heads; the axis of heads is then just one more leading axis, and "
            "attention over the last two axes runs as before. The width under the root is that of one head."
        ),
        (
            "`queries, keys, values = (split_heads(x, num_heads) for x in (query, key, value))`, scores "
            "`queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])`, mask, softmax over -1, then "
            "`merge_heads(weights @ values)`."
        ),
    ),
)
