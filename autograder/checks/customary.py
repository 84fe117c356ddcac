"""Checks that most exercises have: what a function or a module must respect once its results are right."""

from __future__ import annotations

from autograder.checks.check import Check, Probe
from autograder.checks.conduct import dtype_kept, evaluates, inputs_untouched, repeatable
from autograder.checks.gradients import differentiable

__all__ = ["COUNTS", "FORMULA", "OUTPUTS", "conduct"]

OUTPUTS = ("output", "weights")
COUNTS = "every input counts"
FORMULA = "agrees with the formula"


def conduct(
    needs: tuple[str, ...],
    parameters: Probe | None = None,
    outputs: tuple[str, ...] = OUTPUTS,
    gradient: str = "backward() gives the derivative, for inputs and weights",
    derived: tuple[str, ...] = (),
    *,
    differentiated: tuple[str, ...] = ("small, float64",),
    untouched: tuple[str, ...] = ("unequal sizes",),
    halves: tuple[str, ...] = ("bfloat16", "float16"),
) -> tuple[Check, ...]:
    """Gradient, dtype, inputs and layout; for a module its parameters and eval mode, too.

    derived: the outputs whose gradient is compared; all of them unless told. differentiated, untouched, halves: the cases
    of the gradient, of the inputs, and of half precision.
    """
    of_modules = (
        (
            Check(
                "parameters",
                "every parameter is used and learns",
                0.5,
                ("unequal sizes",),
                parameters,
                needs,
            ),
            Check("eval mode", "changes nothing", 0.25, ("unequal sizes",), evaluates(outputs), needs),
        )
        if parameters
        else ()
    )
    return (
        *of_modules,
        Check("gradient", gradient, 0.5, differentiated, differentiable(derived or outputs), needs),
        Check(
            "dtype",
            "the dtype of the inputs is kept, and its precision",
            0.25,
            ("float64", *halves),
            dtype_kept(outputs),
            needs,
        ),
        Check("inputs untouched", "no input is written to", 0.25, untouched, inputs_untouched(), needs),
        Check(
            "layout",
            "strides and earlier calls do not matter",
            0.25,
            ("unequal sizes",),
            repeatable(outputs),
            needs,
        ),
    )
