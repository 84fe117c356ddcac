"""Exercises `SelfAttention` and `CrossAttention`."""

from __future__ import annotations

from autograder.checks import Check, Parameter, Target
from autograder.checks.agreement import agrees
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.causality import causal, causal_at_any_length, future_never_wins
from autograder.checks.check import by_case, in_turn
from autograder.checks.conduct import dtype_kept, evaluates, inputs_untouched, repeatable
from autograder.checks.gradients import differentiable, every_parameter_learns, works_as_made
from autograder.checks.masking import dead_rows, mask_of_fewer_axes, mask_selects
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.basic_attention.module_cases import CROSS_RECIPES, SELF_RECIPES
from autograder.exercises.basic_attention.module_variants import CROSS_MISTAKES, SELF_MISTAKES, made
from autograder.exercises.exercise import Exercise
from autograder.oracle.attention import cross_attention, self_attention

__all__ = ["CROSS_ATTENTION", "SELF_ATTENTION"]

OUTPUTS = ("output", "weights")
COUNTS = "every input counts"
FORMULA = "agrees with the formula"
RESULTS = (FORMULA, "weights")
MASKED_RESULTS = (*RESULTS, "mask")


SQUARE = ("d_model", "d_model")
MASKED = (
    "a mask for each element",
    "one mask for all",
    "a padding mask",
)
SHARED = "one mask for all batch elements"
LOW = "huge scores, causal"
VERY_MANY = "causal, very many positions"


def _conduct(causal: bool) -> tuple[Check, ...]:
    """What both modules must respect once their results are right. causal: the module takes is_causal."""
    return (
        Check(
            "huge scores",
            "no overflow for large inputs",
            0.25,
            ("huge scores", "huge scores, masked", *([LOW] if causal else [])),
            by_case({LOW: future_never_wins("x", "weights")}, survives_large_inputs()),
            MASKED_RESULTS,
        ),
        Check(
            "parameters",
            "every parameter is used and learns",
            0.25,
            ("unequal sizes",),
            in_turn(every_parameter_learns(), works_as_made()),
            RESULTS,
        ),
        Check(
            "gradient",
            "backward() gives the derivative, for inputs and weights",
            0.25,
            ("small, float64", "float64, masked"),
            differentiable(OUTPUTS),
            MASKED_RESULTS,
        ),
        Check(
            "dtype",
            "the dtype of inputs and weights is kept, and its precision",
            0.25,
            ("float64", "bfloat16", "float16", "float16, masked", *(["float16, causal"] if causal else [])),
            by_case({"float16, causal": dtype_kept(OUTPUTS, precise=False)}, dtype_kept(OUTPUTS)),
            MASKED_RESULTS,
        ),
        Check(
            "inputs untouched",
            "no input is written to",
            0.25,
            ("a mask for each element", *(["causal and masked"] if causal else [])),
            inputs_untouched(),
            RESULTS,
        ),
        Check(
            "layout",
            "strides, earlier calls and eval() do not matter",
            0.25,
            ("unequal sizes", *(["causal"] if causal else [])),
            in_turn(repeatable(OUTPUTS), evaluates(OUTPUTS)),
            RESULTS,
        ),
    )


SELF_ATTENTION = Exercise(
    name="SelfAttention",
    assignment="basic_attention",
    target=Target("SelfAttention", OUTPUTS, self_attention),
    positional=("x",),
    parameters=tuple(
        Parameter(name, SQUARE, bias=True) for name in ("q_proj", "k_proj", "v_proj", "out_proj")
    ),
    recipes=SELF_RECIPES,
    checks=(
        Check(
            COUNTS,
            "the results change with x, also with x at other positions",
            0.25,
            ("unequal sizes",),
            responds({"x": OUTPUTS}, mixing="x"),
        ),
        Check(
            FORMULA,
            "out_proj(attention(q_proj(x), k_proj(x), v_proj(x)))",
            1.0,
            ("unequal sizes", "all sizes equal", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights, rows summing to 1",
            0.25,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(made),
            COUNTS,
        ),
        Check(
            "mask",
            "attn_mask says which positions may be seen",
            0.5,
            (*MASKED, SHARED),
            by_case({SHARED: mask_of_fewer_axes("x")}, mask_selects("x", ("x",), "weights")),
            COUNTS,
        ),
        Check(
            "dead rows",
            "a position that may see none comes out as out_proj's bias",
            0.25,
            ("rows that allow no key",),
            dead_rows(through=("x",)),
            COUNTS,
        ),
        Check(
            "causal",
            "the future cannot change the past",
            0.5,
            ("causal", VERY_MANY),
            by_case(
                {VERY_MANY: causal_at_any_length({"x": -2}, {"x": -2}, OUTPUTS)},
                causal({"x": -2}, {"x": -2}, OUTPUTS),
            ),
            COUNTS,
        ),
        Check(
            "both masks",
            "with attn_mask and is_causal, a position must be allowed by both",
            0.25,
            ("causal and masked",),
            mask_selects("x", ("x",), "weights"),
            COUNTS,
        ),
        Check(
            "order of the positions",
            "in another order the results are the same, in that order",
            0.25,
            ("long sequences",),
            permutation({"x": -2}, {"output": -2}, "positions"),
            COUNTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"x": 2}, OUTPUTS),
            COUNTS,
        ),
        *_conduct(causal=True),
    ),
    mistakes=SELF_MISTAKES,
    hints=(
        (
            "One sequence plays three parts. Which four linear layers do you need, and where does each of "
            "them act?"
        ),
        (
            "Query, key and value are three different projections of the same x. Your `attention` does "
            "the rest, masks included; the output passes through out_proj, the weights do not."
        ),
        (
            "In forward: call `attention` with `self.q_proj(x)`, `self.k_proj(x)`, `self.v_proj(x)`, "
            "`attn_mask` and `is_causal`; return `self.out_proj(output)` and the weights."
        ),
    ),
)

CROSS_ATTENTION = Exercise(
    name="CrossAttention",
    assignment="basic_attention",
    target=Target("CrossAttention", OUTPUTS, cross_attention),
    positional=("x", "context"),
    parameters=(
        Parameter("q_proj", SQUARE, bias=True),
        Parameter("k_proj", ("d_model", "d_context"), bias=True),
        Parameter("v_proj", ("d_model", "d_context"), bias=True),
        Parameter("out_proj", SQUARE, bias=True),
    ),
    recipes=CROSS_RECIPES,
    checks=(
        Check(
            COUNTS,
            "the results change when x or context do",
            0.25,
            ("all sizes equal",),
            responds({"x": OUTPUTS, "context": OUTPUTS}),
        ),
        Check(
            FORMULA,
            "out_proj(attention(q_proj(x), k_proj(context), v_proj(context)))",
            1.25,
            ("all sizes equal", "unequal sizes", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights, rows summing to 1",
            0.5,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(made),
            COUNTS,
        ),
        Check(
            "mask",
            "attn_mask says which positions of the context may be seen",
            0.5,
            (*MASKED, SHARED),
            by_case({SHARED: mask_of_fewer_axes("x")}, mask_selects("x", ("context",), "weights")),
            COUNTS,
        ),
        Check(
            "dead rows",
            "a position that may see none comes out as out_proj's bias",
            0.5,
            ("rows that allow no key",),
            dead_rows(through=("x", "context")),
            COUNTS,
        ),
        Check(
            "order of the context",
            "the context may come in any order",
            0.25,
            ("long sequences",),
            permutation({"context": -2}, {"output": None, "weights": -1}, "context positions"),
            COUNTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"x": 2, "context": 2}, OUTPUTS),
            COUNTS,
        ),
        *_conduct(causal=False),
    ),
    mistakes=CROSS_MISTAKES,
    hints=(
        "Who asks, and who answers? Only one of the two sequences gives the queries.",
        (
            "Queries come from x, keys and values both from context. So k_proj and v_proj take d_context "
            "in and give d_model out; q_proj and out_proj stay d_model to d_model."
        ),
        (
            "In forward: `attention(self.q_proj(x), self.k_proj(context), self.v_proj(context), "
            "attn_mask)`, then `self.out_proj` on the output only."
        ),
    ),
)
