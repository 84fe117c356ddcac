"""What all kernels of this assignment must respect once their results are right."""

from __future__ import annotations

from autograder.checks import Check
from autograder.checks.agreement import raises_value_error
from autograder.checks.conduct import FUSED, SOFTMAX, dtype_kept, inputs_untouched, repeatable
from autograder.checks.kernels import PRODUCTS, fits_the_gpu, launched, overwritten

__all__ = ["COUNTS", "FORMULA", "GPU", "REDUCTIONS", "conduct", "refuses_bfloat16"]

COUNTS = "every input counts"
FORMULA = "agrees with the formula"
GPU = "eight wide, float16"
"""Label of the case whose kernels are built: tensor cores ask more of a tile than arithmetic in float32 does."""
REDUCTIONS = frozenset({"exp", "exp2", "exp_", "exp2_", "sum", "amax", "max", "logsumexp", "cumsum", "mean"})


def conduct(
    needs: tuple[str, ...],
    outputs: tuple[str, ...],
    case: str,
    *,
    built: str | None = GPU,
    half: tuple[str, ...] = ("float16",),
    kept: tuple[str, ...] = (),
    forbidden: frozenset[str] = PRODUCTS | SOFTMAX | FUSED,
    backward: bool = False,
) -> tuple[Check, ...]:
    """dtype, inputs, layout, and that Triton does the work, on a GPU as well.

    case: label of the recipe; built: of that whose kernels are built for a GPU, if it is another. half: those in half
    precision. outputs have the inputs' dtype. kept: inputs that stay the same when others are drawn. backward: look at
    the backward pass, too.
    """
    return (
        Check("dtype", "float16 in, float16 out, with its precision", 0.25, half, dtype_kept(outputs), needs),
        Check("inputs untouched", "no input is written to", 0.25, (case,), inputs_untouched(), needs),
        Check(
            "layout",
            "strides and earlier calls do not matter",
            0.5,
            (case,),
            repeatable(outputs, kept),
            needs,
        ),
        Check(
            "own kernel",
            "Triton does the work, not torch",
            0.5,
            (case,),
            launched(forbidden, backward=backward),
            needs,
        ),
        Check(
            "fits a GPU",
            "each kernel compiles for sm_90, within shared memory and registers",
            0.5,
            (built or case,),
            fits_the_gpu(backward=backward),
            needs,
        ),
        Check(
            "fully written",
            "every element of a result is stored",
            0.25,
            (case,),
            overwritten(backward=backward),
            needs,
        ),
    )


def refuses_bfloat16(needs: str = COUNTS) -> Check:
    """The interpreter misreads bfloat16 without a word."""
    return Check(
        "bfloat16 on the CPU",
        "is refused with a ValueError, as the interpreter misreads it",
        0.25,
        ("bfloat16",),
        raises_value_error("bfloat16 is not refused on the CPU"),
        needs,
    )
