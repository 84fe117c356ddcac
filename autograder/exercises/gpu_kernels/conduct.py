"""What all kernels of this assignment must respect once their results are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autograder.checks import Check
from autograder.checks.agreement import raises_value_error
from autograder.checks.conduct import FUSED, SOFTMAX, dtype_kept, inputs_untouched, repeatable
from autograder.checks.kernels import (
    PRODUCTS,
    Shorter,
    fits_the_gpu,
    full_products,
    launched,
    overwritten,
    safe_access,
    scales,
)

__all__ = [
    "COUNTS",
    "FORMULA",
    "GPU",
    "LONG",
    "OWN",
    "REDUCTIONS",
    "SHORT",
    "SOME",
    "conduct",
    "own_kernel",
    "refuses_bfloat16",
    "shortened",
]

COUNTS = "every input counts"
OWN = "own kernel"
FORMULA = "agrees with the formula"
LONG, SOME, SHORT = 70_000, 160, 24
"""Lengths that a launch without running costs nothing for: a tile of LONG rows of 16 is more than Triton lets anyone have,
and LONG times SOME more than any copy of the inputs."""
GPU = "eight wide, float16"
"""Label of the case whose kernels are built: tensor cores ask more of a tile than arithmetic in float32 does."""
REDUCTIONS = frozenset({"exp", "exp2", "exp_", "exp2_", "sum", "amax", "max", "logsumexp", "cumsum", "mean"})


def own_kernel(*cases: str, forbidden: frozenset[str] = PRODUCTS | SOFTMAX | FUSED, passes: int = 2) -> Check:
    """Triton does the work. Other checks wait for it: what torch gets right is no kernel's merit.

    cases: labels of the recipes. passes: as in `launched`.
    """
    return Check(
        OWN,
        "Triton does the work, not torch",
        0.5,
        cases,
        launched(forbidden, passes=passes),
        COUNTS,
    )


def conduct(
    needs: tuple[str, ...],
    outputs: tuple[str, ...],
    case: str,
    *,
    tiles: str,
    long: tuple[str, ...],
    shorter: Shorter,
    built: str | None = GPU,
    half: tuple[str, ...] = ("float16",),
    kept: tuple[str, ...] = (),
    backward: bool = False,
    products: bool = True,
) -> tuple[Check, ...]:
    """dtype, inputs, layout, and that the kernels would do on a GPU as well.

    case: label of the recipe; tiles: of one with several tiles; built: of that whose kernels are built for a GPU, if it is
    another. half: those in half precision; long: those of real length, and `shorter` what a short one has instead.
    outputs have the inputs' dtype. kept: inputs that stay the same when others are drawn. backward: look at the backward
    pass, too. products: there may be some of tiles.
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
            "fits a GPU",
            "each kernel compiles for sm_90, within shared memory and registers",
            0.5,
            (built or case,),
            fits_the_gpu(backward=backward),
            needs,
        ),
        Check(
            "long inputs",
            "take more programs, and neither more launches nor larger tiles",
            0.5,
            long,
            scales(shorter, backward=backward),
            needs,
        ),
        Check(
            "safe access",
            "kernels stay inside their tensors, and programs out of each other's way",
            0.5,
            (case, tiles),
            safe_access(backward=backward),
            needs,
        ),
        *(
            (
                Check(
                    "float32 products",
                    "are no TF32 products on a GPU",
                    0.25,
                    (case,),
                    full_products(backward=backward),
                    needs,
                ),
            )
            if products
            else ()
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


def shortened(axes: Mapping[str, int], **others: Any) -> Shorter:
    """The first SHORT places of these inputs along these axes, and `others` as they are."""

    def shorter(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {n: inputs[n].narrow(axis, 0, SHORT).contiguous() for n, axis in axes.items()} | others

    return shorter


def refuses_bfloat16(needs: str = FORMULA) -> Check:
    """The interpreter misreads bfloat16 without a word."""
    return Check(
        "bfloat16 on the CPU",
        "is refused with a ValueError, as the interpreter misreads it",
        0.25,
        ("bfloat16",),
        raises_value_error("bfloat16 is not refused on the CPU"),
        needs,
    )
