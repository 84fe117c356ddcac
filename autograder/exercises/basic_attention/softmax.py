"""Exercises `softmax` and `masked_softmax`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.conduct import FUSED, obeys
from autograder.checks.conduct import SOFTMAX as SOFTMAX_CALLS
from autograder.checks.masking import mask_broadcasts
from autograder.checks.softmax import (
    dead_rows_are_zero,
    hidden_scores_do_nothing,
    probabilities,
    shift_changes_nothing,
)
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import Allow, Weigh, only, weigh
from autograder.oracle import Quantity, Rounder, exact
from autograder.oracle import attention as formulas
from autograder.situations import AXES, DTYPES, MASKS, Factor, Group, Situations, drawn_by, groups, without
from autograder.situations.factors import THOUSAND, Level
from autograder.situations.space import GRADIENT

__all__ = ["MASKED_SOFTMAX", "SOFTMAX"]

SCORES = {"scores": "... S_q S_k"}
WEIGHTS = ("weights",)
Inputs = dict[str, Any]


def _softmax(scores: Tensor, dim: int = -1, round: Rounder = exact) -> Mapping[str, Quantity]:
    return {"weights": formulas.softmax(scores, dim, round)}


def _masked(scores: Tensor, attn_mask: Tensor, round: Rounder = exact) -> Mapping[str, Quantity]:
    return {"weights": formulas.masked_softmax(scores, attn_mask, round)}


# Levels

ROWS: Factor = {
    "several": {"S_k": (3, 9)},
    "one row": {"S_q": 1},
    "two keys": {"S_k": 2},
    "as many rows as keys": {"S_q": "S_k"},
    "one key": {"S_k": 1},
    "a thousand keys": {"S_q": (2, 4), "S_k": THOUSAND},
    "over two thousand keys": {"S_k": [2053, 2063], "S_q": 2, "axes": 0},
}
AGREE: Level = {"batch": "S_q", "S_q": (3, 5)}
LONG_COLUMNS: Factor = {
    "over two thousand rows": (
        {"S_q": [2053, 2063], "S_k": 2, "axes": 0},
        lambda draw, given: {**given, "dim": 0},
    )
}


def _along(axis: Callable[[int], int]) -> Callable[[Draw, Inputs], Inputs]:
    """dim, by the number of axes."""
    return lambda draw, given: {**given, "dim": axis(given["scores"].dim())}


DIMS: Factor = {
    "dim left out": {},
    "the first axis": _along(lambda axes: 0),
    "a middle axis": _along(lambda axes: axes // 2),
    "a middle axis from the end": _along(lambda axes: -(axes // 2) - 1 if axes > 1 else -1),
    "the last axis by its number": _along(lambda axes: axes - 1),
}


def _scores(change: Callable[[Draw, Tensor, Inputs], Tensor]) -> Callable[[Draw, Inputs], Inputs]:
    return lambda draw, given: {**given, "scores": change(draw, given["scores"], given)}


def _half(scores: Tensor) -> bool:
    return scores.dtype == torch.float16


def _apart(draw: Draw, scores: Tensor, given: Inputs) -> Tensor:
    """A constant for each row, up to some thousands, up or down: whole numbers, so that float32 rounds little."""
    shape = list(scores.shape)
    shape[given.get("dim", -1)] = 1
    return scores + (draw.normal(*shape, dtype=torch.float64) * 1000).round().to(scores.dtype)


def _some_infinite(draw: Draw, scores: Tensor, given: Inputs) -> Tensor:
    dim = given.get("dim", -1)
    rows = scores.movedim(dim, -1)
    hidden = ~draw.mask(*rows.shape) if rows.shape[-1] > 1 else torch.tensor(False)
    return rows.masked_fill(hidden, -torch.inf).movedim(-1, dim)


def _behind(number: float) -> Callable[[Draw, Inputs], Inputs]:
    """That number behind the mask, in rows that allow some key."""

    def fill(draw: Draw, scores: Tensor, given: Inputs) -> Tensor:
        mask = given["attn_mask"]
        huge = min(number, 6e4) if _half(scores) else number
        return scores.masked_fill(~mask & mask.any(-1, keepdim=True), huge)

    return _scores(fill)


def _dead(draw: Draw, given: Inputs) -> Inputs:
    """One row of the first matrix allows no key; float16's scores are so low that the lowest number, added, overflows."""
    mask, scores = given["attn_mask"].clone(), given["scores"]
    mask.view(-1, *mask.shape[-2:])[0, draw.integer(0, mask.shape[-2] - 1)] = False
    return {**given, "attn_mask": mask, "scores": scores - 200.0 * _half(scores)}


NUMBERS: Factor = {
    "ordinary numbers": {"size": 2.0},
    "large numbers": {"size": 60.0},
    "huge numbers": _scores(lambda draw, scores, given: scores * (8e3 if _half(scores) else 1e9)),
    "rows far apart": _scores(_apart),
    "some of them -inf": _scores(_some_infinite),
}
BEHIND: Factor = {
    "ordinary numbers": {"size": 2.0},
    "all low": _scores(lambda draw, scores, given: scores - (2e4 if _half(scores) else 1e7)),
    "rows far apart": _scores(_apart),
    "huge numbers behind the mask": _behind(1e30),
    "-inf behind the mask": _behind(-torch.inf),
}
SHAPES: Factor = {
    "a mask of full shape": {"kind": "full"},
    **without(MASKS, "no mask", "a mask per batch element", "a row that allows no key"),
    "a padding mask for each head": {"kind": "padding per head"},
    "one mask for all rows": {"kind": "keys"},
    "rows hidden as a whole": {"kind": "queries"},
    "a row that allows no key": ({"kind": "full"}, _dead),
}
TOO_LARGE = {"numbers": ("large numbers", "huge numbers"), "gradient": GRADIENT}
"""Differences overflow there, in a right writing."""
INFINITE = {"numbers": ("some of them -inf", "-inf behind the mask"), "layout": "expanded"}
"""Elements that are alike could leave a row nothing but -inf."""
ONE_INPUT = {"gradient: a gradient of one input": "the scores are the only input that has a gradient"}

# softmax

SHARE = "Should the sum run along one axis only, with keepdim=True?"
PASSED = "Is dim passed on to the maximum and to the sum?"


def _shares(values: Tensor, dim: int) -> Tensor:
    return values / values.sum(dim, keepdim=True)


def _below(scores: Tensor, dim: int) -> Tensor:
    return (scores - scores.amax(dim, keepdim=True)).exp()


def _soften(scores: Tensor, dim: int = -1, *, make: Callable[[Tensor, int], Tensor]) -> Tensor:
    return make(scores, dim)


SOFTMAX_SLIPS: Slips = {
    SHARE: {"normalised over the whole tensor": {"make": lambda s, d: (s - s.max()).exp() / (s - s.max()).exp().sum()}},
    "Does keepdim=True stand in the maximum and in the sum?": {
        "reduced axis not kept": {"make": lambda s, d: s.exp() / s.exp().sum(d)},
    },
    "Which axis does the signature's default name?": {
        "dim is not -1 when left out": [lambda scores, dim=0: scores.softmax(dim), lambda scores, dim=1: scores.softmax(dim)],
    },
    PASSED: {
        "always the last axis": {"make": lambda s, d: s.softmax(-1)},
        "always the first axis": {"make": lambda s, d: s.softmax(0)},
        "maximum and sum along different axes": [
            {"make": lambda s, d: _shares(_below(s, -1), d)},
            {"make": lambda s, d: _shares(_below(s, d), -1)},
        ],
    },
    "Is dim passed on, or is a 1 written in its place?": {
        "always the second axis": [
            {"make": lambda s, d: s.softmax(1)},
            {"make": lambda s, d: s.softmax(min(1, s.dim() - 1))},
        ],
    },
    "reshape(-1, n) lays the last axis out in rows. Is dim moved there first?": {
        "rows cut out with reshape": {"make": lambda s, d: s.reshape(-1, s.shape[d]).softmax(-1).reshape(s.shape)},
    },
    "unsqueeze(-1) is right for the last axis alone. Does keepdim=True stand in the maximum and in the sum?": {
        "reduced axis put back at the end": {"make": lambda s, d: (s - s.amax(d).unsqueeze(-1)).softmax(d)},
    },
    "Are the scores themselves divided by their sum? They can be negative: exp is missing.": {
        "no exponential": [{"make": _shares}, {"make": lambda s, d: _shares(s - s.amin(d, keepdim=True), d)}],
    },
    "Is exp missing in the denominator?": {
        "divided by the sum of the scores": {"make": lambda s, d: s.exp() / s.sum(d, keepdim=True)},
    },
    "Do the weights of a row sum to one?": {"exponentials not divided by their sum": {"make": lambda s, d: s.exp()}},
    "Should the weights sum to one, not their squares?": {
        "divided by the Euclidean norm": {"make": lambda s, d: _below(s, d) / _below(s, d).norm(dim=d, keepdim=True)},
    },
    "Should the denominator be the sum? The weights sum to the length of the row.": {
        "divided by the mean": {"make": lambda s, d: s.softmax(d) * s.shape[d]},
    },
    "Is a scale applied? Softmax itself has none.": {
        "scores divided by the root of their number": {"make": lambda s, d: (s / math.sqrt(s.shape[d])).softmax(d)},
    },
    "Are the scores divided by their standard deviation?": {
        "scores brought to unit spread first": {"make": lambda s, d: (s / s.std(d, keepdim=True)).softmax(d)},
    },
    "Should the denominator be the sum of the exponentials?": {"divided by the maximum": {"make": _below}},
    "With two entries, does the larger score get the larger weight?": {
        "weights of two entries exchanged": {"make": lambda s, d: s.softmax(d).flip(d) if s.shape[d] == 2 else s.softmax(d)},
    },
    "exp(-inf) is 0. Is -inf replaced before exp?": {
        "a score of -inf counts as zero": {"make": lambda s, d: s.nan_to_num(neginf=0.0).softmax(d)},
    },
    "Is it 2 ** scores where e ** scores is meant?": {"powers of two": {"make": lambda s, d: (s * math.log(2)).softmax(d)}},
    "Do the entries of a row compete with each other?": {"sigmoid of each score": {"make": lambda s, d: s.sigmoid()}},
    "Is the exponential missing at the end?": {"logarithm of the weights": {"make": lambda s, d: s.log_softmax(d)}},
    "Does the largest score get the smallest weight?": {"sign turned round": {"make": lambda s, d: (-s).softmax(d)}},
    "Is a negative score treated like its opposite?": {"absolute scores": {"make": lambda s, d: s.abs().softmax(d)}},
    "Should every entry get some weight, not the largest alone?": {
        "one-hot maximum": {"make": lambda s, d: (s == s.amax(d, keepdim=True)).to(s)},
    },
    "Are the weights normalised a second time?": {"softmax applied twice": {"make": lambda s, d: s.softmax(d).softmax(d)}},
    "Is the result of the computation returned?": {"scores returned unchanged": {"make": lambda s, d: s}},
}  # fmt: skip

FORMULA = "agrees with the formula"
draw = drawn_by(SCORES)

SOFTMAX = Exercise(
    name="softmax",
    assignment="basic_attention",
    target=Target("softmax", WEIGHTS, _softmax),
    positional=("scores",),
    situations=Situations(
        draw=draw,
        factors={"lengths": {**ROWS, **LONG_COLUMNS},
                 "axes": {**AXES, "one axis": _scores(lambda draw, scores, given: scores.reshape(-1, scores.shape[-1])[0])},
                 "dim": DIMS, "numbers": NUMBERS, "dtype": DTYPES},
        axes=SCORES,
        groups=groups(
            "exp(scores) over its sum", 2.0,
            (Group("any axis", "normalises along the axis that dim names", 1.25, ("dim",)),
             Group("numbers", "a constant added to a row changes nothing; huge scores do not overflow; -inf weighs zero", 1.25,
                   ("numbers",))),
            lengths=0.5, gradient=0.5, dtypes=0.5, calls=0.25,
        ),
        never=(TOO_LARGE, INFINITE, {"lengths": ("over two thousand rows", "over two thousand keys"), "dim": tuple(DIMS)[1:]}),
        left_out=ONE_INPUT,
    ),
    recipes=(
        Recipe("a matrix", lambda one: draw(one, axes=0)),
        Recipe("middle axis", lambda one: {**draw(one, axes=1), "dim": 1}),
        Recipe("one axis", lambda one: {"scores": one.normal(one.integer(3, 8))}),
        Recipe("float16", lambda one: draw(one, axes=0, dtype=torch.float16)),
    ),
    checks=(
        Check("own work", "softmax is written out", 0.25, ("a matrix", "middle axis", "one axis", "float16"),
              obeys(SOFTMAX_CALLS | FUSED, "softmax"), FORMULA, binding=True),
    ),
    diagnoses={"": (shift_changes_nothing(), responds({"scores": WEIGHTS}), probabilities())},
    mistakes=slips(_soften, SOFTMAX_SLIPS, output="weights"),
    hints=(
        "Only differences between scores matter. What could you subtract from all scores of a row so that exp cannot "
        "overflow?",
        "Subtract the largest score along `dim`, take exp, divide by the sum along the same `dim`. Keep the reduced axis, "
        "so that the shapes still broadcast.",
        "With `shifted = scores - scores.amax(dim, keepdim=True)` every exponent is at most 0. What remains is "
        "`shifted.exp()` over its own sum, again with `keepdim=True`.",
    ),
)  # fmt: skip

# masked_softmax


def _weighed(
    scores: Tensor,
    attn_mask: Tensor,
    *,
    weigh: Weigh = weigh,
    allow: Allow = formulas.allowed_keys,
    late: bool = False,
) -> Tensor:
    """The steps of `attend` between scores and weights."""
    allowed = allow(tuple(scores.shape), None if late else attn_mask, False)
    weights = weigh(scores, allowed)
    return weights * attn_mask if late else weights


def _filled(axis: int) -> list[Any]:
    """The softmax taken along another axis, dead rows as nan or as the fill value makes them."""
    return [
        {"weigh": lambda s, a: s.masked_fill(~a, -torch.inf).softmax(axis)},
        {"weigh": lambda s, a: s.masked_fill(~a, -1e30).softmax(axis)},
        {"weigh": lambda s, a: s.masked_fill(~a, -1e30).softmax(axis) * a},
    ]


SHARED = only(
    "mask applied after the softmax", "mask ignored", "mask turned round", "mask added to the scores",
    "masked scores set to zero", "nan where no key is allowed", "uniform weights where no key is allowed",
    "sigmoid of each score", "one-hot maximum", "2 to the power of the scores where exp is meant", "exp without the division",
    "softmax applied twice", "equal weights for all keys", "softmax over the queries", "softmax over the first axis",
    "softmax over the second axis", "sign turned round", "absolute value of the scores",
    "log_softmax where softmax is meant", "mask of the first query used for all",
    "mask of the first batch element used for all",
)  # fmt: skip
KEYS_LAST = "Along which axis must a query's weights sum to one? The keys are the last."
MASKED_SLIPS: Slips = {
    KEYS_LAST: {
        "softmax over the queries": _filled(-2),
        "softmax over the second axis": _filled(1),
        "softmax over the first axis": _filled(0),
    },
    "exp(0) is 1: a score of zero still takes its share of the sum. Should it be -inf?": {
        "masked scores set to zero": {"weigh": lambda s, a: (s * a).softmax(-1) * a},
    },
    "Should each query's weights sum to one by themselves?": {
        "normalised over the whole tensor": {"weigh": lambda s, a: s.exp() * a / (s.exp() * a).sum()},
    },
    "Is the softmax applied to weights, not to scores?": {
        "softmax applied twice": {"weigh": lambda s, a: weigh(s.softmax(-1), a)},
    },
    "Is the softmax missing?": {
        "scores returned": [
            {"weigh": lambda s, a: s * a},
            {"weigh": lambda s, a: s.masked_fill(~a, -torch.inf)},
            {"weigh": lambda s, a: s},
        ],
    },
    "Are the scores used at all?": {"mask returned": {"weigh": lambda s, a: a.to(s)}},
}  # fmt: skip

MASKED_SOFTMAX = Exercise(
    name="masked_softmax",
    assignment="basic_attention",
    target=Target("masked_softmax", WEIGHTS, _masked),
    positional=("scores", "attn_mask"),
    situations=Situations(
        draw=drawn_by(SCORES, mask="... S_q S_k"),
        factors={"lengths": {**without(ROWS, "two keys", "as many rows as keys"), "as many rows as sentences": AGREE},
                 "axes": without(AXES, "one leading axis"), "mask": SHAPES, "numbers": BEHIND, "dtype": DTYPES},
        axes={**SCORES, "attn_mask": "... S_q S_k"},
        groups=groups(
            "softmax over the allowed keys", 2.0,
            (Group("numbers", "forbidden keys weigh exactly zero, and nothing there matters, however low the rest", 1.0,
                   ("numbers",)),),
            masks=2.0, lengths=0.25, gradient=0.5, dtypes=0.5, calls=0.25,
        ),
        never=(INFINITE,),
        left_out=ONE_INPUT,
    ),
    recipes=(),
    checks=(),
    diagnoses={
        "attn_mask": (
            agrees_with_slices({"scores": 2, "attn_mask": 2}, WEIGHTS), dead_rows_are_zero(), hidden_scores_do_nothing(),
            mask_broadcasts("scores"), responds({"scores": WEIGHTS}),
        ),
    },
    mistakes=slips(_weighed, *SHARED, MASKED_SLIPS, output="weights"),
    hints=(
        "exp of what is exactly zero? Put that in the place of the forbidden scores, before the softmax. Then ask what "
        "happens to a row in which everything is forbidden.",
        "Fill forbidden scores with the lowest number of the dtype (`torch.finfo(scores.dtype).min`), which keeps dead rows "
        "finite. Afterwards set every forbidden weight to 0; that makes dead rows zero as well.",
        "`weights = torch.softmax(scores.masked_fill(~attn_mask, lowest), -1)`, and then one more `masked_fill` on the "
        "weights with the same forbidden keys and the value 0.0.",
    ),
)  # fmt: skip
