"""Exercise `TransformerBlock`."""

from __future__ import annotations

from autograder.checks import Check, Parameter, Target
from autograder.checks.agreement import agrees
from autograder.checks.check import by_case, in_turn
from autograder.checks.conduct import dtype_kept, evaluates, inputs_untouched, repeatable
from autograder.checks.configured import ConfiguredModule, biases_as_asked, refused_when_made
from autograder.checks.gradients import differentiable, every_parameter_learns, works_as_made
from autograder.checks.heads import dead_rows_by_head, masks_by_head, past_stands
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise
from autograder.exercises.multi_head_attention.block_slips import BLOCK_MISTAKES
from autograder.exercises.multi_head_attention.module import LAYERS
from autograder.exercises.multi_head_attention.module_cases import BLOCK_RECIPES, block_inputs
from autograder.oracle.multi_head import block as formula
from autograder.situations import DTYPES, Situations, besides

__all__ = ["TRANSFORMER_BLOCK"]

OUTPUT = ("output",)
COUNTS = "every input counts"
PRE, POST = "pre-norm", "post-norm"
RESULTS = (PRE, POST)
WITH_BIASES = (*(f"attention.{name}" for name in LAYERS), "linear1", "linear2", "norm1", "norm2")

SITUATIONS = Situations(
    draw=block_inputs,
    factors={
        "lengths": {"several positions": {}, "as many positions as features": {"kind": "square"}, "many": {"kind": "long"}},
        "heads": {"several heads": {}, "one head": {"heads": 1}},
        "mask": {
            "no mask": {}, "one mask for all": {"mask": "shared"}, "a mask per batch element and head": {"mask": "full"},
            "a padding mask": {"mask": "padding"}, "is_causal": {"is_causal": True},
            "is_causal and a padding mask": {"is_causal": True, "mask": "padding"},
        },
        "order": {"pre-norm": {}, "post-norm": {"norm_first": False}, "order not given": {"norm_first": None}},
        "dtype": DTYPES,
        "axes": {"one leading axis": {}, "no leading axis": {"axes": 0}, "two leading axes": {"axes": 2}},
    },
    groups=besides(0.5),
    never=({"lengths": ("as many positions as features", "many"), "heads": "one head"},),
    module=True,
    after=True,
)  # fmt: skip

TRANSFORMER_BLOCK = Exercise(
    name="TransformerBlock",
    assignment="multi_head_attention",
    target=Target("TransformerBlock", OUTPUT, formula),
    positional=("x",),
    parameters=(
        *(Parameter(f"attention.{name}", ("d_model", "d_model"), bias=True) for name in LAYERS),
        Parameter("linear1", ("d_ff", "d_model"), bias=True),
        Parameter("linear2", ("d_model", "d_ff"), bias=True),
        Parameter("norm1", ("d_model",), bias=True),
        Parameter("norm2", ("d_model",), bias=True),
    ),
    used_as=ConfiguredModule,
    situations=SITUATIONS,
    recipes=BLOCK_RECIPES,
    checks=(
        Check(
            COUNTS,
            "the output changes with x, also with x at other positions",
            0.25,
            ("pre-norm",),
            responds({"x": OUTPUT}, mixing="x"),
        ),
        Check(
            PRE,
            "x + attention(norm1(x)), then x + f(norm2(x))",
            1.5,
            ("pre-norm", "pre-norm, one head", "all sizes equal"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            POST,
            "norm1(x + attention(x)), then norm2(x + f(x))",
            1.5,
            ("post-norm", "post-norm, one head"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "default order",
            "is pre-norm",
            0.25,
            ("order not given",),
            agrees("output"),
            RESULTS,
        ),
        Check(
            "nearly constant rows",
            "the norms add 1e-5 to the variance",
            0.25,
            ("nearly constant rows", "nearly constant rows, post-norm"),
            agrees("output"),
            RESULTS,
        ),
        Check(
            "mask",
            "attn_mask reaches the attention, in both orders",
            0.5,
            ("a mask for each head", "a mask for each head, post-norm", "a padding mask"),
            masks_by_head(queries="x"),
            RESULTS,
        ),
        Check(
            "dead rows",
            "a position that may see none is finite, with finite gradients",
            0.25,
            ("rows that allow no key",),
            dead_rows_by_head(("x",), queries="x"),
            (*RESULTS, "nearly constant rows"),
        ),
        Check(
            "causal",
            "is_causal reaches the attention; the future cannot change the past",
            0.5,
            ("causal", "causal, post-norm"),
            past_stands("x"),
            RESULTS,
        ),
        Check(
            "both masks",
            "with attn_mask and is_causal, a position must be allowed by both",
            0.25,
            ("causal and masked",),
            masks_by_head(queries="x"),
            RESULTS,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("pre-norm", "two leading axes", "long sequences"),
            agrees_with_slices({"x": 2}, OUTPUT),
            RESULTS,
        ),
        Check(
            "uneven heads",
            "a d_model that num_heads does not divide is refused, saying why",
            0.25,
            ("pre-norm",),
            refused_when_made(),
            RESULTS,
        ),
        Check(
            "biases",
            "every layer and norm has one",
            0.25,
            ("pre-norm", "post-norm"),
            biases_as_asked(WITH_BIASES),
            COUNTS,
        ),
        Check(
            "parameters",
            "every parameter is used and learns",
            0.25,
            ("pre-norm", "post-norm"),
            in_turn(every_parameter_learns(), works_as_made()),
            RESULTS,
        ),
        Check(
            "gradient",
            "backward() gives the derivative, for inputs and weights",
            0.5,
            ("small, float64", "small, float64, post-norm", "float64, causal"),
            differentiable(OUTPUT),
            (*RESULTS, "nearly constant rows", "both masks"),
        ),
        Check(
            "dtype",
            "the dtype of inputs and weights is kept, and its precision",
            0.25,
            ("pre-norm, float64", "post-norm, float64", "bfloat16", "float16", "float16, causal"),
            dtype_kept(OUTPUT),
            (*RESULTS, "nearly constant rows", "both masks"),
        ),
        Check(
            "inputs untouched",
            "no input is written to",
            0.25,
            ("a mask for each head", "a mask for each head, post-norm", "causal and masked"),
            inputs_untouched(),
            RESULTS,
        ),
        Check(
            "layout",
            "strides, earlier calls and eval() do not matter",
            0.25,
            ("pre-norm", "causal and masked"),
            by_case({"causal and masked": evaluates(OUTPUT)}, repeatable(OUTPUT)),
            RESULTS,
        ),
    ),
    mistakes=BLOCK_MISTAKES,
    hints=(
        (
            "Two steps, attention and a small network of two layers. Each has a norm, and each is bypassed by x. "
            "Write both orders on paper first: where does the norm stand, and which x is added?"
        ),
        (
            "Pre-norm: x = x + step(norm(x)), so the path of x itself meets no norm. Post-norm: x = norm(x + step(x)). "
            "Do that with attention and norm1, then with the feed-forward network and norm2."
        ),
        (
            "`self.attention(...)` returns a pair: take `[0]`, and pass attn_mask and is_causal on by name. The network is "
            "`self.linear2(torch.relu(self.linear1(x)))`. Use an `if self.norm_first:` with two lines in each branch."
        ),
    ),
)
