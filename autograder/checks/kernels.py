"""Kernels: the work is done in Triton, fits the GPU it is meant for, and writes all that it returns."""

from __future__ import annotations

import re

from autograder.checks.check import Probe
from autograder.checks.conduct import FUSED, SOFTMAX, observed
from autograder.checks.failure import Failure
from autograder.checks.trial import Trial
from autograder.kernels import H200, cross_compile

__all__ = ["PRODUCTS", "STRAY", "fits_the_gpu", "launched", "overwritten"]

PRODUCTS = frozenset(
    {"matmul", "mm", "bmm", "baddbmm", "addmm", "einsum", "linear", "mv", "tensordot", "dot"}
)
LONGEST_ERROR = 300
STRAY = "reads or writes outside its tensors"
"""The mistake of a kernel that crashes its process."""
TELLING = re.compile(r"\w*(Error|error|Exception)\b")


def launched(forbidden: frozenset[str] = PRODUCTS | SOFTMAX | FUSED, *, backward: bool = False) -> Probe:
    """At least one kernel is launched, and torch does none of the `forbidden` work itself. A deterrent.

    backward: look at the backward pass, too.
    """

    def probe(trial: Trial) -> None:
        seen = observed(trial, backward=backward)
        if not seen.launches:
            raise Failure(
                "launches no Triton kernel. Does the function call kernel[grid](...)?",
                mistake="launches no kernel",
            )
        used = seen.calls & forbidden
        if used:
            raise Failure(
                f"calls {', '.join(sorted(used))} of torch; here this is the kernel's work.",
                mistake="uses a forbidden function",
            )

    return probe


def fits_the_gpu(*, most_spilled: int = 0, backward: bool = False) -> Probe:
    """Each kernel that is launched builds for an H200, within its shared memory, and spills at most so many bytes a thread.

    No GPU is needed for it. backward: look at the backward pass, too.
    """

    def probe(trial: Trial) -> None:
        launches = observed(trial, backward=backward).launches
        for launch, built in zip(launches, cross_compile(launches), strict=True):
            if built.error:
                raise Failure(
                    f"{launch.kernel} runs in the interpreter but does not compile for {H200.name}: "
                    f"{_short(built.error)}",
                    mistake="does not compile for a GPU",
                )
            if built.shared > H200.shared:
                raise Failure(
                    f"{launch.kernel} needs {built.shared:,} bytes of shared memory for a program; {H200.name} has "
                    f"{H200.shared:,}. Are the blocks too large, or the stages too many?",
                    mistake="needs too much shared memory",
                )
            if built.spilled > most_spilled:
                raise Failure(
                    f"{launch.kernel} keeps {built.spilled:,} bytes a thread outside its {H200.registers} registers; "
                    f"{most_spilled:,} are all right. Are the blocks too large for {launch.num_warps} warps?",
                    mistake="spills registers",
                )

    return probe


def _short(error: str) -> str:
    """The last line of a compiler's error that names one; before it, the source is quoted and pointed at."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    telling = [line for line in lines if TELLING.match(line)]
    return (telling or lines or ["no reason given"])[-1][:LONGEST_ERROR]


def overwritten(*, backward: bool = False) -> Probe:
    """Every element of the results is written. backward: so are the gradients'."""

    def probe(trial: Trial) -> None:
        seen = observed(trial, backward=backward)
        if seen.unwritten:
            raise Failure(
                f"leaves {seen.unwritten:,} elements of its results as torch.empty found them. Does the grid cover every "
                "row, and the mask of the store every element?",
                mistake="leaves results unwritten",
            )

    return probe
