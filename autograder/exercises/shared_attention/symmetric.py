"""Exercise `SymmetricAttention`."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from autograder.checks import Check, Parameter, Target
from autograder.checks.agreement import agrees
from autograder.checks.causality import causal
from autograder.checks.customary import COUNTS, FORMULA, OUTPUTS, conduct, of_positions
from autograder.checks.gradients import every_parameter_learns
from autograder.checks.sharing import symmetric_scores
from autograder.checks.structure import responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.shared_attention.module_cases import SYMMETRIC_RECIPES
from autograder.exercises.shared_attention.variants import block, chosen, made_by
from autograder.oracle.sharing import symmetric_attention

__all__ = ["SYMMETRIC_ATTENTION"]

RESULTS = (FORMULA, "weights")
SQUARE = ("d_model", "d_model")
LAYERS = ("qk_proj", "qk_proj", "v_proj", "out_proj")
APPLIED = "The layer exists. Is it applied where the formula has it?"
NONLINEAR = "Is there a nonlinearity where the formula has none?"


def _mistakes() -> tuple[Mistake, ...]:
    def mistake(name: str, question: str, **options: Any) -> Mistake:
        return Mistake(name, question, partial(block, **({"names": LAYERS} | options)))

    def sym(weights: Tensor) -> Tensor:
        return (weights + weights.mT) / 2

    def normed(query: Tensor, key: Tensor) -> Tensor:
        return (query / query.norm(dim=-1, keepdim=True)) @ (key / key.norm(dim=-1, keepdim=True)).mT

    slips = chosen(
        "not scaled",
        "divided by D",
        "divided by sqrt(S_k)",
        "softmax over the queries",
        "softmax over the second axis",
        "no softmax",
        "sigmoid of each score",
        "one-hot maximum",
        "is_causal ignored",
        "always causal",
        "causal mask hides the present",
        "causal mask shows one key of the future",
        "causal mask turned round",
        "output made of the scores, not of the weights",
        "scores returned as weights",
    )
    return (
        *(mistake(name, question, knobs=knobs) for name, question, knobs in slips),
        mistake("keys not projected", APPLIED, used=(True, False, True, True)),
        mistake("queries not projected", APPLIED, used=(False, True, True, True)),
        mistake("qk_proj never applied", APPLIED, used=(False, False, True, True)),
        mistake("v_proj never applied", APPLIED, used=(True, True, False, True)),
        mistake("out_proj never applied", APPLIED, used=(True, True, True, False)),
        mistake(
            "keys made by v_proj",
            "Which layer makes the keys?",
            names=("qk_proj", "v_proj", "v_proj", "out_proj"),
        ),
        mistake(
            "values made by qk_proj",
            "Sharing ends at the scores. Which layer makes the values?",
            names=("qk_proj", "qk_proj", "qk_proj", "out_proj"),
        ),
        mistake(
            "projections without their biases",
            "Are the layers called, or only their weights used?",
            bias=False,
        ),
        mistake(
            "input added to the output",
            "The residual connection belongs to the block around this module. Is x added here?",
            finish=lambda output, x, weights: output + x,
        ),
        mistake("relu of the output", NONLINEAR, finish=lambda output, x, weights: output.relu()),
        mistake(
            "weights made symmetric",
            "The scores are symmetric; the weights are not, since each row is normalised on its own.",
            knobs={"weigh": lambda s, a: sym(s.masked_fill(~a, -1e30).softmax(-1))},
        ),
        mistake(
            "scores of unit vectors",
            "Are the shared vectors normalised? Here their length counts.",
            knobs={"score": normed},
        ),
        mistake(
            "the diagonal is hidden",
            "May a position see itself? Here it may.",
            knobs={"weigh": _without_itself},
        ),
    )


def _without_itself(scores: Tensor, allowed: Tensor) -> Tensor:
    hidden = scores.masked_fill(~allowed, -1e30)
    hidden.diagonal(dim1=-2, dim2=-1).fill_(-1e30)
    return hidden.softmax(-1)


_made = made_by("v_proj", lambda inputs: "out_proj")

SYMMETRIC_ATTENTION = Exercise(
    name="SymmetricAttention",
    assignment="shared_attention",
    target=Target("SymmetricAttention", OUTPUTS, symmetric_attention),
    positional=("x",),
    parameters=tuple(Parameter(name, SQUARE, bias=True) for name in ("qk_proj", "v_proj", "out_proj")),
    recipes=SYMMETRIC_RECIPES,
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
            "out_proj(softmax(p p^T / sqrt(d_model)) v_proj(x)), p = qk_proj(x)",
            1.0,
            ("unequal sizes", "all sizes equal", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights, rows summing to 1",
            0.5,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(_made),
            COUNTS,
        ),
        Check(
            "symmetric scores",
            "i scores j as j scores i",
            0.5,
            ("unequal sizes",),
            symmetric_scores(),
            COUNTS,
        ),
        Check(
            "causal",
            "the future cannot change the past",
            0.25,
            ("causal",),
            causal({"x": -2}, {"x": -2}, OUTPUTS, attn_mask=False),
            COUNTS,
        ),
        Check(
            "causal results",
            "but for what is hidden, is_causal changes nothing in the formula",
            0.25,
            ("causal",),
            agrees(*OUTPUTS),
            (FORMULA, "causal"),
        ),
        *of_positions(RESULTS),
        *conduct(RESULTS, every_parameter_learns()),
    ),
    mistakes=_mistakes(),
    hints=(
        "Self-attention with one layer less. Which two of the three projections become one?",
        (
            "Project x once with qk_proj and use the result on both sides of the product. The values still "
            "have their own projection, and the softmax still runs over each row."
        ),
        (
            "`both = self.qk_proj(x)`; `scores = both @ both.transpose(-2, -1) / math.sqrt(x.shape[-1])`; with "
            "is_causal fill what lies above the diagonal with -inf; then softmax, average of self.v_proj(x), "
            "and self.out_proj."
        ),
    ),
)
