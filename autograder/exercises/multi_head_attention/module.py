"""Exercise `MultiHeadAttention`."""

from __future__ import annotations

from autograder.checks import Check, Parameter, Target
from autograder.checks.agreement import agrees
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.causality import causal, causal_at_any_length
from autograder.checks.check import by_case, in_turn
from autograder.checks.conduct import dtype_kept, evaluates, inputs_untouched, obeys, repeatable
from autograder.checks.configured import ConfiguredModule, biases_as_asked, refused_when_made
from autograder.checks.dropout import drops_weights, quiet_in_eval_mode
from autograder.checks.gradients import differentiable, every_parameter_learns, works_as_made
from autograder.checks.heads import dead_rows_by_head, masks_by_head, weights_on_request
from autograder.checks.structure import agrees_with_slices, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise
from autograder.exercises.multi_head_attention.module_cases import MODULE_RECIPES, module_inputs
from autograder.exercises.multi_head_attention.module_slips import MODULE_MISTAKES
from autograder.exercises.multi_head_attention.variants import made_of_projections
from autograder.oracle.multi_head import module as formula
from autograder.situations import DTYPES, Situations, besides

__all__ = ["LAYERS", "MULTI_HEAD_MODULE"]

LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")
OUTPUTS = ("output", "weights")
COUNTS = "every input counts"
FORMULA = "agrees with the formula"
RESULTS = (FORMULA, "weights")
MASKED_RESULTS = (*RESULTS, "mask")
VERY_MANY = "causal, very many positions"
READY_MADE = frozenset({"multi_head_attention_forward", "_native_multi_head_attention"})

SITUATIONS = Situations(
    draw=module_inputs,
    factors={
        "sources": {"to itself": {}, "key alone": {"cross": "key"}, "key and value": {"cross": "both"}},
        "lengths": {
            "any lengths": {}, "more keys than queries": {"kind": "<"}, "more queries than keys": {"kind": ">"},
            "as many positions as features": {"kind": "square"}, "many": {"kind": "long"}, "one head": {"kind": "one head"},
            "heads of width 1": {"kind": "thin"},
        },
        "mask": {
            "no mask": {}, "one mask for all": {"mask": "shared"}, "a mask per batch element and head": {"mask": "full"},
            "a padding mask": {"mask": "padding"}, "a row that allows no key": {"mask": "dead"}, "is_causal": {"is_causal": True},
            "is_causal and a padding mask": {"is_causal": True, "mask": "padding"},
        },
        "bias": {"bias not given": {}, "without bias": {"bias": False}, "with bias": {"bias": True}},
        "dtype": DTYPES,
        "axes": {"one leading axis": {}, "no leading axis": {"axes": 0}, "two leading axes": {"axes": 2}},
    },
    groups=besides(0.5),
    module=True,
    after=True,
)  # fmt: skip

MULTI_HEAD_MODULE = Exercise(
    name="MultiHeadAttention",
    assignment="multi_head_attention",
    target=Target("MultiHeadAttention", OUTPUTS, formula),
    positional=("query", "key", "value"),
    parameters=tuple(Parameter(name, ("d_model", "d_model"), bias=True) for name in LAYERS),
    used_as=ConfiguredModule,
    situations=SITUATIONS,
    recipes=MODULE_RECIPES,
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
            "project, split into heads, attend, merge, out_proj",
            2.0,
            ("unequal sizes", "heads of width 1", "all sizes equal", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "left out",
            "without value, key is the value; without key, query is the key",
            0.5,
            ("key without value", "value without key", "to itself", "to itself, one head"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "with need_weights the second result is each head's own weights",
            0.5,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(made_of_projections),
            COUNTS,
        ),
        Check(
            "weights on request",
            "a pair comes back in any case; without need_weights its second is None",
            0.25,
            (
                "unequal sizes",
                "to itself",
                "a mask for each head",
                "causal",
                "causal, fewer queries than keys",
            ),
            weights_on_request(),
            COUNTS,
        ),
        Check(
            "mask",
            "attn_mask says which keys each head's queries may see",
            0.75,
            (
                "a mask for each head",
                "a mask for each head, the same in the batch",
                "one mask for all",
                "a padding mask",
            ),
            masks_by_head(made_of_projections),
            COUNTS,
        ),
        Check(
            "dead rows",
            "a head that may see no key gives zero weights, with finite gradients",
            0.5,
            ("rows that allow no key",),
            dead_rows_by_head(("query", "key", "value"), made_of_projections),
            COUNTS,
        ),
        Check(
            "causal",
            "the future cannot change the past; query i sees keys 0..i",
            0.75,
            ("causal", "causal, many positions", VERY_MANY),
            by_case(
                {VERY_MANY: causal_at_any_length({"query": -2}, {"query": -2}, OUTPUTS)},
                causal({"query": -2}, {"query": -2}, OUTPUTS),
            ),
            COUNTS,
        ),
        Check(
            "causal, two sequences",
            "the triangle is aligned at the top left for any lengths",
            0.25,
            ("causal, fewer queries than keys", "causal, more queries than keys"),
            causal({"key": -2, "value": -2}, {"query": -2}, OUTPUTS),
            COUNTS,
        ),
        Check(
            "both masks",
            "with attn_mask and is_causal, a key must be allowed by both",
            0.25,
            ("causal and masked", "causal and masked, two sequences"),
            masks_by_head(made_of_projections),
            COUNTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("unequal sizes", "two leading axes"),
            agrees_with_slices({"query": 2, "key": 2, "value": 2}, OUTPUTS),
            COUNTS,
        ),
        Check(
            "dropout in train mode",
            "drops single weights at the given rate and scales up the rest",
            0.75,
            ("dropout",),
            drops_weights(made_of_projections),
            (*RESULTS, "left out"),
        ),
        Check(
            "dropout in eval mode",
            "does nothing",
            0.25,
            ("dropout",),
            quiet_in_eval_mode(OUTPUTS),
            (*RESULTS, "left out"),
        ),
        Check(
            "biases",
            "bias says whether the four layers have one; they have by default",
            0.25,
            ("to itself", "with bias", "without bias"),
            biases_as_asked(LAYERS),
            COUNTS,
        ),
        Check(
            "uneven heads",
            "a d_model that num_heads does not divide is refused, saying why",
            0.5,
            ("unequal sizes",),
            refused_when_made(),
            COUNTS,
        ),
        Check(
            "huge scores",
            "no overflow; a low mask value does not win",
            0.25,
            ("huge scores", "huge scores, masked", "huge scores, causal"),
            survives_large_inputs(),
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
            0.5,
            ("small, float64", "float64, masked", "float64, causal", "float64, without bias"),
            differentiable(OUTPUTS),
            (*MASKED_RESULTS, "causal"),
        ),
        Check(
            "dtype",
            "the dtype of inputs and weights is kept, and its precision",
            0.25,
            ("float64", "bfloat16", "float16", "float16, masked", "float16, causal"),
            dtype_kept(OUTPUTS),
            (*MASKED_RESULTS, "causal"),
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
            "strides, earlier calls and, without dropout, eval() do not matter",
            0.25,
            ("unequal sizes", "causal and masked"),
            by_case({"causal and masked": evaluates(OUTPUTS)}, repeatable(OUTPUTS)),
            (*RESULTS, "huge scores"),
        ),
        Check(
            "own work",
            "nn.MultiheadAttention's forward is not what runs",
            0.25,
            ("unequal sizes", "to itself"),
            obeys(READY_MADE, "the heads"),
            RESULTS,
            binding=True,
        ),
    ),
    mistakes=MODULE_MISTAKES,
    hints=(
        (
            "Four layers of the full width, and the function that you have just written between them. What does "
            "each head's piece of a projected vector have to do with the whole layer?"
        ),
        (
            "Fill in key and value first (`key = query if key is None else key`, then value from key). Project, split, "
            "score, mask as in basic attention, softmax, dropout on the weights, average, merge, out_proj."
        ),
        (
            "`self.dropout = nn.Dropout(dropout)` knows train from eval by itself: `weights = self.dropout(weights)` "
            "after the softmax. Combine the masks as `allowed = torch.ones(S_q, S_k, dtype=torch.bool).tril() & attn_mask`. "
            "Return `(output, weights if need_weights else None)`."
        ),
    ),
)
