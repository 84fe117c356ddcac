"""Exercise `CachedSelfAttention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Parameter, Target, Trial
from autograder.checks.agreement import agrees
from autograder.checks.conduct import dtype_kept, inputs_untouched
from autograder.checks.decoding import refused
from autograder.checks.failure import student_code
from autograder.checks.gradients import differentiable, every_parameter_learns
from autograder.checks.objects import construct
from autograder.checks.scripted import FedModule
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.generation import aligned, cached_attention
from autograder.oracle.quantity import Quantity, Rounder, exact

__all__ = ["CACHED_SELF_ATTENTION"]

SPARE_WORK = 1.25
"""Of the counted operations: a right writing needs no more than the formula; a fourth leaves room for an odd one."""


def _inputs(
    draw: Draw,
    *,
    chunks: str = "",
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    length: tuple[int, int] = (5, 9),
    size: float = 1.0,
) -> dict[str, Any]:
    """x (..., S, d_model). chunks: "steps" (a prompt, then one by one), "pieces" (of any lengths), or none."""
    num_heads, width = draw.sizes(2, 2, 5)
    lead, S = draw.sizes(axes, 2, 4), draw.integer(*length)
    lengths = {"steps": [S - 3, 1, 1, 1], "pieces": [1, 3, 1, S - 5]}
    given = {"chunks": [n for n in lengths[chunks] if n]} if chunks else {}
    return {
        "init": {"d_model": num_heads * width, "num_heads": num_heads, "max_length": S},
        "num_heads": num_heads,
        "x": draw.normal(*lead, S, num_heads * width, dtype=dtype) * size,
        **given,
    }


def _formula(
    x: Tensor, num_heads: int, chunks: list[int] | None = None, round: Rounder = exact, **weights: Tensor
) -> dict[str, Quantity]:
    return cached_attention(x, num_heads, round, **weights)


def _forgets(trial: Trial) -> None:
    """start=0 begins a new text, also of another batch size."""
    first, second = trial.inputs["x"], trial.inputs["x"][:1].flip(-2) * 0.5
    trial(x=first)
    try:
        result = trial(x=second)["output"]
    except Failure as failure:
        raise Failure(
            f"a second text of another batch size, begun with start=0: {failure.message}",
            mistake="start=0 does not forget",
            errored=failure.errored,
        ) from failure
    trial.require(
        "output",
        result,
        "a second text, begun with start=0, is not what it would be alone",
        mistake="start=0 does not forget",
        x=second,
    )


def _steps_agree(trial: Trial) -> None:
    """Prompt and single steps give the full pass; what is remembered is no registered buffer, which travels with weights."""
    module = trial.subject.module(trial.case) if isinstance(trial.subject, FedModule) else None
    buffers = {} if module is None else dict(module.named_buffers())
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    failed: Failure | None = None
    try:
        agrees("output")(trial)
    except Failure as failure:
        failed = failure
    after = {} if module is None else dict(module.named_buffers())
    changed = [n for n, held in after.items() if n not in before or not _same(before[n], held)]
    suspects = changed or [n for n, held in after.items() if failed and held.is_floating_point()]
    if suspects:
        raise Failure(
            f"is {suspects[0]}, a registered buffer, what it remembers in? A cache is no part of the model's state: keep it in "
            "a KVCache on self.",
            mistake="remembers in a registered buffer",
        )
    if failed:
        raise failed


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _refuses(trial: Trial) -> None:
    """Positions that do not follow, a text that is too long, and heads that do not fit are refused."""
    subject, case = trial.subject, trial.case
    x, (d_model, num_heads, max_length) = trial.inputs["x"], case.init.values()

    def feed(start: int, length: int) -> Any:
        given = {**trial.inputs, "x": x[..., :length, :], **({"start": start} if start else {})}
        with student_code():
            return subject.call(case, {n: v for n, v in given.items() if n != "chunks"})

    feed(0, max_length - 2)
    refused(
        lambda: feed(max_length - 3, 1),
        f"start={max_length - 3} where {max_length - 2} positions are remembered",
        "start is not compared with what is remembered",
    )
    refused(
        lambda: feed(max_length - 2, 3),
        f"{max_length + 1} positions with max_length={max_length}",
        "grows beyond max_length",
    )
    feed(max_length - 2, 2)  # it fits, and the refusals have changed nothing
    if isinstance(subject, FedModule):
        refused(
            lambda: _make(subject, d_model + 1, num_heads, max_length),
            f"d_model={d_model + 1} with num_heads={num_heads}",
            "d_model need not be divisible by num_heads",
        )


def _make(subject: FedModule, *sizes: int) -> Any:
    with student_code():
        return construct(subject.module_class, *sizes)


def _step_flops(x: Tensor, new: int) -> int:
    """Operations for `new` positions at the end of x (..., S, d_model): four projections, scores, weighted values."""
    rows, (S, d_model) = x[..., 0, 0].numel(), x.shape[-2:]
    return rows * (4 * 2 * new * d_model**2 + 2 * 2 * new * S * d_model)


def _cheap_step(trial: Trial) -> None:
    """The last position of a text, the others being remembered, costs what one position costs."""
    x, subject, case = trial.inputs["x"], trial.subject, trial.case
    rest = {name: value for name, value in trial.inputs.items() if name not in ("x", "chunks")}
    S = x.shape[-2]
    with student_code():
        subject.call(case, {**rest, "x": x[..., : S - 1, :]})
        seen = subject.observe(case, {**rest, "x": x[..., S - 1 :, :], "start": S - 1})
    enough = _step_flops(x, 1)
    if seen.flops > SPARE_WORK * enough:
        raise Failure(
            f"one position after {S - 1} others takes {seen.flops:,} floating-point operations in matrix products; "
            f"{enough:,} are enough. Are the keys and values of earlier positions computed again?",
            mistake="computes earlier positions again",
        )
    whole = subject.observe(case, {**rest, "x": x})
    if whole.flops > SPARE_WORK * _step_flops(x, S):
        raise Failure(
            f"the full pass takes {whole.flops:,} floating-point operations in matrix products; "
            f"{_step_flops(x, S):,} are enough. Is the text fed one position at a time, or twice?",
            mistake="computes earlier positions again",
        )


# What goes wrong: the attention of each piece to what is remembered, with knobs.

Knob = Callable[..., Tensor]


def _split(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(-3, -2).flatten(-2)


def _variant(
    x: Tensor,
    num_heads: int,
    chunks: list[int] | None = None,
    *,
    mask: Callable[[int, int], Tensor] = aligned,
    scale: Callable[[int, int], float] = lambda width, heads: width**-0.5,
    axis: int = -1,
    remember: bool = True,
    values_from: str = "v_proj",
    split: Callable[[Tensor, int], Tensor] = _split,
    merge: Callable[[Tensor], Tensor] = _merge,
    heads: Callable[[int], int] = lambda heads: heads,
    finish: bool = True,
    bias: bool = True,
    keys_again: bool = False,
    **weights: Tensor,
) -> Mapping[str, Tensor]:
    def project(name: str, inputs: Tensor) -> Tensor:
        made = inputs @ weights[name].mT
        return made + weights[f"{name}_bias"] if bias and f"{name}_bias" in weights else made

    outputs, keys, values = [], list[Tensor](), list[Tensor]()
    for piece in x.split(chunks or [x.shape[-2]], -2):
        query, key, value = (
            split(project(name, piece), heads(num_heads)) for name in ("q_proj", "k_proj", values_from)
        )
        keys, values = ([*keys, key], [*values, value]) if remember else ([key], [value])
        all_keys, all_values = torch.cat(keys, -2), torch.cat(values, -2)
        scores = query @ all_keys.mT * scale(query.shape[-1], num_heads)
        allowed = mask(*scores.shape[-2:])
        probs = scores.masked_fill(~allowed, -torch.inf).softmax(axis).nan_to_num()
        mixed = merge(probs @ all_values)
        outputs.append(project("out_proj", mixed) if finish else mixed)
    return {"output": torch.cat(outputs, -2)}


def _mistake(name: str, question: str, **knobs: Any) -> Mistake:
    return Mistake(name, question, partial(_variant, **knobs))


def _ones(S_q: int, S_k: int) -> Tensor:
    return torch.ones(S_q, S_k, dtype=torch.bool)


MISTAKES = (
    _mistake(
        "mask aligned at the top left",
        "The queries are the last positions. Is the mask causal_mask(S_q, S_k)?",
        mask=lambda S_q, S_k: _ones(S_q, S_k).tril(),
    ),
    _mistake("nothing is masked", "No position may see a later one.", mask=_ones),
    _mistake(
        "only a full pass is masked",
        "A piece of several positions needs its mask also when others came before it.",
        mask=lambda S_q, S_k: aligned(S_q, S_k) if S_q == S_k else _ones(S_q, S_k),
    ),
    _mistake(
        "a position does not see itself",
        "Position p sees 0..p.",
        mask=lambda S_q, S_k: _ones(S_q, S_k).tril(S_k - S_q - 1),
    ),
    _mistake("earlier pieces are forgotten", "Are keys and values of earlier calls used?", remember=False),
    _mistake(
        "not scaled", "Divide the scores by sqrt(D), D the width of a head.", scale=lambda width, heads: 1.0
    ),
    _mistake(
        "scaled by sqrt(d_model)",
        "Divide by the root of the width of a head, not of the model.",
        scale=lambda width, heads: (width * heads) ** -0.5,
    ),
    _mistake("softmax over the queries", "The weights of a query sum to one: dim=-1.", axis=-2),
    _mistake("one head", "Is d_model split into num_heads heads?", heads=lambda heads: 1),
    _mistake(
        "heads interleaved",
        "Head h owns the features h * D .. (h + 1) * D - 1. Is it unflatten(-1, (num_heads, D))?",
        split=lambda x, heads: x.unflatten(-1, (-1, heads)).movedim(-1, -3),
    ),
    _mistake(
        "heads merged without a transpose",
        "Before flatten, the head axis must stand next to its features.",
        merge=lambda x: x.reshape(*x.shape[:-3], x.shape[-2], x.shape[-3] * x.shape[-1]),
    ),
    _mistake(
        "heads split without a transpose",
        "A view (..., H, S, D) of (..., S, d_model) mixes positions. Is it (..., S, H, D), then transposed?",
        split=lambda x, heads: x.reshape(*x.shape[:-2], heads, x.shape[-2], x.shape[-1] // heads),
    ),
    _mistake("out_proj is not applied", "The output is out_proj of the merged heads.", finish=False),
    _mistake("values are keys", "Values have a projection of their own.", values_from="k_proj"),
    _mistake("biases left out", "The four layers have biases.", bias=False),
)


RECIPES = (
    Recipe("full pass", _inputs),
    Recipe("prompt, then steps", partial(_inputs, chunks="steps")),
    Recipe("pieces of any lengths", partial(_inputs, chunks="pieces", length=(8, 11))),
    Recipe("two leading axes", partial(_inputs, axes=2)),
    Recipe("large scores", partial(_inputs, size=2.5)),
    Recipe("small, float64", partial(_inputs, dtype=torch.float64, axes=0, length=(4, 6))),
    Recipe("float64", partial(_inputs, dtype=torch.float64, chunks="steps")),
    Recipe("bfloat16", partial(_inputs, dtype=torch.bfloat16)),
    Recipe("long text", partial(_inputs, length=(40, 50))),
)

SQUARE = ("d_model", "d_model")
PARAMETERS = tuple(Parameter(name, SQUARE, bias=True) for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
FULL = "full pass"

CACHED_SELF_ATTENTION = Exercise(
    name="CachedSelfAttention",
    assignment="text_generation",
    target=Target("CachedSelfAttention", ("output",), _formula),
    positional=("x",),
    parameters=PARAMETERS,
    used_as=FedModule,
    recipes=RECIPES,
    checks=(
        Check(
            "every input counts",
            "the output changes with x",
            0.25,
            ("full pass",),
            responds({"x": ("output",)}),
        ),
        Check(
            FULL,
            "forward(x) is causal multi-head self-attention",
            1.0,
            ("full pass", "large scores"),
            agrees("output"),
            "every input counts",
        ),
        Check(
            "single steps",
            "a prompt, then one position at a time, equals the full pass",
            1.0,
            ("prompt, then steps",),
            _steps_agree,
            FULL,
        ),
        Check(
            "pieces",
            "pieces of any lengths equal the full pass",
            0.75,
            ("pieces of any lengths",),
            agrees("output"),
            (FULL, "single steps"),
        ),
        Check(
            "cost",
            "an earlier position is never computed again",
            0.75,
            ("long text",),
            _cheap_step,
            (FULL, "single steps"),
        ),
        Check("new text", "start=0 forgets the earlier text", 0.5, ("full pass",), _forgets, FULL),
        Check(
            "refuses",
            "what does not fit raises ValueError",
            0.5,
            ("full pass",),
            _refuses,
            (FULL, "single steps"),
        ),
        Check(
            "leading axes",
            "any number of leading axes",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"x": 2}, ("output",)),
            FULL,
        ),
        Check(
            "parameters",
            "every parameter is used and learns",
            0.25,
            ("full pass",),
            every_parameter_learns(),
            FULL,
        ),
        Check(
            "gradient",
            "backward() of the full pass gives the derivative",
            0.25,
            ("small, float64",),
            differentiable(("output",)),
            FULL,
        ),
        Check(
            "dtype",
            "the dtype is kept, and its precision",
            0.25,
            ("float64", "bfloat16"),
            dtype_kept(("output",)),
            (FULL, "single steps"),
        ),
        Check("inputs untouched", "x is not written to", 0.25, ("full pass",), inputs_untouched(), FULL),
    ),
    mistakes=MISTAKES,
    hints=(
        "With start > 0, how many queries are there, and how many keys? Your causal_mask takes both numbers.",
        (
            "Project x only; append the new keys and values to a KVCache that the module keeps on self; attend with the "
            "new queries to all that the cache returns. start=0 resets it first."
        ),
        (
            "Split heads with `layer(x).unflatten(-1, (num_heads, -1)).transpose(-3, -2)`; `keys, values = "
            "self.cache.append(key, value)`; `causal_mask(*scores.shape[-2:])`; merge with "
            "`.transpose(-3, -2).flatten(-2)` before out_proj."
        ),
    ),
)
