"""Conduct: how a result is computed. Inputs left alone, dtypes kept, memory layout ignored, rules and cost respected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.deadline import OutOfTime
from autograder.checks.failure import Failure
from autograder.checks.trial import Trial
from autograder.observation import Observation

__all__ = [
    "FUSED",
    "SOFTMAX",
    "Allowance",
    "affordable",
    "half_the_pairs",
    "inputs_untouched",
    "obeys",
    "observed",
    "reported",
    "strided",
]

SOFTMAX = frozenset(
    {"softmax", "log_softmax", "_softmax", "_log_softmax", "softmin", "_safe_softmax", "_masked_softmax"}
)
FUSED = frozenset(
    {
        "scaled_dot_product_attention",
        "_scaled_dot_product_attention_math",
        "_scaled_dot_product_flash_attention_for_cpu",
        "flex_attention",
        "multi_head_attention_forward",
        "_native_multi_head_attention",
    }
)


def observed(trial: Trial, *, backward: bool = False) -> Observation:
    """What a call does on numbers that no call before it has met: an answer from memory would show nothing.

    backward: of its gradient, too. Raises: Failure if the student's code raises.
    """
    fresh = {
        n: trial.draw.normal(*trial.inputs[n].shape, dtype=trial.inputs[n].dtype).requires_grad_(backward)
        for n in trial.differentiable
    }
    return reported(lambda: trial.subject.observe(trial.case, trial.changed(**fresh)))


def reported(observe: Callable[[], Observation]) -> Observation:
    """The observation. Raises: Failure if the student's code raises."""
    try:
        return observe()
    except (Failure, OutOfTime, KeyboardInterrupt):
        raise
    except BaseException as error:  # a student's sys.exit is a student's mistake, too
        raise Failure(f"raised {type(error).__name__}: {str(error)[:300]}", errored=True) from error


def inputs_untouched() -> Probe:
    """The call writes into none of its inputs."""

    def probe(trial: Trial) -> None:
        modified = observed(trial).modified
        if modified:
            raise Failure(
                f"the call changed its input {', '.join(modified)}. Is there an in-place operation (-=, *=, a trailing "
                "underscore, an indexed assignment)?",
                mistake="changes its inputs in place",
            )

    return probe


def strided(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers in other layouts: with gaps along the last axis, and axes stored in another order.

    Neighbours are laid out differently, so that the strides of one are not those of the next; and no two axes lie as they
    would in a contiguous tensor, where one stride follows from another.
    """
    return {name: _laid_out(value, place % 2 == 1) for place, (name, value) in enumerate(tensors.items())}


def _laid_out(value: Tensor, shuffled: bool) -> Tensor:
    """Axes stored back to front, every second element of a larger buffer; or every other axis first, every third."""
    if not value.dim():
        return value.clone()
    axes = list(range(value.dim()))
    order, gap = (axes[1::2] + axes[::2], 3) if shuffled else (axes[::-1], 2)
    sizes = [*value.shape[:-1], gap * value.shape[-1]]
    view = value.new_zeros([sizes[axis] for axis in order]).permute([order.index(axis) for axis in axes])
    return view[..., ::gap].copy_(value)


def obeys(forbidden: frozenset[str], what: str) -> Probe:
    """None of the forbidden torch functions is called. A deterrent: a person should look at what it flags."""

    def probe(trial: Trial) -> None:
        try:
            used = observed(trial).calls & forbidden
        except Failure as failure:
            trial.run(trial.fresh())  # what raises unwatched, too, is another mistake
            raise Failure(
                f"runs, but not while its calls are watched: it {failure.message}",
                mistake="cannot be watched",
            ) from failure
        if used:
            raise Failure(
                f"calls {', '.join(sorted(used))}; this exercise asks you to write out {what} yourself.",
                mistake="uses a forbidden function",
            )

    return probe


Allowance = Callable[[Mapping[str, Any]], int]
"""The inputs of a case -> elements, or floating-point operations."""


def half_the_pairs(inputs: Mapping[str, Any]) -> int:
    """Half as many elements as there are pairs of a query and a key: on a long sequence, plenty for linear work."""
    query, key = inputs["query"], inputs["key"]
    return int(query[..., 0].numel() * key.shape[-2] // 2)


def affordable(flops: Allowance, largest: Allowance, made: Allowance | None = None) -> Probe:
    """The counted work of the matrix products, and the largest tensor made, stay within what the formula needs.

    `flops` and `largest` give the allowance for the case's inputs: floating-point operations and elements. made: of
    the elements of all tensors, one after the other; products that are multiplied and summed by hand show there.
    """

    def probe(trial: Trial) -> None:
        seen, inputs = observed(trial), trial.inputs
        for got, allowed, unit, mistake in (
            (seen.flops, flops(inputs), "floating-point operations", "does too much work"),
            (seen.largest, largest(inputs), "elements in its largest tensor", "uses too much memory"),
            (
                seen.made,
                made(inputs) if made else seen.made,
                "elements in all its tensors",
                "does too much work",
            ),
        ):
            if got > allowed:
                raise Failure(
                    f"takes {got:,} {unit}; {allowed:,} are enough. Is something computed for pairs that do not belong "
                    "together, or twice?",
                    mistake=mistake,
                )

    return probe
