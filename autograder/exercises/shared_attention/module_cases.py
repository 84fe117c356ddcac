"""The cases of `SymmetricAttention` and `SharedAcrossTasks`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from autograder.case import Draw, Recipe

__all__ = ["SYMMETRIC_RECIPES", "TASK_RECIPES"]

LONG = (33, 60)


def _symmetric(
    draw: Draw,
    *,
    axes: int = 1,
    dtype: torch.dtype = torch.float32,
    lengths: str = "",
    size: float = 1.0,
    low: int = 3,
    high: int = 9,
    is_causal: bool = False,
) -> dict[str, Any]:
    """x (..., S, d_model). lengths: "square" for S = d_model, "long" for 33 to 60 positions."""
    *lead, S, d_model = draw.sizes(axes + 2, low=low, high=high)
    if lengths == "square":
        d_model = S
    elif lengths:
        S = draw.integer(*LONG)
    x = draw.normal(*lead, S, d_model, dtype=dtype) * size
    return {"init": {"d_model": d_model}, "x": x} | ({"is_causal": True} if is_causal else {})


def _tasks(draw: Draw, *, tasks: int = 3, task: int | None = None, **options: Any) -> dict[str, Any]:
    """The same with `tasks` tasks: task, or any but the first."""
    inputs = _symmetric(draw, **options)
    inputs["init"]["num_tasks"] = tasks
    return inputs | {"task": draw.integer(1, tasks - 1) if task is None else task}


def _recipes(inputs: Callable[..., dict[str, Any]], *more: Recipe) -> tuple[Recipe, ...]:
    def recipe(label: str, **options: Any) -> Recipe:
        return Recipe(label, partial(inputs, **options))

    return (
        recipe("unequal sizes", low=4),
        recipe("all sizes equal", lengths="square"),
        recipe("large scores", size=2.5),
        recipe("two leading axes", axes=2),
        recipe("long sequences", lengths="long"),
        recipe("huge scores", size=100.0),
        recipe("small, float64", axes=0, dtype=torch.float64, high=6),
        recipe("float64", dtype=torch.float64),
        recipe("bfloat16", dtype=torch.bfloat16),
        recipe("float16", dtype=torch.float16),
        *more,
    )


SYMMETRIC_RECIPES = _recipes(_symmetric, Recipe("causal", partial(_symmetric, is_causal=True)))
TASK_RECIPES = _recipes(
    _tasks,
    Recipe("the first task", partial(_tasks, task=0)),
    Recipe("five tasks", partial(_tasks, tasks=5)),
    Recipe("a task too many", partial(_tasks, task=3)),
    Recipe("a task below zero", partial(_tasks, task=-1)),
)
