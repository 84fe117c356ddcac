"""Exercise `CachedSelfAttention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Parameter, Target, Trial
from autograder.checks.check import in_turn
from autograder.checks.configured import biases_as_asked
from autograder.checks.decoding import refused
from autograder.checks.failure import student_code
from autograder.checks.gradients import every_parameter_learns, works_as_made
from autograder.checks.objects import construct
from autograder.checks.scripted import FedModule
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import only
from autograder.mistakes.heads import HEAD_SLIPS, heads
from autograder.mistakes.modules import linear
from autograder.observation import Observation
from autograder.oracle.generation import aligned, cached_attention
from autograder.oracle.quantity import Quantity
from autograder.situations import DTYPES, MODULE_AXES, Situations, drawn_by, module_scores, without
from autograder.situations.factors import LONG_PRIMES, Factor
from autograder.situations.space import GRADIENT, Group, groups

__all__ = ["CACHED_SELF_ATTENTION"]

FORMULA, FED = "agrees with the formula", "pieces"
LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")
SHAPES = {"x": "... S d_model"}
SPARE_WORK = 1.25
"""Of the counted operations: a right writing needs no more than the formula; a fourth leaves room for an odd one."""

_text = drawn_by(
    SHAPES,
    init={"d_model": "d_model", "num_heads": "H", "max_length": "S"},
    values={"num_heads": "H"},
    derived={"d_model": lambda sizes: sizes["H"] * sizes["D"]},
    leading=1,
    high=5,
)


def _drawn(draw: Draw, *, fed: str = "", spare: int = 2, other: str = "", **options: Any) -> dict[str, Any]:
    """x, num_heads, and the lengths of the pieces that it is fed in: "steps", "pieces", or none.

    spare: how many positions more the module has room for. other: where another text is.
    """
    inputs = _text(draw, **{"S": (5, 8), "H": (2, 4), "D": (2, 3), **options})
    S = inputs["x"].shape[-2]
    inputs["init"]["max_length"] = S + spare
    chunks = [S - 2, 1, 1] if fed == "steps" else [1, 1, 2, S - 4]
    given = {"chunks": [1] * S if S < 5 else chunks} if fed else {}
    return inputs | given | ({"other": other} if other else {})


def _formula(*, chunks: list[int] | None = None, other: str = "", **given: Any) -> dict[str, Quantity]:
    return cached_attention(**given)


FULL, LONG = "the full pass", "over a thousand positions, then steps"
FACTORS: Mapping[str, Factor] = {
    "fed": {FULL: {}, "a prompt, then steps": {"fed": "steps"}, "pieces of any lengths": {"fed": "pieces"}},
    "other": {
        "no other text": {}, "after a text of a larger batch": {"other": "before"}, "beside a second layer": {"other": "beside"},
    },
    "lengths": {
        "several positions": {},
        "one position": {"S": 1},
        "as many positions as features": {"S": "d_model"},
        "as many positions as there is room for": {"spare": 0},
        LONG: {"S": LONG_PRIMES, "H": 1, "axes": 0, "fed": "steps"},
    },
    "heads": {"several heads": {}, "one head": {"H": 1, "D": (3, 6)}, "heads of one feature": {"H": (3, 5), "D": 1}},
    "scores": without(module_scores(), "huge numbers behind the mask"),
    "dtype": DTYPES,
    "axes": MODULE_AXES,
}  # fmt: skip


def _remembers_aside(trial: Trial) -> None:
    """Where the full pass is right and pieces are not: what is remembered is no registered buffer."""
    if trial.close("output", trial(chunks=None)["output"]):
        _has_no_buffer(trial)


def _has_no_buffer(trial: Trial) -> None:
    """The module as it is made has no registered buffer that could hold keys and values."""
    if not isinstance(trial.subject, FedModule):
        return
    for name, held in trial.subject.module(trial.case).named_buffers():
        if held.is_floating_point() and held.numel() > 1:
            raise Failure(
                f"is {name}, a registered buffer, what it remembers in? A cache is no part of the model's state: keep it "
                "in a KVCache on self.",
                mistake="remembers in a registered buffer",
            )


TOO_LONG, START = "grows beyond max_length", "start is not compared with what is remembered"


def _refuses(trial: Trial) -> None:
    """Positions that do not follow, a text that is too long, and heads that do not fit are refused."""
    subject, case, long = trial.subject, trial.case, trial.inputs["x"].repeat_interleave(2, -2)
    d_model, num_heads, most = case.init.values()

    def feed(start: int, length: int) -> Any:
        given = {**trial.inputs, "x": long[..., :length, :], **({"start": start} if start else {})}
        with student_code():
            return subject.call(case, given)

    def refuse(start: int, length: int, mistake: str) -> None:
        what = (
            f"{length} positions from start={start} on, of max_length={most}, with {remembered} remembered,"
        )
        refused(lambda: feed(start, length), what, mistake)

    def make(width: int) -> Any:
        with student_code():
            return (
                construct(subject.module_class, width, num_heads, most)
                if isinstance(subject, FedModule)
                else None
            )

    remembered = 0
    refuse(0, most + 1, TOO_LONG)
    remembered = most - 2
    feed(0, remembered)
    for start in sorted({-1, 1, remembered // 2, remembered - 1, remembered + 1} - {remembered}):
        refuse(start, 1, START)
    refuse(most - 2, 3, TOO_LONG)
    feed(most - 2, 2)  # it fits, and the refusals have changed nothing
    what = f"d_model={d_model + 1} with num_heads={num_heads}"
    refused(lambda: make(d_model + 1), what, "d_model need not be divisible by num_heads")


def _step_flops(x: Tensor, new: int) -> int:
    """Operations for `new` positions at the end of x (..., S, d_model): four projections, scores, weighted values."""
    rows, (S, d_model) = x[..., 0, 0].numel(), x.shape[-2:]
    return rows * (4 * 2 * new * d_model**2 + 2 * 2 * new * S * d_model)


def _cheap_step(trial: Trial) -> None:
    """The last positions of a text, the others being remembered, cost what so many cost; the full pass what it must."""
    x, subject, case = trial.inputs["x"], trial.subject, trial.case
    S = x.shape[-2]

    def fed(new: int) -> Observation:
        """The last so many positions, after the others."""
        with student_code():
            subject.call(case, {**trial.inputs, "x": x[..., : S - new, :]})
            return subject.observe(case, {**trial.inputs, "x": x[..., S - new :, :], "start": S - new})

    again = "Are the keys and values of earlier positions computed again?"
    for seen, new, what, why in (
        (fed(1), 1, f"one position after {S - 1} others", again),
        (fed(5), 5, f"five positions after {S - 5} others", again),
        (
            subject.observe(case, trial.inputs),
            S,
            "the full pass",
            "Is the text fed one position at a time, or twice?",
        ),
    ):
        if seen.flops > SPARE_WORK * _step_flops(x, new):
            raise Failure(
                f"{what} takes {seen.flops:,} floating-point operations in matrix products; {_step_flops(x, new):,} are "
                f"enough. {why}",
                mistake="computes earlier positions again",
            )


def _steps(
    x: Tensor,
    num_heads: int,
    chunks: list[int] | None = None,
    other: str = "",
    *,
    seen: Callable[[int, int], Tensor] = aligned,
    remember: bool = True,
    values_from: str = "v_proj",
    finish: Callable[..., Tensor] = linear,
    bias: bool = True,
    knobs: Mapping[str, Any] | None = None,
    **weights: Tensor,
) -> Tensor:
    """The attention of each piece to what is remembered. knobs: those of `heads`."""
    outputs, keys, values = [], list[Tensor](), list[Tensor]()
    for piece in x.split(chunks or [x.shape[-2]], -2):
        query, key, value = (linear(piece, weights, name, bias) for name in ("q_proj", "k_proj", values_from))
        keys, values = ([*keys, key], [*values, value]) if remember else ([key], [value])
        given = {"allow": lambda shape, mask, causal: seen(*shape[-2:]), **(knobs or {})}
        found = heads(query, torch.cat(keys, -2), torch.cat(values, -2), num_heads, **given)
        outputs.append(finish(found["output"], weights, "out_proj", bias))
    return torch.cat(outputs, -2)


def _ones(S_q: int, S_k: int) -> Tensor:
    return torch.ones(S_q, S_k, dtype=torch.bool)


SLIPS: Slips = {
    "The queries are the last positions. Is the mask causal_mask(S_q, S_k)?": {
        "mask aligned at the top left": {"seen": lambda S_q, S_k: _ones(S_q, S_k).tril()},
    },
    "No position may see a later one.": {"nothing is masked": {"seen": _ones}},
    "A piece of several positions needs its mask also when others came before it.": {
        "only a full pass is masked": {"seen": lambda S_q, S_k: aligned(S_q, S_k) if S_q == S_k else _ones(S_q, S_k)},
    },
    "Position p sees 0..p.": {
        "a position does not see itself": {"seen": lambda S_q, S_k: _ones(S_q, S_k).tril(S_k - S_q - 1)},
    },
    "Is the mask value -inf or the dtype's lowest number, or merely a low one?": {
        "mask value is not low enough": [
            {"knobs": {"weigh": lambda s, a: s.masked_fill(~a, -1e4).softmax(-1)}},
            {"knobs": {"weigh": lambda s, a: s.masked_fill(~a, -50.0).softmax(-1)}},
        ],
    },
    "Are keys and values of earlier calls used?": {"earlier pieces are forgotten": {"remember": False}},
    "Should forbidden scores be -inf before the softmax?": {
        "mask applied after the softmax": {"knobs": {"weigh": lambda s, a: s.softmax(-1) * a}},
    },
    "The output is out_proj of the merged heads.": {"out_proj is not applied": {"finish": lambda output, *_: output}},
    "Values have a projection of their own.": {"values are keys": {"values_from": "k_proj"}},
    "The four layers have biases.": {"biases left out": {"bias": False}},
}  # fmt: skip
SHARED = only("not scaled", "divided by D", "softmax over the queries", "no softmax")

CACHED_SELF_ATTENTION = Exercise(
    name="CachedSelfAttention",
    assignment="text_generation",
    target=Target("CachedSelfAttention", ("output",), _formula),
    positional=("x",),
    parameters=tuple(Parameter(name, ("d_model", "d_model"), bias=True) for name in LAYERS),
    used_as=FedModule,
    situations=Situations(
        draw=_drawn,
        factors=FACTORS,
        axes=SHAPES,
        groups=groups(
            "forward(x) is causal multi-head self-attention", 1.5,
            (Group(FED, "a prompt and steps, or pieces of any lengths, equal the full pass", 1.5, ("fed",)),
             Group("new text", "start=0 forgets the earlier text, and another layer's text is not its own", 0.25, ("other",)),
             Group("lengths", "any number of positions, heads and leading axes", 0.25, ("lengths", "heads", "axes"))),
            scores=0.25, gradient=0.25, dtypes=0.25, calls=0.25,
        ),
        never=({"fed": tuple(without(FACTORS["fed"], FULL)), "gradient": GRADIENT},  # needed for the full pass only
               {"fed": FULL, "other": "beside a second layer"},  # nothing comes between
               {"scores": "all scores low", "lengths": "one position"},  # nothing is hidden
               {"lengths": LONG, "other": ("after a text of a larger batch", "beside a second layer")}),  # they only take time
        left_out={"state: after other sizes": "a text of other sizes before it is among the factors",
                  "state: beside a second object": "a second layer is fed between the pieces, as one of the factors"},
        together=(("fed", "gradient", "mode"),),
        names={
            ("other", "after a text of a larger batch"): ("start=0 does not forget", "Does start=0 begin with nothing?"),
            ("other", "beside a second layer"): ("layers share what they remember", "Is the cache made in __init__, on self?"),
        },
        module=True,
    ),
    recipes=(
        Recipe("a text", lambda draw: _drawn(draw, spare=0)),
        Recipe("long text", lambda draw: _drawn(draw, S=(40, 50), spare=0)),
    ),
    checks=(
        Check("cost", "an earlier position is never computed again", 0.75, ("long text",), _cheap_step, (FORMULA, FED)),
        Check("refuses", "what does not fit raises ValueError", 0.5, ("a text",), _refuses, (FORMULA, FED)),
        Check("parameters", "every parameter is there, is used and learns", 0.25, ("a text",),
              in_turn(biases_as_asked(LAYERS), every_parameter_learns(), works_as_made(), _has_no_buffer), FORMULA),
    ),
    diagnoses={"chunks": (_remembers_aside,), "": (responds({"x": ("output",)}, mixing="x"),)},
    mistakes=(
        *slips(_steps, SLIPS, output="output"),
        *slips(_steps, *SHARED, HEAD_SLIPS, output="output", steps="knobs", without=("mask of the first head used for all",)),
    ),
    hints=(
        "With start > 0, how many queries are there, and how many keys? Your causal_mask takes both numbers.",
        "Project x only; append the new keys and values to a KVCache that the module keeps on self; attend with the "
        "new queries to all that the cache returns. start=0 resets it first.",
        "Split heads with `layer(x).unflatten(-1, (num_heads, -1)).transpose(-3, -2)`; `keys, values = "
        "self.cache.append(key, value)`; `causal_mask(*scores.shape[-2:])`; merge with "
        "`.transpose(-3, -2).flatten(-2)` before out_proj.",
    ),
)  # fmt: skip
