"""Exercises `softmax` and `masked_softmax`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Probe, Target, Trial
from autograder.checks.agreement import agrees
from autograder.checks.check import by_case
from autograder.checks.conduct import FUSED, dtype_kept, inputs_untouched, obeys, repeatable
from autograder.checks.conduct import SOFTMAX as SOFTMAX_CALLS
from autograder.checks.gradients import differentiable
from autograder.checks.softmax import (
    dead_rows_are_zero,
    hidden_scores_do_nothing,
    probabilities,
    shift_changes_nothing,
)
from autograder.checks.structure import attempt
from autograder.exercises.basic_attention.slip_table import named
from autograder.exercises.basic_attention.softmax_slips import MASKED_SOFTMAX_SLIPS, SOFTMAX_SLIPS
from autograder.exercises.exercise import Exercise
from autograder.oracle import Quantity, Rounder, exact
from autograder.oracle import attention as formulas
from autograder.situations import AXES, DTYPES, MASKS, Factor, Situations, besides, drawn_by, without
from autograder.situations.space import GRADIENT

__all__ = ["MASKED_SOFTMAX", "SOFTMAX"]

STEM = "basic_attention"
FORMULA = "agrees with the formula"
NO_KEY = "float16, low scores, rows that allow no key"


def _softmax(scores: Tensor, dim: int = -1, round: Rounder = exact) -> Mapping[str, Quantity]:
    return {"weights": formulas.softmax(scores, dim, round)}


def _scores(
    *, axes: int = 2, dtype: torch.dtype = torch.float32, size: float = 2.0, low: int = 2, **options: Any
) -> Any:
    def draw(draw: Draw) -> dict[str, Any]:
        return {"scores": draw.normal(*draw.sizes(axes, low=low), dtype=dtype) * size, **options}

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


_written_out = obeys(SOFTMAX_CALLS | FUSED, "softmax")


def _where_it_runs(probe: Probe) -> Probe:
    """The probe, unless the code raises, which is found elsewhere."""

    def tried(trial: Trial) -> None:
        if not isinstance(attempt(trial), Failure):
            probe(trial)

    return tried


NUMBERS: Factor = {
    "ordinary numbers": {},
    "large numbers": {"size": 60.0},
    "all low": lambda draw, given: {**given, "scores": given["scores"] - 2e4},
    "all equal": lambda draw, given: {**given, "scores": given["scores"] * 0 + 3},
}
ROWS: Factor = {
    "several": {"S_k": (3, 9)},
    "one row": {"S_q": 1},
    "two keys": {"S_k": 2},
    "as many rows as keys": {"S_q": "S_k"},
    "one key": {"S_k": 1},
    "over two thousand keys": {"S_k": [2053, 2063], "S_q": 2, "axes": 0},
}


def _tried(mask: bool) -> Situations:
    """The situations of a softmax over the last axis, with a mask or without."""
    shapes = {"scores": "... S_q S_k"}
    factors = {"lengths": ROWS, "numbers": NUMBERS, "dtype": DTYPES, "axes": AXES}
    return Situations(
        draw=drawn_by(shapes, mask="... S_q S_k" if mask else ""),
        factors=factors | ({"mask": without(MASKS, "no mask")} if mask else {}),
        axes=shapes | ({"attn_mask": "... S_q S_k"} if mask else {}),
        groups=besides(0.5),
        never=(
            {"numbers": "large numbers", "gradient": GRADIENT},
        ),  # differences overflow in a right writing
        after=True,
    )


SOFTMAX = Exercise(
    name="softmax",
    assignment=STEM,
    target=Target("softmax", ("weights",), _softmax),
    positional=("scores",),
    situations=_tried(mask=False),
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
        Recipe("bfloat16, large numbers", _scores(axes=2, dtype=torch.bfloat16, size=1e9, low=3)),
        Recipe("float64, middle axis", _scores(axes=3, dim=1, dtype=torch.float64)),
    ),
    checks=(
        Check(
            FORMULA,
            "exp(scores) over its sum; a sigmoid for two entries",
            1.0,
            ("a matrix", "two entries"),
            agrees("weights"),
        ),
        Check(
            "own work",
            "softmax is written out",
            0.25,
            ("a matrix", "middle axis", "one axis", "float16"),
            by_case({"a matrix": _written_out}, _where_it_runs(_written_out)),
            binding=True,
        ),
        Check(
            "any axis",
            "normalises along the axis that dim names",
            1.25,
            (
                "first axis",
                "middle axis",
                "counted from the end",
                "one axis",
                "dim left out",
                "an axis of one",
            ),
            agrees("weights"),
        ),
        Check(
            "sums to one",
            "weights lie in [0, 1] and sum to 1, also in long rows",
            0.5,
            ("long rows",),
            probabilities(),
        ),
        Check(
            "shift",
            "a constant added to a row changes nothing, and large scores do not overflow",
            1.5,
            ("rows far apart", "bfloat16, large numbers"),
            by_case({"bfloat16, large numbers": agrees("weights")}, shift_changes_nothing()),
        ),
        Check(
            "minus infinity",
            "a score of -inf gets weight zero",
            0.25,
            ("some scores -inf",),
            agrees("weights"),
        ),
        Check(
            "gradient",
            "backward() gives the derivative",
            0.5,
            ("float64", "float64, middle axis"),
            differentiable(("weights",)),
            (FORMULA, "any axis"),
        ),
        Check(
            "dtype",
            "the dtype of the scores is kept, and its precision",
            0.25,
            ("float64", "bfloat16", "float16"),
            dtype_kept(("weights",)),
            FORMULA,
        ),
        Check(
            "inputs untouched",
            "the scores are not written to",
            0.25,
            ("a matrix",),
            inputs_untouched(),
            FORMULA,
        ),
        Check(
            "layout",
            "strides and earlier calls do not matter",
            0.25,
            ("dim left out",),
            repeatable(("weights",)),
            FORMULA,
        ),
    ),
    mistakes=named("weights", SOFTMAX_SLIPS),
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
    *,
    dtype: torch.dtype = torch.float32,
    mask: str = "BHqk",
    dead_rows: bool = False,
    axes: int = 2,
    high: int = 9,
    many: bool = False,
    shift: float = 0.0,
) -> Any:
    """scores (..., S_q, S_k) with `axes` leading axes.

    mask names the mask's shape, with 1 for an axis of one. many: more keys than any block that a blockwise
    softmax is likely to use. The first query may see every key, the second one key only. Dead rows are
    others in each element of the batch.
    """

    def draw(draw: Draw) -> dict[str, Any]:
        *lead, S_q, S_k = draw.sizes(axes + 2, low=3, high=high)
        if many:
            lead, S_k = [2, 3][:axes], draw.integer(1030, 1200)
        scores = draw.normal(*lead, S_q, S_k, dtype=dtype) * 2 + shift
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
    """The formula, with a name for the likely reason, given that it holds for a mask of full shape."""
    agreement = agrees("weights")

    def probe(trial: Trial) -> None:
        try:
            agreement(trial)
        except Failure as failure:
            scores, mask = (tuple(trial.inputs[name].shape) for name in ("scores", "attn_mask"))
            if scores == mask:
                why, mistake = "Are axes counted from the end?", "fixed number of leading axes"
            else:
                why, mistake = (
                    f"Is the mask {mask} broadcast to the scores {scores}?",
                    "mask is not broadcast",
                )
            raise Failure(
                f"{failure.message.rstrip('.')}. {why}", mistake=mistake, errored=failure.errored
            ) from failure

    return probe


MASKED_SOFTMAX = Exercise(
    name="masked_softmax",
    assignment=STEM,
    target=Target("masked_softmax", ("weights",), _masked),
    positional=("scores", "attn_mask"),
    situations=_tried(mask=True),
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
        Recipe("one mask for all batch elements", _with_mask(mask="Hqk")),
        Recipe(
            NO_KEY,
            _with_mask(dead_rows=True, dtype=torch.float16, shift=-200.0),
        ),
    ),
    checks=(
        Check(
            FORMULA,
            "softmax over the allowed keys",
            1.5,
            ("a mask for each element", "many keys"),
            agrees("weights"),
        ),
        Check(
            "one mask for all",
            "any number of axes; a mask of fewer axes, or with axes of one, is broadcast",
            0.75,
            (
                "two axes",
                "five axes",
                "one mask for all",
                "a mask for each sequence",
                "one mask for all heads",
                "one mask for all batch elements",
                "one mask for all keys",
            ),
            _broadcasts(),
            FORMULA,
        ),
        Check(
            "behind the mask",
            "forbidden keys weigh exactly zero, and nothing there matters",
            1.0,
            ("a mask for each element",),
            hidden_scores_do_nothing(),
        ),
        Check(
            "dead rows",
            "a row that allows no key is zero, with finite gradients",
            1.0,
            ("rows that allow no key", NO_KEY),
            by_case({NO_KEY: _where_it_runs(dead_rows_are_zero())}, dead_rows_are_zero()),
        ),
        Check(
            "gradient",
            "backward() gives the derivative",
            0.5,
            ("float64",),
            differentiable(("weights",)),
            FORMULA,
        ),
        Check(
            "dtype",
            "the dtype of the scores is kept, and its precision",
            0.5,
            ("float64", "bfloat16", "float16"),
            dtype_kept(("weights",)),
            FORMULA,
        ),
        Check(
            "inputs untouched",
            "scores and mask are not written to",
            0.5,
            ("a mask for each element",),
            inputs_untouched(),
            FORMULA,
        ),
        Check(
            "layout",
            "strides and earlier calls do not matter",
            0.25,
            ("a mask for each element",),
            repeatable(("weights",)),
            FORMULA,
        ),
    ),
    mistakes=named("weights", MASKED_SOFTMAX_SLIPS),
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
