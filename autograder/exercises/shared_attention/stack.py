"""Exercise `SharedLayerStack`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Layer, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.customary import COUNTS, FORMULA, conduct
from autograder.checks.gradients import every_parameter_learns
from autograder.checks.sharing import StackSubject, depth_is_refused, one_copy
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.sharing import layer_stack

__all__ = ["SHARED_LAYER_STACK"]


def _inputs(
    draw: Draw,
    *,
    depth: int = 0,
    kind: str = "tanh",
    axes: int = 2,
    dtype: torch.dtype = torch.float32,
    low: int = 2,
) -> dict[str, Any]:
    """x (..., d), a layer of that width, and a depth (3 to 5 where it is 0).

    kind: "linear" for one Linear, "tanh" for Linear and Tanh, "deep" for two of them of another width between.
    """
    *lead, d, hidden = draw.sizes(axes + 2, low=low)
    seed = draw.integer(0, 2**31)
    if kind == "linear":
        layer = Layer("Linear", d, d, seed=seed)
    elif kind == "tanh":
        layer = Layer("Sequential", Layer("Linear", d, d), Layer("Tanh"), seed=seed)
    else:
        layer = Layer(
            "Sequential", Layer("Linear", d, hidden), Layer("Tanh"), Layer("Linear", hidden, d), seed=seed
        )
    return {
        "x": draw.normal(*lead, d, dtype=dtype),
        "layer": layer,
        "depth": depth or draw.integer(3, 5),
    }


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("unequal sizes", low=4),
    _recipe("a linear layer", kind="linear"),
    _recipe("a layer of several", kind="deep"),
    _recipe("depth 1", depth=1, kind="deep"),
    _recipe("depth 2", depth=2),
    _recipe("depth 12", depth=12, kind="linear", dtype=torch.float64),  # a layer with tanh might forget x
    _recipe("three leading axes", axes=3),
    _recipe("small, float64", axes=1, kind="deep", dtype=torch.float64),
    _recipe("float64", dtype=torch.float64),
    _recipe("bfloat16", dtype=torch.bfloat16),
    _recipe("float16", dtype=torch.float16),
)


def _variant(
    x: Tensor,
    layer: Layer,
    depth: int,
    *,
    times: Callable[[int], int] = lambda depth: depth,
    step: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda after, before, first: after,
    **weights: Tensor,
) -> Mapping[str, Tensor]:
    """The stack with knobs. times: depth -> how often the layer acts. step: what is made of its output, its input and x."""
    module = layer.build().double()
    state = x
    for _ in range(times(depth)):
        made: Tensor = torch.func.functional_call(module, weights, (state,))
        state = step(made, state, x)
    return {"output": state}


def _fixed(times: int, depth: int) -> int:
    return times


def _mean(x: Tensor, layer: Layer, depth: int, **weights: Any) -> Mapping[str, Tensor]:
    states = [_variant(x, layer, n, **weights)["output"] for n in range(1, depth + 1)]
    return {"output": torch.stack(states).mean(0)}


def _mistakes() -> tuple[Mistake, ...]:
    count = "How often does the layer act for depth 1, and how often for depth 3?"
    plain = "The stack is layer(layer(...layer(x))). Is anything added or normalised between?"
    rows: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("layer never applied", "Is x handed back as it came?", {"times": lambda depth: 0}),
        ("applied once, whatever the depth", count, {"times": lambda depth: 1}),
        *(
            ("applied a fixed number of times", count, {"times": partial(_fixed, times)})
            for times in (2, 3, 4, 6)
        ),
        ("applied once too often", count, {"times": lambda depth: depth + 1}),
        ("applied once too seldom", count, {"times": lambda depth: depth - 1}),
        ("applied twice as often", count, {"times": lambda depth: 2 * depth}),
        (
            "input of each depth added to its output",
            plain,
            {"step": lambda after, before, first: after + before},
        ),
        ("x added at every depth", plain, {"step": lambda after, before, first: after + first}),
        (
            "layer norm between the depths",
            plain,
            {"step": lambda after, before, first: torch.nn.functional.layer_norm(after, after.shape[-1:])},
        ),
    )
    return (
        *(Mistake(name, question, partial(_variant, **knobs)) for name, question, knobs in rows),
        Mistake("mean over the depths", "The last depth gives the output. Are the depths averaged?", _mean),
    )


SHARED_LAYER_STACK = Exercise(
    name="SharedLayerStack",
    assignment="shared_attention",
    target=Target("SharedLayerStack", ("output",), layer_stack),
    positional=("x",),
    parameters=(),
    used_as=StackSubject,
    recipes=RECIPES,
    checks=(
        Check(COUNTS, "the result changes with x", 0.25, ("unequal sizes",), responds({"x": ("output",)})),
        Check(
            FORMULA,
            "the layer applied depth times, one after the other",
            1.0,
            ("unequal sizes", "a linear layer", "a layer of several", "depth 2"),
            agrees("output"),
            COUNTS,
        ),
        Check("depth 1", "is the layer itself", 0.25, ("depth 1",), agrees("output"), COUNTS),
        Check("depth 12", "twelve times the same layer", 0.25, ("depth 12",), agrees("output"), COUNTS),
        Check(
            "one copy",
            "the stack learns as many numbers as its layer, at every depth",
            2.0,
            ("unequal sizes",),
            one_copy(),
            FORMULA,
        ),
        Check(
            "depth below 1",
            "is refused with a ValueError",
            0.25,
            ("unequal sizes",),
            depth_is_refused(0, -2),
            COUNTS,
        ),
        Check(
            "leading axes",
            "any shape that the layer takes",
            0.25,
            ("three leading axes",),
            agrees_with_slices({"x": 1}, ("output",)),
            FORMULA,
        ),
        *conduct(
            (FORMULA,),
            every_parameter_learns(),
            ("output",),
            "backward() gives the derivative: a shared weight adds up those of all depths",
        ),
    ),
    mistakes=_mistakes(),
    hints=(
        "How many layers does the stack hold, and how many times does forward call it?",
        (
            "Set the layer that you are handed as one attribute, so that its parameters are registered once. "
            "The depth is a number, not a list of layers."
        ),
        (
            "`self.layer, self.depth = layer, depth` after `super().__init__()`; in forward "
            "`for _ in range(self.depth): x = self.layer(x)`. Refuse depth < 1 with ValueError."
        ),
    ),
)
