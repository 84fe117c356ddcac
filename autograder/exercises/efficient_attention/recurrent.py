"""Exercise `recurrent_attention`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.averaging import finite_when
from autograder.checks.carrying import no_gradient_through, remembers
from autograder.checks.conduct import FUSED, obeys
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import attend, only
from autograder.oracle.reach import recurrent_attention as formula
from autograder.situations import DTYPES, MODULE_AXES, Group, Situations, drawn_by, groups
from autograder.situations.factors import LONG_PRIMES, VERY_LONG, Factor

__all__ = ["RECURRENT_ATTENTION"]

OUTPUTS = ("output", "new_memory")
FORMULA, MEMORY, KEPT = "agrees with the formula", "given memory", "new memory"
SHAPES = {"x": "... S d", "memory": "... M d", "W_q": "d D", "W_k": "d D", "W_v": "d D_v"}
_segment = drawn_by(SHAPES, leading=1, low=3, high=8)
Keep = Callable[[int, int], int]


def draw(
    draw: Draw, *, keep: Keep = lambda S, M: max(S + M - 2, 1), given: bool = True, **options: Any
) -> dict[str, Any]:
    """x, memory (None unless given), the three matrices, and memory_length by what `keep` makes of S and M."""
    inputs = _segment(draw, **options)
    if not given:
        inputs["memory"] = None
    S, d = inputs["x"].shape[-2:]
    M = 0 if inputs["memory"] is None else inputs["memory"].shape[-2]
    scaled = {name: inputs[name] / d**0.5 for name in ("W_q", "W_k", "W_v")}
    return inputs | scaled | {"memory_length": keep(S, M)}


def _near(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """All of the segment has one score, far above that of the memory."""
    x, memory = inputs["x"].clone(), inputs["memory"].clone()
    x[..., 0], memory[..., 0] = 1.0, 0.0
    matrix = torch.zeros_like(inputs["W_q"])
    matrix[0, 0] = 6.0
    return {**inputs, "x": x, "memory": memory, "W_q": matrix, "W_k": matrix.clone()}


FAR: Factor = {
    "over two thousand rows of memory": {"S": (2, 3), "M": VERY_LONG, "axes": 0, "given": True},
    "over a thousand rows of memory in bfloat16":
        ({"S": (3, 4), "M": LONG_PRIMES, "axes": 0, "given": True, "dtype": torch.bfloat16}, _near),
}  # fmt: skip
GIVEN: Factor = {
    "a memory": {},
    "no memory yet": {"given": False},
    "a memory of no rows": {"M": 0},
    "a memory of one row": {"M": 1},
}
LENGTHS: Factor = {
    "several positions": {},
    "a single position": {"S": 1},
    "as many positions as features": {"S": "d"},
    **FAR,
}
LEFT: Factor = {
    "most rows are kept": {},
    "fewer are kept than there were": {"keep": lambda S, M: max(min(S, M) - 1, 1)},
    "as many are kept as there were": {"keep": lambda S, M: M},
    "as many are kept as are new": {"keep": lambda S, M: S},
    "all are kept": {"keep": lambda S, M: S + M},
    "more could be kept": {"keep": lambda S, M: S + M + 2},
    "none is kept": {"keep": lambda S, M: 0},
}


def _huge(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """So large that exp overflows; larger still where rounding hides nothing."""
    return {**inputs, "W_q": inputs["W_q"] * (1e5 if inputs["x"].dtype == torch.float64 else 300.0)}


def _low(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """All scores equal, and below -1e4; far lower still where rounding hides nothing."""
    far = (1024.0, 1024.0) if inputs["x"].dtype == torch.float64 else (256.0, 128.0)
    made = {name: inputs[name].clone() for name in ("x", "memory") if inputs[name] is not None}
    for rows in made.values():
        rows[..., 0] = 1.0
    made |= {name: torch.zeros_like(inputs[name]) for name in ("W_q", "W_k")}
    made["W_q"][0, 0], made["W_k"][0, 0] = far[0], -far[1]
    return {**inputs, **made}


def _zeros(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """A position of nothing but zeros: not every score of 0 is a hidden one."""
    x = inputs["x"].clone()
    x[..., x.shape[-2] // 2, :] = 0.0
    return {**inputs, "x": x}


SCORES: Factor = {
    "ordinary scores": {}, "huge scores": _huge, "all scores low": _low, "a position of zeros": _zeros,
}  # fmt: skip
Rows = Callable[[Tensor, Tensor], Tensor]
"""Of x and the old memory."""


def _last(rows: Tensor, length: int) -> Tensor:
    return rows[..., max(rows.shape[-2] - length, 0) :, :]


def _steps(
    x: Tensor,
    memory: Tensor | None,
    W_q: Tensor,
    W_k: Tensor,
    W_v: Tensor,
    memory_length: int,
    *,
    context: Rows = lambda x, old: torch.cat([old, x], -2),
    triangle: Callable[[Tensor, int], Tensor] = lambda ones, M: ones.tril(M),
    keep: Callable[[Tensor, Tensor, int], Tensor] = lambda x, old, n: _last(torch.cat([old, x], -2), n),
    weights: tuple[int, int, int] = (0, 1, 2),
    knobs: Mapping[str, Any] | None = None,
) -> Mapping[str, Tensor]:
    """The function in steps: what is attended to, what is allowed, what is kept, which matrix makes what."""
    old = x[..., :0, :] if memory is None else memory
    rows = context(x, old)
    made = [(W_q, W_k, W_v)[n] for n in weights]
    query, key, value = x @ made[0], rows @ made[1], rows @ made[2]
    allowed = triangle(torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool), old.shape[-2])
    output = attend(query, key, value, allowed, **(knobs or {}))["output"]
    return {"output": output, "new_memory": keep(x, old, memory_length)}


def _updated_first(x: Tensor, memory: Tensor | None, memory_length: int, **W: Any) -> Mapping[str, Tensor]:
    """The new memory, x in it, is read instead of the old one."""
    new = _steps(x, memory, **W, memory_length=memory_length)["new_memory"]
    return {**_steps(x, new, **W, memory_length=memory_length), "new_memory": new}


def _outputs_kept(x: Tensor, memory: Tensor | None, memory_length: int, **W: Any) -> Mapping[str, Tensor]:
    found = _steps(x, memory, **W, memory_length=memory_length)["output"]
    return {"output": found, "new_memory": _last(found, memory_length)}


def _clipped_first(x: Tensor, memory: Tensor | None, memory_length: int, **W: Any) -> Mapping[str, Tensor]:
    """Only the last memory_length rows of the old memory are read."""
    right = _steps(x, memory, **W, memory_length=memory_length)
    old = None if memory is None else _last(memory, memory_length)
    return {**_steps(x, old, **W, memory_length=memory_length), "new_memory": right["new_memory"]}


SEES = "Position i sees the whole memory and positions 0..i of the segment: tril(M) of (S, M + S)."
KEEPS = "The new memory is the last memory_length rows of [memory, x], in that order."

SLIPS: Slips = {
    "Keys and values are made of [memory, x].": {
        "memory not read": {"context": lambda x, old: x, "triangle": lambda ones, M: ones.tril()},
    },
    "The memory is older: it comes first in the concatenation.": {
        "memory after the segment": {"context": lambda x, old: torch.cat([x, old], -2)},
    },
    SEES: {
        "causal mask without the memory's offset": {"triangle": lambda ones, M: ones.tril()},
        "nothing is masked": {"triangle": lambda ones, M: ones},
        "a position does not see itself": {"triangle": lambda ones, M: ones.tril(M - 1)},
        "one position of the future is seen": {"triangle": lambda ones, M: ones.tril(M + 1)},
    },
    KEEPS: {
        "first rows kept instead of the last": {"keep": lambda x, old, n: torch.cat([old, x], -2)[..., :n, :]},
        "memory grows without end": {"keep": lambda x, old, n: torch.cat([old, x], -2)},
        "one row too many kept": {"keep": lambda x, old, n: _last(torch.cat([old, x], -2), n + 1)},
        "segment before the memory in what is kept": {"keep": lambda x, old, n: _last(torch.cat([x, old], -2), n)},
    },
    KEEPS + " Careful: [-0:] keeps everything.": {
        "everything kept where nothing is asked": {"keep": lambda x, old, n: torch.cat([old, x], -2)[..., -n:, :]},
    },
    KEEPS + " Is only x kept?": {"old memory dropped": {"keep": lambda x, old, n: _last(x, n)}},
    KEEPS + " Where is x?": {"old memory returned": {"keep": lambda x, old, n: _last(old, n)}},
    KEEPS + " It holds inputs, not results.": {"outputs kept instead of x": _outputs_kept},
    "The memory that this segment reads must not hold this segment. Is it updated after the attention?": {
        "new memory read instead of the old": _updated_first,
    },
    "memory_length says what is kept for later. What is given is read as a whole.": {
        "old memory cut before it is read": _clipped_first,
    },
    "W_k makes the keys, W_v the values.": {"keys and values made by the other's matrix": {"weights": (0, 2, 1)}},
    "W_k makes the keys.": {"keys made by W_q": {"weights": (0, 0, 2)}},
    "Is the mask value -inf or the dtype's lowest number, or merely a low one?": {
        "mask value is not low enough": [
            {"knobs": {"weigh": lambda s, a, low=low: s.masked_fill(~a, low).softmax(-1)}} for low in (-1e4, -65504.0, -1e5)
        ],
    },
}  # fmt: skip
SCORE_SLIPS = only(
    "not scaled", "divided by D", "divided by sqrt(D_v)", "softmax over the queries", "no softmax"
)

RECURRENT_ATTENTION = Exercise(
    name="recurrent_attention",
    assignment="efficient_attention",
    target=Target("recurrent_attention", OUTPUTS, formula, detached=("new_memory",)),
    positional=(*SHAPES, "memory_length"),
    situations=Situations(
        draw=draw,
        factors={"given": GIVEN, "dtype": DTYPES, "lengths": LENGTHS, "kept": LEFT, "scores": SCORES, "axes": MODULE_AXES},
        axes=SHAPES,
        groups=groups(
            "causal attention of x to [memory, x]", 1.75,
            (Group(MEMORY, "with None, or a memory of no rows, it is causal self-attention", 0.75, ("given",)),
             Group(KEPT, "the last rows of [memory, x]; what is kept does not change what is read", 1.0, ("kept",))),
            lengths=0.5, scores=0.5, gradient=0.5, dtypes=0.25, calls=0.75,
        ),
        never=({"scores": "all scores low", "lengths": "a single position"},),  # no position hidden
    ),
    recipes=(Recipe("plain", draw), Recipe("float64", lambda one: draw(one, axes=0, dtype=torch.float64))),
    checks=(
        Check("no gradient into the memory", "earlier segments are not trained through it, nor this one by later ones", 1.0,
              ("float64",), no_gradient_through("memory", "new_memory"), (FORMULA, MEMORY, KEPT)),
        Check("own work", "attention is written out", 0.25, ("plain",), obeys(FUSED, "attention"), FORMULA, binding=True),
    ),
    diagnoses={
        "": (finite_when("huge scores", "all scores low"),
             *(responds({name: ("output",)}) for name in ("x", "W_q", "W_k", "W_v"))),
        "memory": (remembers("x", "memory", "new_memory", "memory_length"),),
    },
    mistakes=(*slips(_steps, SLIPS), *slips(_steps, *SCORE_SLIPS, steps="knobs")),
    hints=(
        "There are S queries and M + S keys. Which key is query i's own position?",
        "Concatenate the detached memory and x; make queries of x, keys and values of the whole. The mask is tril(M) of "
        "(S, M + S). The new memory is the tail of the same concatenation, detached.",
        "`context = torch.cat([memory.detach(), x], -2)`; `allowed.tril(memory.shape[-2])`; "
        "`context[..., max(context.shape[-2] - memory_length, 0):, :].detach()`. Careful: `[-0:]` keeps everything. Detach "
        "the memory, not the keys, or W_k does not learn from it.",
    ),
)  # fmt: skip
