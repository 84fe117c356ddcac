"""Exercise `SharedLayerStack`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from autograder.case import Draw, Layer, Recipe
from autograder.checks import Check, Target
from autograder.checks.check import in_turn
from autograder.checks.gradients import every_parameter_learns
from autograder.checks.sharing import StackSubject, depth_is_refused, one_copy
from autograder.checks.structure import agrees_with_slices, responds
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.sharing import layer_stack
from autograder.situations import (
    DTYPES,
    MODULE_AXES,
    ONE_LENGTH,
    Factor,
    Group,
    Situations,
    drawn_by,
    groups,
    without,
)
from autograder.situations.factors import WEIGHTS
from autograder.situations.space import GRADIENT

__all__ = ["SHARED_LAYER_STACK"]

FORMULA = "agrees with the formula"
X = {"x": "... S d_model"}
_x = drawn_by(X, leading=1, low=3, free="hidden", init={"hidden": "hidden"})
LAYERS: Mapping[str, Callable[[int, int], tuple[Any, ...]]] = {
    "a linear layer": lambda d, hidden: ("Linear", d, d),
    "a residual block with a buffer": lambda d, hidden:
        ("Residual", Layer("Sequential", Layer("Linear", d, d), Layer("Tanh")), d),
    "a layer of several, with dropout": lambda d, hidden:
        ("Sequential", Layer("Linear", d, hidden), Layer("Dropout", 0.5), Layer("Tanh"), Layer("Linear", hidden, d, bias=False)),
    "a layer that mixes the first axis": lambda d, hidden: ("Sequential", Layer("Linear", d, d, bias=False), Layer("Centred")),
}  # fmt: skip


def draw(draw: Draw, *, layer: str = "a linear layer", depth: int = 0, **options: Any) -> dict[str, Any]:
    """x (..., S, d_model), a layer of that width, and a depth (3 to 5 where it is 0)."""
    inputs = _x(draw, **options)
    kind, *args = LAYERS[layer](inputs["x"].shape[-1], inputs.pop("init")["hidden"])
    made = Layer(kind, *args, seed=draw.integer(0, 2**31))
    return {**inputs, "layer": made, "depth": depth or draw.integer(3, 5)}


def _turning(draw: Draw, inputs: dict[str, Any]) -> dict[str, Any]:
    """So many layers that x would be forgotten, but for weights that exchange the features, and do nothing else."""

    def weights(given: Mapping[str, Any]) -> dict[str, Tensor]:
        square = {n: w for n, w in given.items() if isinstance(w, Tensor) and n.endswith("weight")}
        return {n: torch.eye(*w.shape, dtype=w.dtype).roll(1, 0) for n, w in square.items()}

    return {**inputs, "depth": draw.integer(37, 43), WEIGHTS: weights}


def _times(factor: float, half: float) -> Callable[[Draw, dict[str, Any]], dict[str, Any]]:
    """x times a factor, another one in half precision."""
    return lambda draw, inputs: inputs | {"x": inputs["x"] * (half if inputs["x"].itemsize == 2 else factor)}


LENGTHS = without(ONE_LENGTH, "two positions", "as many positions as features")
FACTORS: Mapping[str, Factor] = {
    "layer": {name: {"layer": name} for name in LAYERS},
    "depth": {"some layers": {}, "one layer": {"depth": 1}, "two layers": {"depth": 2}, "forty layers": _turning},
    "numbers": {"ordinary numbers": {}, "huge numbers": _times(1e4, 16.0), "tiny numbers": _times(1e-4, 2.0**-6)},
    "lengths": LENGTHS,
    "dtype": DTYPES,
    "axes": MODULE_AXES,
}  # fmt: skip


def _stacked(
    x: Tensor,
    layer: Layer,
    depth: int,
    *,
    times: Callable[[int], int] = lambda depth: depth,
    step: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda after, before, first: after,
    **weights: Tensor,
) -> Tensor:
    """The stack in steps. times: depth -> how often the layer acts. step: what is made of its output, its input and x."""
    module, state = layer.build().double().eval(), x
    for _ in range(times(depth)):
        state = step(torch.func.functional_call(module, weights, (state,)), state, x)
    return state


def _mean(x: Tensor, layer: Layer, depth: int, **weights: Any) -> Tensor:
    return torch.stack([_stacked(x, layer, n, **weights) for n in range(1, depth + 1)]).mean(0)


SLIPS: Slips = {
    "Is x handed back as it came?": {"layer never applied": {"times": lambda depth: 0}},
    "How often does the layer act for depth 1, and how often for depth 3?": {
        "applied once, whatever the depth": {"times": lambda depth: 1},
        "applied a fixed number of times": [{"times": lambda depth, n=n: n} for n in (2, 3, 4, 6)],
        "applied once too often": {"times": lambda depth: depth + 1},
        "applied once too seldom": {"times": lambda depth: depth - 1},
        "applied twice as often": {"times": lambda depth: 2 * depth},
    },
    "The stack is layer(layer(...layer(x))). Is anything added or normalised between?": {
        "input of each depth added to its output": {"step": lambda after, before, first: after + before},
        "x added at every depth": {"step": lambda after, before, first: after + first},
        "layer norm between the depths": {"step": lambda after, before, first: layer_norm(after, after.shape[-1:])},
    },
    "The last depth gives the output. Are the depths averaged?": {"mean over the depths": _mean},
}  # fmt: skip

SHARED_LAYER_STACK = Exercise(
    name="SharedLayerStack",
    assignment="shared_attention",
    target=Target("SharedLayerStack", ("output",), layer_stack),
    positional=("x",),
    parameters=(),
    used_as=StackSubject,
    situations=Situations(
        draw=draw,
        factors=FACTORS,
        axes=X,
        groups=groups(
            "the layer applied depth times, one after the other", 1.25,
            (Group("layers", "any layer: residual, of several with dropout, one that mixes its batch", 0.5, ("layer", "numbers")),
             Group("depths", "one is the layer itself, forty are forty", 0.5, ("depth",))),
            lengths=0.25, gradient=0.5, dtypes=0.25, calls=0.25,
        ),
        never=(
            {"layer": "a layer of several, with dropout", "mode": "train mode"},
            {"depth": "forty layers", "lengths": tuple(LENGTHS)[1:]},
            {"depth": "forty layers", "layer": tuple(LAYERS)[1:]},  # of the others nothing but rounding would be left
            # The slope of tanh at a huge number is what rounding leaves of it.
            {"layer": tuple(LAYERS)[1:3], "numbers": "huge numbers", "gradient": GRADIENT},
        ),
        module=True,
    ),
    recipes=(Recipe("plain", draw),),
    checks=(
        Check(
            "one copy", "the stack learns the numbers of its layer, at every depth, and all of them", 2.5, ("plain",),
            in_turn(one_copy(), every_parameter_learns()), FORMULA,
        ),
        Check("depth below 1", "is refused with a ValueError", 0.25, ("plain",), depth_is_refused(0, -2), FORMULA),
    ),
    diagnoses={"": (responds({"x": ("output",)}), agrees_with_slices({"x": 1}, ("output",)))},
    mistakes=slips(_stacked, SLIPS, output="output"),
    hints=(
        "How many layers does the stack hold, and how many times does forward call it?",
        "Set the layer that you are handed as one attribute, so that its parameters are registered once. "
        "The depth is a number, not a list of layers.",
        "`self.layer, self.depth = layer, depth` after `super().__init__()`; in forward "
        "`for _ in range(self.depth): x = self.layer(x)`. Refuse depth < 1 with ValueError.",
    ),
)  # fmt: skip
