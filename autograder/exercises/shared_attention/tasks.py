"""Exercise `SharedAcrossTasks`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Parameter, Target
from autograder.checks.agreement import raises_value_error
from autograder.checks.averaging import survives_large_inputs
from autograder.checks.check import in_turn
from autograder.checks.gradients import works_as_made
from autograder.checks.sharing import TasksSubject, own_heads, tasks_learn
from autograder.checks.structure import agrees_with_slices, permutation, responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.mistakes.attention import only
from autograder.mistakes.modules import block, linear, made_by
from autograder.oracle.sharing import task_attention
from autograder.situations import (
    DTYPES,
    MODULE_AXES,
    ONE_LENGTH,
    Factor,
    Group,
    Situations,
    drawn_by,
    groups,
    module_scores,
    without,
)
from autograder.situations.space import GRADIENT

__all__ = ["SHARED_ACROSS_TASKS"]

OUTPUTS = ("output", "weights")
FORMULA = "agrees with the formula"
SQUARE = ("d_model", "d_model")
SHARED = ("q_proj", "k_proj", "v_proj")
X = {"x": "... S d_model"}
_x = drawn_by(X, init={"d_model": "d_model", "num_tasks": "tasks"}, leading=1, low=3)


def draw(draw: Draw, *, task: int = 1, tasks: int = 3, **options: Any) -> dict[str, Any]:
    """x (..., S, d_model), `tasks` tasks, and one of them."""
    return {**_x(draw, tasks=tasks, **options), "task": task}


TASKS: Factor = {
    "the second of three tasks": {},
    "the first task": {"task": 0},
    "the last task": {"task": 2},
    "the only task": {"task": 0, "tasks": 1},
    "one of eleven tasks": {"task": 7, "tasks": 11},
}
NO_TASKS = {"one task too many": 3, "far too many": 17, "a task below zero": -1, "far below zero": -3}


def _tasks(
    x: Tensor,
    task: int,
    *,
    head: Callable[[int, int], int] = lambda task, tasks: task,
    names: tuple[str, str, str] = SHARED,
    **options: Any,
) -> Mapping[str, Tensor]:
    """The module in the steps of `block`. head: task and number of tasks -> the head that is read."""
    tasks = len([name for name in options if name.startswith("heads.") and not name.endswith("_bias")])
    return block(x, names=(*names, f"heads.{head(task, tasks)}"), **options)


def _all_heads(average: bool) -> Callable[..., Mapping[str, Tensor]]:
    """The sum of what all heads make, or their mean."""

    def formula(x: Tensor, task: int, **weights: Any) -> Mapping[str, Tensor]:
        heads = [name for name in weights if name.startswith("heads.") and not name.endswith("_bias")]
        shared = block(x, names=(*SHARED, heads[0]), used=(True, True, True, False), **weights)
        total = sum((linear(shared["output"], weights, name) for name in heads), start=x.new_zeros(()))
        return {"output": total / len(heads) if average else total, "weights": shared["weights"]}

    return formula


HEAD = "The output of a task comes from heads[task] and from no other."
SLIPS: Slips = {
    HEAD: {
        "every task reads the first head": {"head": lambda task, tasks: 0},
        "every task reads the last head": {"head": lambda task, tasks: tasks - 1},
        "heads added up": _all_heads(average=False),
        "heads averaged": _all_heads(average=True),
    },
    HEAD + " Tasks count from 0.": {"task counted from one": {"head": lambda task, tasks: (task - 1) % tasks}},
    "The layer exists. Is it applied where the formula has it?": {
        "head never applied": {"used": (True, True, True, False)},
        "queries not projected": {"used": (False, True, True, True)},
        "keys not projected": {"used": (True, False, True, True)},
        "values not projected": {"used": (True, True, False, True)},
    },
    "Which layer makes the keys?": {
        "keys made by q_proj": {"names": ("q_proj", "q_proj", "v_proj")},
        "keys made by v_proj": {"names": ("q_proj", "v_proj", "v_proj")},
    },
    "Are the layers called, or only their weights used?": {"projections without their biases": {"bias": False}},
    "The residual connection belongs to the block around this module. Is x added here?": {
        "input added to the output": {"finish": lambda output, x, weights: output + x},
    },
}  # fmt: skip
ATTENTION = only(
    "not scaled", "divided by D", "softmax over the queries", "softmax over the second axis", "no softmax",
    "sigmoid of each score", "output made of the scores, not of the weights", "scores returned as weights",
)  # fmt: skip

SHARED_ACROSS_TASKS = Exercise(
    name="SharedAcrossTasks",
    assignment="shared_attention",
    target=Target("SharedAcrossTasks", OUTPUTS, task_attention),
    positional=("x", "task"),
    parameters=tuple(Parameter(name, SQUARE, bias=True) for name in SHARED),
    used_as=TasksSubject,
    situations=Situations(
        draw=draw,
        factors={
            "task": TASKS, "lengths": ONE_LENGTH, "dtype": DTYPES, "axes": MODULE_AXES,
            "scores": without(module_scores(), "huge numbers behind the mask"),
        },
        axes=X,
        groups=groups(
            "heads[task] of the values averaged by attention", 1.5,
            (Group("tasks", "tasks share their weights, and each output comes from its own head alone", 1.0, ("task",)),),
            lengths=0.5, scores=0.75, gradient=0.5, dtypes=0.25, calls=0.5,
        ),
        never=({"scores": "all scores low", "dtype": "float16", "gradient": GRADIENT},),
        module=True,
    ),
    recipes=(
        Recipe("plain", draw),
        *(Recipe(name, partial(draw, task=task)) for name, task in NO_TASKS.items()),
    ),
    checks=(
        Check("tasks that do not exist", "are refused with a ValueError", 0.5, tuple(NO_TASKS),
              raises_value_error("task is not checked"), FORMULA),
        Check("parameters", "every parameter is used and learns", 0.5, ("plain",), in_turn(tasks_learn(), works_as_made()),
              FORMULA),
    ),
    diagnoses={
        "": (
            survives_large_inputs(), responds({"x": OUTPUTS}, mixing="x"), own_heads(),
            permutation({"x": -2}, {"output": -2}, "positions"),
            weights_agree(made_by("v_proj", lambda inputs: f"heads.{inputs['task']}")), agrees_with_slices({"x": 2}, OUTPUTS),
        ),
    },
    mistakes=(*slips(_tasks, *ATTENTION, steps="knobs"), *slips(_tasks, SLIPS)),
    hints=(
        "What do all tasks have in common here, and what does each have to itself?",
        "q_proj, k_proj and v_proj are made once; nn.ModuleList holds one head for each task. forward "
        "computes one attention and passes its output through one head.",
        "`self.heads = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(num_tasks))`; in forward "
        "refuse a task outside 0..len(self.heads) - 1 with ValueError, and return "
        "`self.heads[task](weights @ value), weights`.",
    ),
)  # fmt: skip
