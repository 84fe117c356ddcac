"""Exercise `adaptive_span_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.agreement import agrees
from autograder.checks.averaging import hides_from_low_scores
from autograder.checks.conduct import FUSED, obeys
from autograder.checks.customary import COUNTS, FORMULA, conduct
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.reach import adaptive_span_attention as formula

__all__ = ["ADAPTIVE_SPAN_ATTENTION"]

OUTPUTS = ("output", "weights", "penalty")
ARGUMENTS = ("query", "key", "value", "span", "ramp")
RESULTS = (FORMULA, "weights", "penalty")
BEYOND = "beyond the span"


def _inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    zero: bool = False,
    wide: bool = False,
    narrow: bool = False,
    one: bool = False,
    lengths: tuple[int, int] = (8, 12),
) -> dict[str, Any]:
    """query and key (..., H, S, D), value (..., H, S, D_v), span (H,), ramp.

    span + ramp is no whole number: whether a key is just behind the ramp must not hang on rounding. wide: every span is longer
    than the sequence; narrow: every span is zero, the ramp shorter than one position; one: a single position.
    """
    *lead, H, D, D_v = draw.sizes(axes + 3, 2, 7)
    S = 1 if one else draw.integer(*lengths)
    span = 0.5 + draw.uniform(H, low=-0.2, high=0.2) + torch.arange(H) % 4
    ramp = draw.integer(2, 3) + 0.25
    if wide:
        span = span + 20
    elif narrow:
        span, ramp = span * 0, 0.75
    inputs: dict[str, Any] = {
        "query": draw.normal(*lead, H, S, D, dtype=dtype) * size,
        "key": draw.normal(*lead, H, S, D, dtype=dtype) * size,
        "value": draw.normal(*lead, H, S, D_v, dtype=dtype),
        "span": span.to(dtype),
        "ramp": ramp,
    }
    if zero:  # so that not every score of 0 is a hidden one
        inputs["key"][..., 1, :] = 0.0
    return inputs


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("large scores", size=3.0, zero=True),
    _recipe("spans longer than the text", wide=True),
    _recipe("a span of nothing", narrow=True),
    _recipe("one position", one=True),
    _recipe("huge scores", size=60.0),
    _recipe("two leading axes", axes=2),
    _recipe("small, float64", axes=0, dtype=torch.float64),
    _recipe("float64", dtype=torch.float64),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16),
)

Mask = Callable[[Tensor, float, Tensor], Tensor]
"""span (H, 1, 1), ramp and i - j (S, S) -> the mask (H, S, S)."""


def _soft(span: Tensor, ramp: float, back: Tensor) -> Tensor:
    return ((ramp + span - back) / ramp).clamp(0, 1)


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """The right weights."""
    hidden = scores.masked_fill(mask == 0, -torch.inf)
    seen = mask * torch.exp(hidden - hidden.amax(-1, keepdim=True))
    return seen / seen.sum(-1, keepdim=True)


def _masked_later(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the past, then the mask."""
    past = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~past, -torch.inf).softmax(-1) * mask


def _added_to_the_sum(scores: Tensor, mask: Tensor) -> Tensor:
    seen = _masked_later(scores, mask)
    return seen / (seen.sum(-1, keepdim=True) + 1e-8)


def _variant(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    span: Tensor,
    ramp: float,
    *,
    mask: Mask = _soft,
    causal: bool = True,
    weigh: Callable[[Tensor, Tensor], Tensor] = _softmax,
    scale: Callable[[int], float] = lambda D: D**-0.5,
    penalty: Callable[[Tensor, float], Tensor] = lambda span, ramp: span.mean(),
) -> Mapping[str, Tensor]:
    """The function with knobs."""
    place = torch.arange(query.shape[-2])
    back = (place[:, None] - place).to(query.dtype)
    allowed = mask(span[:, None, None], ramp, back)
    if causal:
        allowed = allowed.masked_fill(back < 0, 0.0)
    weights = weigh(query @ key.mT * scale(query.shape[-1]), allowed)
    return {"output": weights @ value, "weights": weights, "penalty": penalty(span, ramp)}


SHAPE = "m(x) = (ramp + span - x) / ramp, clamped to [0, 1]: one up to the span, zero from span + ramp on."
AGAIN = "The weights are m exp(score) over the sum of m exp(score): they sum to one after the mask, too."
PAYS = "The penalty is the mean of span over the heads."
Slips = tuple[tuple[str, str, dict[str, Any]], ...]
SLIPS: Slips = (
    (
        "hard span",
        SHAPE + " A hard edge sends no gradient to the span.",
        {"mask": lambda z, R, x: (x <= z).to(z.dtype)},
    ),
    ("hard span with the ramp", SHAPE, {"mask": lambda z, R, x: (x <= z + R).to(z.dtype)}),
    ("ramp ends at the span", SHAPE, {"mask": lambda z, R, x: ((z - x) / R).clamp(0, 1)}),
    (
        "span counted from the start of the text",
        "x is the distance back from the query, i - j. Is it j, the place from the start?",
        {"mask": lambda z, R, x: _soft(z, R, torch.arange(x.shape[-1], dtype=x.dtype))},
    ),
    (
        "span turned round: far keys seen, near ones not",
        SHAPE + " Is it counted from the wrong end?",
        {
            "mask": lambda z, R, x: (1 - _soft(z, R, x)).clamp(0, 1),
            "weigh": lambda s, m: _softmax(s, m).nan_to_num(),
        },
    ),
    ("mask not clamped", SHAPE, {"mask": lambda z, R, x: ((R + z - x) / R).clamp_min(0)}),
    (
        "one span for all heads",
        "Each head has a span of its own.",
        {"mask": lambda z, R, x: _soft(z.mean(), R, x).expand(len(z), -1, -1)},
    ),
    (
        "span ignored",
        "Does span enter the mask?",
        {"mask": lambda z, R, x: torch.ones(len(z), *x.shape, dtype=x.dtype)},
    ),
    (
        "not causal",
        "Positions j > i lie in the future: their weight is 0.",
        {"causal": False, "mask": lambda z, R, x: _soft(z, R, x)},
    ),
    (
        "not causal, distances on both sides",
        "Positions j > i lie in the future.",
        {"causal": False, "mask": lambda z, R, x: _soft(z, R, x.abs())},
    ),
    ("not normalised again after the mask", AGAIN, {"weigh": _masked_later}),
    (
        "a small number added to the sum",
        "After a softmax over the whole past, what the span leaves can be smaller than what is added. Is the softmax taken over "
        "the keys with m > 0? Then the sum is never zero.",
        {"weigh": _added_to_the_sum},
    ),
    (
        "mask multiplies the scores",
        "A score of 0 still gets weight exp(0) = 1. The mask multiplies exp(score).",
        {
            "weigh": lambda s, m: (
                (s * m)
                .masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
                .softmax(-1)
            )
        },
    ),
    (
        "mask added to the scores",
        "The mask multiplies exp(score).",
        {
            "weigh": lambda s, m: (
                (s + m)
                .masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
                .softmax(-1)
            )
        },
    ),
    ("not scaled", "Divide the scores by sqrt(D).", {"scale": lambda D: 1.0}),
    ("divided by D", "Divide the scores by sqrt(D).", {"scale": lambda D: 1 / D}),
    ("penalty is the sum of the spans", PAYS, {"penalty": lambda z, R: z.sum()}),
    ("penalty counts the ramp", PAYS, {"penalty": lambda z, R: (z + R).mean()}),
    ("penalty is the largest span", PAYS, {"penalty": lambda z, R: z.max()}),
    ("penalty squares the spans", PAYS, {"penalty": lambda z, R: (z * z).mean()}),
)


def _far_scores_do_nothing(trial: Trial) -> None:
    """A huge score where the mask is zero changes nothing: no row becomes nan, none is left without weight."""
    before = trial()
    mask = trial.expect()["weights"].value > 0
    far = trial.inputs["key"].clone()
    far[..., 0, :] = trial.inputs["query"][..., -1, :] * 1e4
    leaves = {n: trial.inputs[n].clone().requires_grad_() for n in ("query", "value", "span")}
    leaves["key"] = far.requires_grad_()
    after = trial(**leaves)
    last = after["weights"].detach()[..., -1, :]
    reached = mask[..., -1, 0]  # (..., H): heads whose last position sees the first
    kept = (~reached).unsqueeze(-1).expand_as(last)
    if not bool(torch.isfinite(last[kept]).all()) or bool(
        (last[kept].reshape(-1, last.shape[-1]).sum(-1) < 0.5).any()
    ):
        raise Failure(
            "a huge score beyond the span turns the row into nan, or leaves it without weight. Is the maximum taken over "
            "keys that the mask hides? A position always sees itself.",
            mistake="a hidden score empties the row",
        )
    finite = bool(torch.isfinite(after["output"]).all())
    if finite and after["output"].requires_grad:  # if not, another check says so
        found = torch.autograd.grad(
            after["output"].square().sum(), list(leaves.values()), allow_unused=True, retain_graph=True
        )
        for name, gradient in zip(leaves, found, strict=True):
            if gradient is not None and not bool(torch.isfinite(gradient).all()):
                raise Failure(
                    f"a huge score beyond the span makes the gradient with respect to {name} nan or inf. Is exp of a hidden "
                    "score computed, and thrown away afterwards? Its gradient stays: hide the score before exp.",
                    mistake="nan gradients beyond the span",
                )
    for name in ("output", "weights"):
        changed = torch.where(
            reached.unsqueeze(-1), before[name][..., -1, :], after[name].detach()[..., -1, :]
        )
        trial.require(
            name,
            torch.cat([before[name][..., :-1, :], changed.unsqueeze(-2)], -2),
            "a key beyond the span changes the result",
            expected=before[name],
            mistake="keys beyond the span change the result",
        )


ADAPTIVE_SPAN_ATTENTION = Exercise(
    name="adaptive_span_attention",
    assignment="efficient_attention",
    target=Target("adaptive_span_attention", OUTPUTS, formula),
    positional=ARGUMENTS,
    recipes=RECIPES,
    checks=(
        Check(
            COUNTS,
            "the results change with each argument, also with a value at another position",
            0.5,
            ("unequal sizes",),
            responds(
                {"query": ("output",), "key": ("output",), "value": ("output",), "span": OUTPUTS},
                mixing="value",
            ),
        ),
        Check(
            FORMULA,
            "values averaged by m(i - j) exp(score), over the past",
            1.5,
            ("unequal sizes", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights that made the output",
            0.5,
            ("unequal sizes", "large scores"),
            agrees("weights"),
            COUNTS,
        ),
        Check(
            "penalty",
            "the third result is the mean of span",
            0.5,
            ("unequal sizes",),
            agrees("penalty"),
            COUNTS,
        ),
        Check(
            "any span",
            "longer than the text, or nothing but the own position; a text of one position",
            0.5,
            ("spans longer than the text", "a span of nothing", "one position"),
            agrees(*OUTPUTS),
            RESULTS,
        ),
        Check(
            BEYOND,
            "keys there have no say, however large their scores",
            1.0,
            ("unequal sizes", "a span of nothing"),
            _far_scores_do_nothing,
            RESULTS,
        ),
        Check(
            "huge scores",
            "no overflow for large inputs, and hidden keys lose against scores far below zero",
            0.25,
            ("huge scores",),
            hides_from_low_scores(("query", "key"), {}, "key"),
            (*RESULTS, BEYOND),
        ),
        Check(
            "leading axes",
            "any number of leading axes before the heads; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"query": 3, "key": 3, "value": 3}, ("output", "weights")),
            COUNTS,
        ),
        Check(
            "own work",
            "attention is written out",
            0.25,
            ("unequal sizes",),
            obeys(FUSED, "attention"),
            RESULTS,
            binding=True,
        ),
        *conduct(
            RESULTS,
            outputs=OUTPUTS,
            gradient="backward() gives the derivative, for the spans too, and stays finite",
        ),
    ),
    mistakes=tuple(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in SLIPS),
    hints=(
        "How far back does key j lie from query i, and what is m of that distance? Draw it for span 2 and ramp 2.",
        (
            "The (H, S, S) mask comes from span[:, None, None] and the table of i - j; the future is 0. The maximum "
            "that is subtracted before exp must be that of the keys with m > 0."
        ),
        (
            "`mask = ((ramp + span[:, None, None] - back) / ramp).clamp(0, 1)`, zero where back < 0; scores to -inf "
            "where mask == 0; `seen = mask * torch.exp(scores - scores.amax(-1, keepdim=True))`, divided by its sum; "
            "the penalty is `span.mean()`."
        ),
    ),
)
