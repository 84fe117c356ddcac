"""What all kernels of this assignment must respect, besides right results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autograder.checks import Check
from autograder.checks.agreement import raises_value_error
from autograder.checks.conduct import FUSED, SOFTMAX
from autograder.checks.fused import every_tile
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
from autograder.situations import DTYPES, Factor, Group

__all__ = ["FORMULA", "GPU", "HALF_AND_SINGLE", "LEFT_OUT", "LONG", "NAMES", "OWN", "REDUCTIONS", "SHORT", "SOME", "calls",
           "conduct", "dtypes", "heads", "own_kernel", "refuses_bfloat16", "shortened", "sizes", "tiles"]  # fmt: skip

OWN = "own kernel"
FORMULA = "agrees with the formula"
LONG, SOME, SHORT = 70_000, 160, 24
"""Lengths that a launch without running costs nothing for: a tile of LONG rows of 16 is more than Triton lets anyone have,
and LONG times SOME more than any copy of the inputs."""
GPU = "eight wide, float16"
"""Label of the case whose kernels are built: tensor cores ask more of a tile than arithmetic in float32 does."""
REDUCTIONS = frozenset({"exp", "exp2", "exp_", "exp2_", "sum", "amax", "max", "logsumexp", "cumsum", "mean"})

HALF_AND_SINGLE: Factor = {name: DTYPES[name] for name in ("float32", "float16")}
"""float64 is not asked for, and the interpreter misreads bfloat16: a check of its own says that it is refused."""

WITHOUT_GRADIENT = "gradients have an exercise of their own: autograd does not look into a kernel"
LEFT_OUT: Mapping[str, str] = {
    "device": "a launch is no function of torch: where its tensors stand shows on a GPU",
    "gradient: a gradient asked": WITHOUT_GRADIENT,
    "gradient: a gradient of one input": WITHOUT_GRADIENT,
    "gradient: activation checkpointing": WITHOUT_GRADIENT,
}  # fmt: skip
"""Circumstances that functions without a gradient leave out."""

NAMES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("terms", ""): ("sums are not kept in float32", "Large or many terms in float16: are the sums kept in float32?"),
    ("heads", ""): ("reads the wrong heads", "Query head h reads key and value head h // group, however many share one."),
    ("lengths", ""): ("fails at some sizes", "Is there a mask for the tail, wherever there is one?"),
    ("width", ""): ("fails at some sizes", "Does the tile hold all columns, and no more?"),
    ("scores", "scores of -2,000,000"): ("masked scores are not -inf", "Is what is masked lower than any score: -inf?"),
    **{("scores", level): ("overflows or underflows for large scores", "Is the running maximum taken off every score before exp?")
       for level in ("scores of tens", "scores of hundreds", "scores of -500", "scores of -100,000", "scores far below zero",
                     "huge scores")},
}  # fmt: skip
"""Names of what goes wrong at one level alone."""


def sizes(points: float, *factors: str) -> Group:
    """Lengths, widths, and what else is long or short."""
    return Group(
        "sizes", "whole tiles and tails, one of each, many, any width", points, ("lengths", "width", *factors)
    )


def heads(points: float) -> Group:
    """Which head is read."""
    return Group(
        "heads",
        "query head h reads key and value head h // group, in every batch element",
        points,
        ("heads",),
    )


def dtypes(points: float) -> Group:
    """Half precision, and what it cannot hold."""
    claim = (
        "float16 in, float16 out, with its precision, and sums in float32; the default dtype does not matter"
    )
    return Group("dtypes", claim, points, ("dtype", "terms", "default dtype"))


def calls(points: float) -> Group:
    """What must not matter."""
    claim = "strides, earlier calls and autograd's modes change nothing; no input is written to"
    return Group("calls", claim, points, ("state", "layout", "gradient"))


def own_kernel(*cases: str, forbidden: frozenset[str] = PRODUCTS | SOFTMAX | FUSED, passes: int = 2) -> Check:
    """Triton does the work. While it fails, nothing else counts but the formula: what torch gets right is no kernel's merit.

    cases: labels of the recipes. passes: as in `launched`.
    """
    return Check(
        OWN, "Triton does the work, not torch", 0.5, cases, launched(forbidden, passes=passes), FORMULA, True
    )


def tiles(case: str, *outputs: str) -> Check:
    """A GPU takes whichever configuration is the fastest; the interpreter takes the first."""
    claim = "each configuration that @triton.autotune may take gives the right result"
    return Check("every tile", claim, 0.25, (case,), every_tile(*outputs), (FORMULA, OWN))


def conduct(
    *cases: str,
    long: tuple[str, ...],
    shorter: Shorter,
    built: str = GPU,
    backward: bool = False,
    products: bool = True,
) -> tuple[Check, ...]:
    """That the kernels would do on a GPU as well.

    cases: labels of recipes, of one with several tiles among them, the plain one first. built: of that whose kernels are
    built. long: those of real length, and `shorter` what a short one has instead. backward: look at the backward pass, too.
    products: there may be some of tiles.
    """
    needs = (FORMULA, OWN)
    within = "each kernel compiles for sm_90, within shared memory and registers"
    more = "take more programs, and neither more launches nor larger tiles"
    inside = "kernels stay inside their tensors, and programs out of each other's way"
    full = Check(
        "float32 products",
        "are no TF32 products on a GPU",
        0.25,
        cases[:1],
        full_products(backward=backward),
        needs,
    )
    return (
        Check("fits a GPU", within, 0.5, (built,), fits_the_gpu(backward=backward), needs),
        Check("long inputs", more, 0.5, long, scales(shorter, backward=backward), needs),
        Check("safe access", inside, 0.5, cases, safe_access(backward=backward), needs),
        *((full,) if products else ()),
        Check(
            "fully written",
            "every element of a result is stored",
            0.25,
            cases[:1],
            overwritten(backward=backward),
            needs,
        ),
    )


def shortened(axes: Mapping[str, int], **others: Any) -> Shorter:
    """The first SHORT places of these inputs along these axes, and `others` as they are."""

    def shorter(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {n: inputs[n].narrow(axis, 0, SHORT).contiguous() for n, axis in axes.items()} | others

    return shorter


def refuses_bfloat16() -> Check:
    """The interpreter misreads bfloat16 without a word."""
    claim, probe = (
        "is refused with a ValueError, as the interpreter misreads it",
        raises_value_error("bfloat16 is not refused on the CPU"),
    )
    return Check("bfloat16 on the CPU", claim, 0.25, ("bfloat16",), probe, (FORMULA, OWN))
