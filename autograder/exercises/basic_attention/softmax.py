"""Exercises `softmax` and `masked_softmax`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Probe, Target, Trial
from autograder.checks.agreement import agrees
from autograder.checks.conduct import FUSED, dtype_kept, inputs_untouched, obeys, repeatable
from autograder.checks.conduct import SOFTMAX as SOFTMAX_CALLS
from autograder.checks.gradients import differentiable
from autograder.checks.softmax import (
    dead_rows_are_zero,
    hidden_scores_do_nothing,
    probabilities,
    shift_changes_nothing,
)
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle import Quantity, Rounder, exact
from autograder.oracle import attention as formulas

__all__ = ["MASKED_SOFTMAX", "SOFTMAX"]

STEM = "basic_attention"
FORMULA = "agrees with the formula"


def _softmax(scores: Tensor, dim: int = -1, round: Rounder = exact) -> Mapping[str, Quantity]:
    return {"weights": formulas.softmax(scores, dim, round)}


def _shares(values: Tensor, dim: int) -> Tensor:
    return values / values.sum(dim, keepdim=True)


def _scores(*, axes: int = 2, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    def draw(draw: Draw) -> dict[str, Any]:
        return {"scores": draw.normal(*draw.sizes(axes), dtype=dtype) * 2, **options}

    return draw


def _two_entries(draw: Draw) -> dict[str, Any]:
    return {"scores": draw.normal(draw.integer(3, 8), 2) * 2}


def _some_minus_infinity(draw: Draw) -> dict[str, Any]:
    scores = draw.normal(*draw.sizes(2, low=3))
    return {"scores": scores.masked_fill(~draw.mask(*scores.shape), -torch.inf)}


def _axis_of_one(draw: Draw) -> dict[str, Any]:
    first, last = draw.sizes(2)
    return {"scores": draw.normal(first, 1, last) * 2, "dim": 1}


def _long_rows(draw: Draw) -> dict[str, Any]:
    """Longer than any block that a blockwise softmax is likely to use."""
    return {"scores": draw.normal(draw.integer(3, 6), draw.integer(1030, 1200)) * 3}


def _huge(draw: Draw) -> dict[str, Any]:
    return {"scores": draw.normal(*draw.sizes(2, low=3)) * 2}


SOFTMAX = Exercise(
    name="softmax",
    assignment=STEM,
    target=Target("softmax", ("weights",), _softmax),
    positional=("scores",),
    recipes=(
        Recipe("a matrix", _scores()),
        Recipe("two entries", _two_entries),
        Recipe("first axis", _scores(axes=3, dim=0)),
        Recipe("middle axis", _scores(axes=3, dim=1)),
        Recipe("counted from the end", _scores(axes=4, dim=-3)),
        Recipe("one axis", _scores(axes=1, dim=0)),
        Recipe("some scores -inf", _some_minus_infinity),
        Recipe("long rows", _long_rows),
        Recipe("rows far apart", _huge),
        Recipe("float64", _scores(axes=2, dtype=torch.float64)),
        Recipe("bfloat16", _scores(axes=2, dtype=torch.bfloat16)),
        Recipe("float16", _scores(axes=2, dtype=torch.float16)),
        Recipe("dim left out", _scores(axes=3)),
        Recipe("an axis of one", _axis_of_one),
    ),
    checks=(
        Check(FORMULA, "exp(scores) over its sum; a sigmoid for two entries", 1.0,
              ("a matrix", "two entries"), agrees("weights")),
        Check("any axis", "normalises along the axis that dim names", 0.75,
              ("first axis", "middle axis", "counted from the end", "one axis", "dim left out", "an axis of one"),
              agrees("weights")),
        Check("sums to one", "weights lie in [0, 1] and sum to 1, also in long rows", 0.5,
              ("long rows",), probabilities()),
        Check("shift", "a constant added to a row changes nothing, and large scores do not overflow", 1.0,
              ("rows far apart",), shift_changes_nothing()),
        Check("minus infinity", "a score of -inf gets weight zero", 0.25, ("some scores -inf",), agrees("weights")),
        Check("gradient", "backward() gives the derivative", 0.25, ("float64",), differentiable(("weights",)), FORMULA),
        Check("dtype", "the dtype of the scores is kept, and its precision", 0.25,
              ("float64", "bfloat16", "float16"), dtype_kept(("weights",)), FORMULA),
        Check("inputs untouched", "the scores are not written to", 0.25, ("a matrix",), inputs_untouched(), FORMULA),
        Check("layout", "strides and earlier calls do not matter", 0.25, ("dim left out",), repeatable(("weights",)), FORMULA),
        Check("own work", "softmax is written out", 1.5, ("a matrix", "middle axis", "one axis", "float16"),
              obeys(SOFTMAX_CALLS | FUSED, "softmax"), FORMULA),
    ),
    mistakes=(
        Mistake("normalised over the whole tensor", "Should the sum run along one axis only, with keepdim=True?",
                lambda scores, dim=-1: {"weights": scores.exp() / scores.exp().sum()}),
        Mistake("reduced axis not kept", "Does keepdim=True stand in the maximum and in the sum?",
                lambda scores, dim=-1: {"weights": scores.exp() / scores.exp().sum(dim)}),
        Mistake("dim is not -1 when left out", "Which axis does the signature's default name?",
                lambda scores, dim=0: {"weights": scores.softmax(dim)}),
        Mistake("dim is not -1 when left out", "Which axis does the signature's default name?",
                lambda scores, dim=1: {"weights": scores.softmax(dim)}),
        Mistake("always the last axis", "Is dim passed on to the maximum and to the sum?",
                lambda scores, dim=-1: {"weights": scores.softmax(-1)}),
        Mistake("always the first axis", "Is dim passed on to the maximum and to the sum?",
                lambda scores, dim=-1: {"weights": scores.softmax(0)}),
        Mistake("always the second axis", "Is dim passed on, or is a 1 written in its place?",
                lambda scores, dim=-1: {"weights": scores.softmax(1)}),
        Mistake("no exponential", "Are the scores themselves divided by their sum? They can be negative.",
                lambda scores, dim=-1: {"weights": scores / scores.sum(dim, keepdim=True)}),
        Mistake("no exponential", "Are the scores themselves divided by their sum? exp is missing.",
                lambda scores, dim=-1: {"weights": _shares(scores - scores.amin(dim, keepdim=True), dim)}),
        Mistake("divided by the sum of the scores", "Is exp missing in the denominator?",
                lambda scores, dim=-1: {"weights": scores.exp() / scores.sum(dim, keepdim=True)}),
        Mistake("exponentials not divided by their sum", "Do the weights of a row sum to one?",
                lambda scores, dim=-1: {"weights": scores.exp()}),
        Mistake("divided by the Euclidean norm", "Should the weights sum to one, not their squares?",
                lambda scores, dim=-1: {"weights": scores.exp() / scores.exp().norm(dim=dim, keepdim=True)}),
        Mistake("divided by the mean", "Should the denominator be the sum? The weights sum to the length of the row.",
                lambda scores, dim=-1: {"weights": scores.exp() / scores.exp().mean(dim, keepdim=True)}),
        Mistake("scores divided by the root of their number", "Is a scale applied? Softmax itself has none.",
                lambda scores, dim=-1: {"weights": (scores / math.sqrt(scores.shape[dim])).softmax(dim)}),
        Mistake("scores brought to unit spread first", "Are the scores divided by their standard deviation?",
                lambda scores, dim=-1: {"weights": (scores / scores.std(dim, keepdim=True)).softmax(dim)}),
        Mistake("divided by the maximum", "Should the denominator be the sum of the exponentials?",
                lambda scores, dim=-1: {"weights": (scores - scores.amax(dim, keepdim=True)).exp()}),
        Mistake("weights of two entries exchanged", "With two entries, does the larger score get the larger weight?",
                lambda scores, dim=-1: {"weights": scores.softmax(dim).flip(dim) if scores.shape[dim] == 2 and scores.dim() == 2
                                        else scores.softmax(dim)}),
        Mistake("a score of -inf counts as zero", "exp(-inf) is 0. Is -inf replaced before exp?",
                lambda scores, dim=-1: {"weights": scores.nan_to_num(neginf=0.0).softmax(dim)}),
        Mistake("powers of two", "Is it 2 ** scores where e ** scores is meant?",
                lambda scores, dim=-1: {"weights": torch.exp2(scores) / torch.exp2(scores).sum(dim, keepdim=True)}),
        Mistake("sigmoid of each score", "Do the entries of a row compete with each other?",
                lambda scores, dim=-1: {"weights": scores.sigmoid()}),
        Mistake("logarithm of the weights", "Is the exponential missing at the end?",
                lambda scores, dim=-1: {"weights": scores.log_softmax(dim)}),
        Mistake("sign turned round", "Does the largest score get the smallest weight?",
                lambda scores, dim=-1: {"weights": (-scores).softmax(dim)}),
        Mistake("absolute scores", "Is a negative score treated like its opposite?",
                lambda scores, dim=-1: {"weights": scores.abs().softmax(dim)}),
        Mistake("one-hot maximum", "Should every entry get some weight, not the largest alone?",
                lambda scores, dim=-1: {"weights": (scores == scores.amax(dim, keepdim=True)).to(scores)}),
        Mistake("softmax applied twice", "Are the weights normalised a second time?",
                lambda scores, dim=-1: {"weights": scores.softmax(dim).softmax(dim)}),
        Mistake("scores returned unchanged", "Is the result of the computation returned?",
                lambda scores, dim=-1: {"weights": scores}),
    ),
    hints=(
        (
            "Only differences between scores matter. What could you subtract from all scores of a row so "
            "that exp cannot overflow?"
        ),
        (
            "Subtract the largest score along `dim`, take exp, divide by the sum along the same `dim`. "
            "Keep the reduced axis, so that the shapes still broadcast."
        ),
        (
            "With `shifted = scores - scores.amax(dim, keepdim=True)` every exponent is at most 0. What "
            "remains is `shifted.exp()` over its own sum, again with `keepdim=True`."
        ),
    ),
)


def _masked(scores: Tensor, attn_mask: Tensor, round: Rounder = exact) -> Mapping[str, Quantity]:
    return {"weights": formulas.masked_softmax(scores, attn_mask, round)}


def _with_mask(
    *, dtype: torch.dtype = torch.float32, mask: str = "BHqk", dead_rows: bool = False, axes: int = 2, high: int = 9, many: bool = False
) -> Any:
    """scores (..., S_q, S_k) with `axes` leading axes; `mask` names the mask's shape, with 1 for an axis of one.
    many: more keys than any block that a blockwise softmax is likely to use.

    The first query may see every key, the second one key only. Dead rows are others in each element of the batch.
    """

    def draw(draw: Draw) -> dict[str, Any]:
        *lead, S_q, S_k = draw.sizes(axes + 2, low=3, high=high)
        if many:
            lead, S_k = [2, 3][:axes], draw.integer(1030, 1200)
        scores = draw.normal(*lead, S_q, S_k, dtype=dtype) * 2
        sizes = dict(zip("GBHqk"[-axes - 2 :], (*lead, S_q, S_k), strict=True)) | {"1": 1}
        allowed = draw.mask(*(sizes[axis] for axis in mask))
        if "q" in mask:
            allowed[..., 0, :] = True
            allowed[..., 1, :] = torch.arange(S_k) == draw.integer(0, S_k - 1)
        if dead_rows:
            alive = draw.uniform(*allowed.shape[:-1], 1) < 0.7
            alive[0, 0], alive[-1, -1, 0], alive[0, 0, -1] = True, True, False
            allowed &= alive
        return {"scores": scores, "attn_mask": allowed}

    return draw


def _broadcasts() -> Probe:
    """The formula, with a name for what can be the reason where it holds for a mask of the scores' own shape."""
    agreement = agrees("weights")

    def probe(trial: Trial) -> None:
        try:
            agreement(trial)
        except Failure as failure:
            scores, mask = (tuple(trial.inputs[name].shape) for name in ("scores", "attn_mask"))
            if scores == mask:
                why, mistake = "Are axes counted from the end?", "fixed number of leading axes"
            else:
                why, mistake = f"Is the mask {mask} broadcast to the scores {scores}?", "mask is not broadcast"
            raise Failure(f"{failure.message.rstrip('.')}. {why}", mistake=mistake, errored=failure.errored) from failure

    return probe


def _fill(scores: Tensor, attn_mask: Tensor, fill: float) -> Tensor:
    return scores.masked_fill(~attn_mask, fill)


def _alive(weights: Tensor, attn_mask: Tensor) -> Tensor:
    return weights.masked_fill(~attn_mask.any(-1, keepdim=True), 0.0)


def _over_another_axis(axis: int, name: str) -> tuple[Mistake, ...]:
    """The softmax taken along `axis`, with the dead rows as nan, as zero, or as the fill value makes them."""
    question = "Along which axis must a query's weights sum to one? The keys are the last."
    return (
        Mistake(name, question, lambda scores, attn_mask: {"weights": _fill(scores, attn_mask, -torch.inf).softmax(axis)}),
        Mistake(name, question, lambda scores, attn_mask: {"weights": _fill(scores, attn_mask, -torch.inf).softmax(axis).nan_to_num()}),
        Mistake(name, question, lambda scores, attn_mask: {"weights": _fill(scores, attn_mask, -1e30).softmax(axis)}),
    )


MASKED_SOFTMAX = Exercise(
    name="masked_softmax",
    assignment=STEM,
    target=Target("masked_softmax", ("weights",), _masked),
    positional=("scores", "attn_mask"),
    recipes=(
        Recipe("a mask for each element", _with_mask()),
        Recipe("one mask for all", _with_mask(mask="qk")),
        Recipe("rows that allow no key", _with_mask(dead_rows=True, dtype=torch.float64)),
        Recipe("float64", _with_mask(dtype=torch.float64, high=6)),
        Recipe("bfloat16", _with_mask(dtype=torch.bfloat16)),
        Recipe("float16", _with_mask(dtype=torch.float16)),
        Recipe("a mask for each sequence", _with_mask(mask="B11k")),
        Recipe("one mask for all keys", _with_mask(mask="k", axes=1)),
        Recipe("one mask for all heads", _with_mask(mask="B1qk")),
        Recipe("five axes", _with_mask(mask="GBHqk", axes=3)),
        Recipe("two axes", _with_mask(mask="qk", axes=0)),
        Recipe("many keys", _with_mask(high=6, many=True)),
    ),
    checks=(
        Check(FORMULA, "softmax over the allowed keys", 1.5, ("a mask for each element", "many keys"), agrees("weights")),
        Check("one mask for all", "any number of axes; a mask of fewer axes, or with axes of one, is broadcast", 0.75,
              ("two axes", "five axes", "one mask for all", "a mask for each sequence", "one mask for all heads", "one mask for all keys"),
              _broadcasts(), FORMULA),
        Check("behind the mask", "forbidden keys weigh exactly zero, and nothing there matters", 1.0,
              ("a mask for each element",), hidden_scores_do_nothing()),
        Check("dead rows", "a row that allows no key is zero, with finite gradients", 1.0,
              ("rows that allow no key",), dead_rows_are_zero()),
        Check("gradient", "backward() gives the derivative", 0.5, ("float64",), differentiable(("weights",)), FORMULA),
        Check("dtype", "the dtype of the scores is kept, and its precision", 0.5,
              ("float64", "bfloat16", "float16"), dtype_kept(("weights",)), FORMULA),
        Check("inputs untouched", "scores and mask are not written to", 0.5, ("a mask for each element",),
              inputs_untouched(), FORMULA),
        Check("layout", "strides and earlier calls do not matter", 0.25, ("a mask for each element",),
              repeatable(("weights",)), FORMULA),
    ),
    mistakes=(
        Mistake("mask applied after the softmax", "Should masked scores be -inf before the softmax, so that the rest still sums to one?",
                lambda scores, attn_mask: {"weights": scores.softmax(-1) * attn_mask}),
        Mistake("mask ignored", "Is attn_mask used at all?", lambda scores, attn_mask: {"weights": scores.softmax(-1)}),
        Mistake("mask turned round", "True means allowed. Is it the False places that are hidden?",
                lambda scores, attn_mask: {"weights": _fill(scores, ~attn_mask, -torch.inf).softmax(-1)}),
        Mistake("mask turned round", "True means allowed. Is it the False places that are hidden?",
                lambda scores, attn_mask: {"weights": _fill(scores, ~attn_mask, -torch.inf).softmax(-1).nan_to_num()}),
        Mistake("mask added to the scores", "A bool mask adds only 0 or 1. Should forbidden scores become -inf?",
                lambda scores, attn_mask: {"weights": _alive((scores + attn_mask).softmax(-1), attn_mask)}),
        Mistake("mask added to the scores", "A bool mask adds only 0 or 1. Should forbidden scores become -inf?",
                lambda scores, attn_mask: {"weights": (scores + attn_mask).softmax(-1)}),
        Mistake("masked scores set to zero", "exp(0) is 1: a score of zero still gets weight. Should it be -inf?",
                lambda scores, attn_mask: {"weights": (scores * attn_mask).softmax(-1)}),
        Mistake("masked scores set to zero", "exp(0) is 1: a score of zero still gets weight. Should it be -inf?",
                lambda scores, attn_mask: {"weights": _alive((scores * attn_mask).softmax(-1), attn_mask)}),
        Mistake("masked scores set to zero", "exp(0) is 1: a score of zero still takes its share of the sum. Should it be -inf?",
                lambda scores, attn_mask: {"weights": (scores * attn_mask).softmax(-1) * attn_mask}),
        *_over_another_axis(-2, "softmax over the queries"),
        *_over_another_axis(1, "softmax over the second axis"),
        *_over_another_axis(0, "softmax over the first axis"),
        Mistake("nan where no key is allowed", "A row of nothing but -inf has no softmax. Are dead rows set to zero?",
                lambda scores, attn_mask: {"weights": _fill(scores, attn_mask, -torch.inf).softmax(-1)}),
        Mistake("a row that allows no key is not zero", "Are dead rows set to zero after the softmax?",
                lambda scores, attn_mask: {"weights": _fill(scores, attn_mask, -1e30).softmax(-1)}),
        Mistake("normalised over the whole tensor", "Should each query's weights sum to one by themselves?",
                lambda scores, attn_mask: {"weights": scores.exp() * attn_mask / (scores.exp() * attn_mask).sum()}),
        Mistake("sigmoid of each score", "Do the keys of a row compete with each other?",
                lambda scores, attn_mask: {"weights": scores.sigmoid() * attn_mask}),
        Mistake("one-hot maximum", "Should every allowed key get some weight?",
                lambda scores, attn_mask: {"weights": _alive((_fill(scores, attn_mask, -1e30) * 1e6).softmax(-1), attn_mask)}),
        Mistake("powers of two", "Is it 2 ** scores where e ** scores is meant?",
                lambda scores, attn_mask: {"weights": formulas.masked_softmax(scores * math.log(2), attn_mask).value}),
        Mistake("exponentials not divided by their sum", "Do the weights of a row sum to one?",
                lambda scores, attn_mask: {"weights": scores.exp() * attn_mask}),
        Mistake("softmax applied twice", "Is the softmax applied to weights, not to scores?",
                lambda scores, attn_mask: {"weights": formulas.masked_softmax(scores.softmax(-1), attn_mask).value}),
        Mistake("softmax applied twice", "Is the softmax applied to weights, not to scores?",
                lambda scores, attn_mask: {"weights": formulas.masked_softmax(
                    formulas.masked_softmax(scores, attn_mask).value, attn_mask).value}),
        Mistake("scores returned", "Is the softmax missing?", lambda scores, attn_mask: {"weights": scores * attn_mask}),
        Mistake("scores returned", "Is the softmax missing?", lambda scores, attn_mask: {"weights": _fill(scores, attn_mask, -torch.inf)}),
        Mistake("scores returned", "Is the softmax missing?", lambda scores, attn_mask: {"weights": scores}),
        Mistake("mask returned", "Are the scores used at all?",
                lambda scores, attn_mask: {"weights": attn_mask.broadcast_to(scores.shape).to(scores)}),
        Mistake("the mask itself, normalised", "Are the scores used at all?",
                lambda scores, attn_mask: {"weights": attn_mask / attn_mask.sum(-1, keepdim=True).clamp_min(1).to(scores)}),
    ),
    hints=(
        (
            "exp of what is exactly zero? Put that in the place of the forbidden scores, before the "
            "softmax. Then ask what happens to a row in which everything is forbidden."
        ),
        (
            "Fill forbidden scores with the lowest number of the dtype (`torch.finfo(scores.dtype).min`), "
            "which keeps dead rows finite. Afterwards set every forbidden weight to 0; that makes dead "
            "rows zero as well."
        ),
        (
            "`weights = torch.softmax(scores.masked_fill(~attn_mask, lowest), -1)`, and then one more "
            "`masked_fill` on the weights with the same forbidden keys and the value 0.0."
        ),
    ),
)
