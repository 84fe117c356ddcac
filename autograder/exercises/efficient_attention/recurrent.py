"""Exercise `recurrent_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.averaging import hides_from_low_scores
from autograder.checks.carrying import no_gradient_through, remembers
from autograder.checks.conduct import FUSED, obeys
from autograder.checks.customary import COUNTS, FORMULA, conduct
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.basic_attention.variants import attend
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.shared_attention.variants import chosen
from autograder.oracle.reach import recurrent_attention as formula

__all__ = ["RECURRENT_ATTENTION"]

OUTPUTS = ("output", "new_memory")
MEMORY = "the new memory"
ARGUMENTS = ("x", "memory", "W_q", "W_k", "W_v", "memory_length")


def _inputs(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    size: float = 1.0,
    zero: bool = False,
    kept: str = "most",
    memory: int | None = -1,
    high: int = 9,
) -> dict[str, Any]:
    """x (..., S, d), memory (..., M, d) or None, W_q and W_k (d, D), W_v (d, D_v), all sizes different.

    memory: how many rows it has; -1 for any number, None for no memory. kept: the new memory's length: "most" of the
    M + S positions, "few" (less than M and S), or "all" and two more.
    """
    *lead, S, M, d, D, D_v = draw.sizes(axes + 5, 3, high)
    M = M if memory is None or memory < 0 else memory
    lengths = {"most": M + S - 2, "few": min(M, S) - 1, "all": M + S + 2}
    W_q, W_k, W_v = (draw.normal(d, width, dtype=torch.float64) / d**0.5 for width in (D, D, D_v))
    inputs: dict[str, Any] = {
        "x": draw.normal(*lead, S, d, dtype=dtype) * size,
        "memory": None if memory is None else draw.normal(*lead, M, d, dtype=dtype) * size,
        "W_q": W_q.to(dtype),
        "W_k": W_k.to(dtype),
        "W_v": W_v.to(dtype),
        "memory_length": lengths[kept],
    }
    if zero:  # so that not every score of 0 is a hidden one
        inputs["x"][..., 1, :] = 0.0
    return inputs


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal sizes"),
    _recipe("a short memory", kept="few"),
    _recipe("a long memory", kept="all"),
    _recipe("no memory yet", memory=None),
    _recipe("an empty memory", memory=0, kept="all"),
    _recipe("large scores", size=2.0, zero=True),
    _recipe("huge scores", size=60.0),
    _recipe("two leading axes", axes=2),
    _recipe("small, float64", axes=0, dtype=torch.float64, high=8),
    _recipe("float64", dtype=torch.float64),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16),
)

Rows = Callable[[Tensor, Tensor], Tensor]
"""Of x and the old memory."""


def _last(rows: Tensor, length: int) -> Tensor:
    return rows[..., max(rows.shape[-2] - length, 0) :, :]


def _variant(
    x: Tensor,
    memory: Tensor | None,
    W_q: Tensor,
    W_k: Tensor,
    W_v: Tensor,
    memory_length: int,
    *,
    context: Rows = lambda x, old: torch.cat([old, x], -2),
    queries: Rows = lambda x, old: x,
    triangle: Callable[[Tensor, int], Tensor] = lambda ones, M: ones.tril(M),
    keep: Callable[[Tensor, Tensor, int], Tensor] = lambda x, old, n: _last(torch.cat([old, x], -2), n),
    weights: tuple[int, int, int] = (0, 1, 2),
    **knobs: Any,
) -> Mapping[str, Tensor]:
    """The function with knobs: what is attended to, by what, what is allowed, what is kept, which matrix makes what."""
    old = x[..., :0, :] if memory is None else memory
    rows, asking = context(x, old), queries(x, old)
    made = [(W_q, W_k, W_v)[n] for n in weights]
    query, key, value = asking @ made[0], rows @ made[1], rows @ made[2]
    allowed = triangle(torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool), old.shape[-2])
    output = attend(query, key, value, allowed, **knobs)["output"]
    return {"output": output[..., -x.shape[-2] :, :], "new_memory": keep(x, old, memory_length)}


SEES = "Position i sees the whole memory and positions 0..i of the segment: tril(M) of (S, M + S)."
KEEPS = "The new memory is the last memory_length rows of [memory, x], in that order."
Slips = tuple[tuple[str, str, dict[str, Any]], ...]
SLIPS: Slips = (
    (
        "memory not read",
        "Keys and values are made of [memory, x].",
        {"context": lambda x, old: x, "triangle": lambda ones, M: ones.tril()},
    ),
    (
        "memory after the segment",
        "The memory is older: it comes first in the concatenation.",
        {"context": lambda x, old: torch.cat([x, old], -2)},
    ),
    ("causal mask without the memory's offset", SEES, {"triangle": lambda ones, M: ones.tril()}),
    ("nothing is masked", SEES, {"triangle": lambda ones, M: ones}),
    ("a position does not see itself", SEES, {"triangle": lambda ones, M: ones.tril(M - 1)}),
    ("one position of the future is seen", SEES, {"triangle": lambda ones, M: ones.tril(M + 1)}),
    (
        "first rows kept instead of the last",
        KEEPS,
        {"keep": lambda x, old, n: torch.cat([old, x], -2)[..., :n, :]},
    ),
    ("old memory dropped", KEEPS + " Is only x kept?", {"keep": lambda x, old, n: _last(x, n)}),
    ("old memory returned", KEEPS + " Where is x?", {"keep": lambda x, old, n: _last(old, n)}),
    ("memory grows without end", KEEPS, {"keep": lambda x, old, n: torch.cat([old, x], -2)}),
    ("one row too many kept", KEEPS, {"keep": lambda x, old, n: _last(torch.cat([old, x], -2), n + 1)}),
    (
        "segment before the memory in what is kept",
        KEEPS,
        {"keep": lambda x, old, n: _last(torch.cat([x, old], -2), n)},
    ),
    (
        "keys and values made by the other's matrix",
        "W_k makes the keys, W_v the values.",
        {"weights": (0, 2, 1)},
    ),
    ("keys made by W_q", "W_k makes the keys.", {"weights": (0, 0, 2)}),
    (
        "divided by sqrt(D_v)",
        "Scores are divided by the root of the width of the keys, not of the values.",
        {"scale": lambda q, k, v: v.shape[-1] ** -0.5},
    ),
)


def _updated_first(
    x: Tensor, memory: Tensor | None, W_q: Tensor, W_k: Tensor, W_v: Tensor, memory_length: int
) -> Mapping[str, Tensor]:
    """The new memory, x in it, is read instead of the old one."""
    new = _variant(x, memory, W_q, W_k, W_v, memory_length)["new_memory"]
    return {**_variant(x, new, W_q, W_k, W_v, memory_length), "new_memory": new}


def _outputs_kept(
    x: Tensor, memory: Tensor | None, W_q: Tensor, W_k: Tensor, W_v: Tensor, memory_length: int
) -> Mapping[str, Tensor]:
    found = _variant(x, memory, W_q, W_k, W_v, memory_length)["output"]
    return _variant(x, memory, W_q, W_k, W_v, memory_length, keep=lambda x, old, n: _last(found, n))


def _clipped_first(
    x: Tensor, memory: Tensor | None, W_q: Tensor, W_k: Tensor, W_v: Tensor, memory_length: int
) -> Mapping[str, Tensor]:
    """Only the last memory_length rows of the old memory are read."""
    right = _variant(x, memory, W_q, W_k, W_v, memory_length)
    old = None if memory is None else _last(memory, memory_length)
    return {**_variant(x, old, W_q, W_k, W_v, memory_length), "new_memory": right["new_memory"]}


RECURRENT_ATTENTION = Exercise(
    name="recurrent_attention",
    assignment="efficient_attention",
    target=Target("recurrent_attention", OUTPUTS, formula),
    positional=ARGUMENTS,
    recipes=RECIPES,
    checks=(
        Check(
            COUNTS,
            "the output changes with each argument, also with x at an earlier position",
            0.5,
            ("unequal sizes",),
            responds(
                {"x": OUTPUTS, "memory": OUTPUTS, **{name: ("output",) for name in ("W_q", "W_k", "W_v")}},
                mixing="x",
            ),
        ),
        Check(
            FORMULA,
            "causal attention of x to [memory, x]",
            1.25,
            ("unequal sizes", "large scores"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "no memory yet",
            "with None, or a memory of no rows, it is causal self-attention",
            0.5,
            ("no memory yet", "an empty memory"),
            agrees("output"),
            FORMULA,
        ),
        Check(
            MEMORY,
            "the last memory_length rows of [memory, x], however many there are",
            1.0,
            ("unequal sizes", "a short memory", "a long memory"),
            agrees("new_memory"),
            COUNTS,
        ),
        Check(
            "any length",
            "from no memory at all to more than there is",
            0.5,
            ("unequal sizes",),
            remembers("x", "memory", "new_memory", "memory_length"),
            (FORMULA, MEMORY, "no memory yet"),
        ),
        Check(
            "old memory read",
            "what is kept for later does not change what is read now",
            0.5,
            ("a short memory", "a long memory"),
            agrees("output"),
            FORMULA,
        ),
        Check(
            "no gradient into the memory",
            "earlier segments are not trained through it, nor this one by later ones",
            1.0,
            ("small, float64",),
            no_gradient_through("memory", "new_memory"),
            (FORMULA, MEMORY, "no memory yet"),
        ),
        Check(
            "huge scores",
            "no overflow for large inputs, and hidden keys lose against scores far below zero",
            0.25,
            ("huge scores",),
            hides_from_low_scores(("x", "memory"), {"W_q": 0, "W_k": 0}, "W_k"),
            FORMULA,
        ),
        Check(
            "leading axes",
            "any number of leading axes; batch elements stand alone",
            0.25,
            ("two leading axes",),
            agrees_with_slices({"x": 2, "memory": 2}, OUTPUTS),
            COUNTS,
        ),
        Check(
            "own work",
            "attention is written out",
            0.25,
            ("unequal sizes",),
            obeys(FUSED, "attention"),
            FORMULA,
            binding=True,
        ),
        *conduct(
            (FORMULA, MEMORY),
            outputs=OUTPUTS,
            gradient="backward() gives the derivative; W_k and W_v learn from the memory, too",
            derived=("output",),
        ),
    ),
    mistakes=(
        *(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in SLIPS),
        *(
            Mistake(name, question, partial(_variant, **knobs))
            for name, question, knobs in chosen(
                "not scaled", "divided by D", "softmax over the queries", "no softmax"
            )
        ),
        Mistake(
            "new memory read instead of the old",
            "The memory that this segment reads must not hold this segment. Is it updated after the attention?",
            _updated_first,
        ),
        Mistake(
            "old memory cut before it is read",
            "memory_length says what is kept for later. What is given is read as a whole.",
            _clipped_first,
        ),
        Mistake("outputs kept instead of x", KEEPS + " It holds inputs, not results.", _outputs_kept),
    ),
    hints=(
        "There are S queries and M + S keys. Which key is query i's own position?",
        (
            "Concatenate the detached memory and x; make queries of x, keys and values of the whole. The mask is "
            "tril(M) of (S, M + S). The new memory is the tail of the same concatenation, detached."
        ),
        (
            "`context = torch.cat([memory.detach(), x], -2)`; `allowed.tril(memory.shape[-2])`; "
            "`context[..., max(context.shape[-2] - memory_length, 0):, :].detach()`. Careful: `[-0:]` keeps "
            "everything. Detach the memory, not the keys, or W_k does not learn from it."
        ),
    ),
)
