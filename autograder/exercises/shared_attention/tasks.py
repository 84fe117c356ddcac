"""Exercise `SharedAcrossTasks`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from autograder.checks import Check, Parameter, Target
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.customary import COUNTS, FORMULA, OUTPUTS, conduct, of_positions
from autograder.checks.sharing import TasksSubject, own_heads, tasks_learn
from autograder.checks.structure import responds
from autograder.checks.weights import weights_agree
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.shared_attention.module_cases import TASK_RECIPES
from autograder.exercises.shared_attention.variants import block, chosen, linear, made_by
from autograder.oracle.sharing import task_attention

__all__ = ["SHARED_ACROSS_TASKS"]

RESULTS = (FORMULA, "weights")
SQUARE = ("d_model", "d_model")
SHARED = ("q_proj", "k_proj", "v_proj")
APPLIED = "The layer exists. Is it applied where the formula has it?"
HEAD = "The output of a task comes from heads[task] and from no other."


def _variant(
    x: Tensor,
    task: int,
    *,
    head: str = "",
    names: tuple[str, str, str] = SHARED,
    **options: Any,
) -> Mapping[str, Tensor]:
    """The module with knobs; those of `block`. head: the head that is read, instead of the task's own."""
    return block(x, names=(*names, head or f"heads.{task}"), **options)


def _all_heads(x: Tensor, task: int, *, mean: bool, **weights: Any) -> Mapping[str, Tensor]:
    heads = [name for name in weights if name.startswith("heads.") and not name.endswith("_bias")]
    shared = block(x, names=(*SHARED, heads[0]), used=(True, True, True, False), **weights)
    total = sum((linear(shared["output"], weights, name) for name in heads), start=x.new_zeros(()))
    return {"output": total / len(heads) if mean else total, "weights": shared["weights"]}


def _last_head(x: Tensor, task: int, **weights: Any) -> Mapping[str, Tensor]:
    heads = [name for name in weights if name.startswith("heads.") and not name.endswith("_bias")]
    return _variant(x, task, head=heads[-1], **weights)


def _next_head(x: Tensor, task: int, *, step: int, **weights: Any) -> Mapping[str, Tensor]:
    return _variant(x, task, head=f"heads.{task + step}", **weights)


def _mistakes() -> tuple[Mistake, ...]:
    def mistake(name: str, question: str, **options: Any) -> Mistake:
        return Mistake(name, question, partial(_variant, **options))

    slips = chosen(
        "not scaled",
        "divided by D",
        "softmax over the queries",
        "softmax over the second axis",
        "no softmax",
        "sigmoid of each score",
        "output made of the scores, not of the weights",
        "scores returned as weights",
    )
    return (
        mistake("every task reads the first head", HEAD, head="heads.0"),
        Mistake("every task reads the last head", HEAD, _last_head),
        Mistake("task counted from one", HEAD + " Tasks count from 0.", partial(_next_head, step=-1)),
        Mistake("heads added up", HEAD, partial(_all_heads, mean=False)),
        Mistake("heads averaged", HEAD, partial(_all_heads, mean=True)),
        mistake("head never applied", APPLIED, used=(True, True, True, False)),
        mistake("queries not projected", APPLIED, used=(False, True, True, True)),
        mistake("keys not projected", APPLIED, used=(True, False, True, True)),
        mistake("values not projected", APPLIED, used=(True, True, False, True)),
        mistake("keys made by q_proj", "Which layer makes the keys?", names=("q_proj", "q_proj", "v_proj")),
        mistake("keys made by v_proj", "Which layer makes the keys?", names=("q_proj", "v_proj", "v_proj")),
        mistake(
            "projections without their biases",
            "Are the layers called, or only their weights used?",
            bias=False,
        ),
        mistake(
            "input added to the output",
            "The residual connection belongs to the block around this module. Is x added here?",
            finish=lambda output, x, weights: output + x,
        ),
        *(mistake(name, question, knobs=knobs) for name, question, knobs in slips),
    )


SHARED_ACROSS_TASKS = Exercise(
    name="SharedAcrossTasks",
    assignment="shared_attention",
    target=Target("SharedAcrossTasks", OUTPUTS, task_attention),
    positional=("x", "task"),
    parameters=tuple(Parameter(name, SQUARE, bias=True) for name in SHARED),
    used_as=TasksSubject,
    recipes=TASK_RECIPES,
    checks=(
        Check(
            COUNTS,
            "the results change with x, also with x at other positions",
            0.25,
            ("unequal sizes",),
            responds({"x": OUTPUTS}, mixing="x"),
        ),
        Check(
            FORMULA,
            "heads[task] of the values averaged by attention",
            1.0,
            ("unequal sizes", "all sizes equal", "large scores", "the first task"),
            agrees("output"),
            COUNTS,
        ),
        Check(
            "weights",
            "the second result is the weights, rows summing to 1",
            0.5,
            ("unequal sizes", "large scores", "long sequences"),
            weights_agree(made_by("v_proj", lambda inputs: f"heads.{inputs['task']}")),
            COUNTS,
        ),
        Check(
            "one attention, own heads",
            "tasks share their weights, and each output comes from its own head alone",
            1.0,
            ("five tasks",),
            own_heads(),
            COUNTS,
        ),
        Check(
            "tasks that do not exist",
            "are refused with a ValueError",
            0.5,
            ("a task too many", "a task below zero"),
            raises_value_error("task is not checked"),
            COUNTS,
        ),
        *of_positions(RESULTS),
        *conduct(RESULTS, tasks_learn()),
    ),
    mistakes=_mistakes(),
    hints=(
        "What do all tasks have in common here, and what does each have to itself?",
        (
            "q_proj, k_proj and v_proj are made once; nn.ModuleList holds one head for each task. forward "
            "computes one attention and passes its output through one head."
        ),
        (
            "`self.heads = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(num_tasks))`; in forward "
            "refuse a task outside 0..len(self.heads) - 1 with ValueError, and return "
            "`self.heads[task](weights @ value), weights`."
        ),
    ),
)
