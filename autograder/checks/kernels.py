"""Kernels: the work is done in Triton, fits the GPU it is meant for, and writes all that it returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.conduct import FUSED, SOFTMAX, observed, reported
from autograder.checks.failure import Failure
from autograder.checks.subject import FunctionSubject
from autograder.checks.trial import Trial
from autograder.kernels import H200, cross_compile
from autograder.observation import Observation

__all__ = [
    "COPIES",
    "PRODUCTS",
    "STRAY",
    "Shorter",
    "fits_the_gpu",
    "full_products",
    "launched",
    "overwritten",
    "rehearsal",
    "safe_access",
    "scales",
]

PRODUCTS = frozenset(
    {"matmul", "mm", "bmm", "baddbmm", "addmm", "einsum", "linear", "mv", "tensordot", "dot"}
)
MOST_SPILLED = 4096
"""Bytes a thread beyond which a tile is one that grew; how few there may be at all, `fits_the_gpu` says."""

COPIES = 8
"""How many times as many elements as the largest input a tensor may have: that of a padded copy."""

MOST_PROGRAMS = 65_535
"""Along the second and the third axis of a grid."""

LONGEST_ERROR = 300
STRAY = "reads or writes outside its tensors"
"""The mistake of a kernel that crashes its process."""
GROWN = "tiles grow with the input"
ONE_SIZE = "Does a tile grow with the sequence? It should be of one size, and a loop should visit one after the other."
TOO_MANY = "exceeds triton maximum tensor numel"
"""What Triton says of a descriptor's block when it is described, before any kernel is launched."""

TELLING = re.compile(r"\w*(Error|error|Exception)\b")


def launched(
    forbidden: frozenset[str] = PRODUCTS | SOFTMAX | FUSED, *, passes: int = 2, backward: bool = False
) -> Probe:
    """At least one kernel is launched, and torch does none of the `forbidden` work itself. A deterrent.

    Otherwise torch may calculate with `passes` times as many numbers as the inputs have: enough to scale them or to put
    parts together, too few for attention by hand. backward: look at the backward pass, too.
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
        most = passes * sum(trial.inputs[name].numel() for name in trial.differentiable)
        if seen.reckoned > most:
            raise Failure(
                f"calculates with {seen.reckoned:,} numbers in torch or takes them out of it; {most:,} are plenty for what is "
                "left to do around a kernel. Is a part of the result worked out there?",
                mistake="calculates outside the kernel",
            )

    return probe


def safe_access(*, backward: bool = False) -> Probe:
    """No kernel leaves the memory of its tensors, and no program writes what another of the same launch reads or writes.

    Seen where kernels are interpreted. backward: look at the backward pass, too.
    """

    def probe(trial: Trial) -> None:
        seen = observed(trial, backward=backward)
        if seen.strayed:
            raise Failure(
                f"{', '.join(seen.strayed)} reads or writes outside the memory of its tensors, where a GPU may find nan or "
                "stop. Has every tl.load and tl.store a mask for the rows and the columns that a tile has too many of?",
                mistake=STRAY,
            )
        if seen.raced:
            raise Failure(
                f"programs of {', '.join(seen.raced)} use the same elements, and one of them writes. The interpreter runs "
                "one after the other; on a GPU they run at once, in any order. Can each element belong to one program, "
                "or be added with tl.atomic_add, or be left to a second kernel?",
                mistake="programs get into each other's way",
            )

    return probe


def full_products(*, backward: bool = False) -> Probe:
    """Float32 tiles are multiplied as such. Seen where kernels are interpreted; on a GPU the numbers show it."""

    def probe(trial: Trial) -> None:
        narrowed = observed(trial, backward=backward).narrowed
        if narrowed:
            raise Failure(
                f"on a GPU {', '.join(narrowed)} multiplies float32 tiles in TF32, with 10 of their 23 bits, as tl.dot does "
                'unless it is told otherwise. Is input_precision="ieee" missing?',
                mistake="multiplies float32 in TF32",
            )

    return probe


def rehearsal(trial: Trial, inputs: Mapping[str, Any]) -> Observation:
    """What a call does where kernels are launched, but do not run. Raises: Failure if the student's code raises."""
    subject = trial.subject
    if not isinstance(subject, FunctionSubject):
        raise TypeError("only functions launch kernels")
    return reported(lambda: subject.rehearse(trial.case, inputs))


Shorter = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""The inputs of a long case -> what takes their places in a short one."""


def scales(shorter: Shorter, *, backward: bool = False) -> Probe:
    """For a long input there are more programs, not more launches or larger tiles, and no table of all pairs.

    Kernels are launched here, and do not run: sizes can be those of real life. A kernel whose types or compile-time
    arguments are other than for the short input is built.
    """

    def probe(trial: Trial) -> None:
        def rehearsed(changes: Mapping[str, Any]) -> Observation:
            inputs = trial.changed(**changes)
            for name in trial.differentiable if backward else ():
                inputs[name] = inputs[name].detach().requires_grad_()
            try:
                return rehearsal(trial, inputs)
            except Failure as failure:
                if TOO_MANY not in failure.message:
                    raise
                raise Failure(f"{failure.message}. {ONE_SIZE}", mistake=GROWN, errored=True) from failure

        short, long = rehearsed(shorter(trial.inputs)), rehearsed({})
        if long.launched > 2 * short.launched + 8:
            raise Failure(
                f"launches {long.launched:,} kernels, and {short.launched:,} for a short input. A launch takes longer than "
                "most tiles: is the loop over them in Python?",
                mistake="launches grow with the input",
            )
        if long.launched and long.programs <= 1:
            raise Failure(
                "one program does everything, and leaves a GPU idle but for one of its more than a hundred processors. "
                "Does the grid have a program for each piece of the result?",
                mistake="one program for everything",
            )
        most = COPIES * max(value.numel() for value in trial.inputs.values() if isinstance(value, Tensor))
        if long.largest > most:
            raise Failure(
                f"makes a tensor of {long.largest:,} elements; {most:,} are plenty. Has it one for every pair of a query and "
                "a key?",
                mistake="uses too much memory",
            )
        for launch in long.launches:
            if any(size > MOST_PROGRAMS for size in launch.grid[1:]):
                raise Failure(
                    f"{launch.kernel} has a grid of {launch.grid}; a GPU takes {MOST_PROGRAMS:,} programs at most along the "
                    "second and third axis. Can the long one be the first?",
                    mistake="grid too large for a GPU",
                )
        # Among the types are the blocks of descriptors, which are tiles as well.
        known = [(one.kernel, one.signature, one.constants) for one in short.launches]
        grown = [one for one in long.launches if (one.kernel, one.signature, one.constants) not in known]
        for launch, built in zip(grown, cross_compile(grown), strict=True):
            if built.error or built.shared > H200.shared or built.spilled > MOST_SPILLED:
                needs = f"it needs {built.shared:,} bytes of shared memory and spills {built.spilled:,}"
                why = _short(built.error) if built.error else needs
                raise Failure(
                    f"{launch.kernel} does not build for {H200.name} when the input is long: {why}. {ONE_SIZE}",
                    mistake=GROWN,
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
