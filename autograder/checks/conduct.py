"""Conduct: how a result is computed. Inputs left alone, dtypes kept, memory layout ignored, rules and cost respected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.deadline import OutOfTime
from autograder.checks.failure import Failure
from autograder.checks.subject import ModuleSubject
from autograder.checks.trial import Trial
from autograder.observation import Observation

__all__ = [
    "FUSED",
    "SOFTMAX",
    "Allowance",
    "affordable",
    "dtype_kept",
    "evaluates",
    "half_the_pairs",
    "inputs_untouched",
    "obeys",
    "observed",
    "repeatable",
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


def dtype_kept(outputs: tuple[str, ...], *, precise: bool = True) -> Probe:
    """Results have the inputs' dtype and, in it, the precision that its rounding allows; not precise: the dtype alone."""

    def probe(trial: Trial) -> None:
        try:
            results = trial()
        except Failure as failure:
            if "without overflow" not in failure.message:
                raise
            raise Failure(
                f"{failure.message}. Is the mask value too large for {_short(trial.dtype)}? "
                "torch.finfo(scores.dtype).min never is.",
                mistake="mask value does not fit the dtype",
                errored=True,
            ) from failure
        for name in outputs:
            if results[name].dtype != trial.dtype:
                raise Failure(
                    f"{name} is {_short(results[name].dtype)} for {_short(trial.dtype)} inputs; it must keep their dtype.",
                    mistake="does not keep the dtype",
                )
            if not precise:
                continue
            trial.require(
                name,
                results[name],
                "is less precise than its dtype (is a part computed in another dtype, or a small number added?)",
                mistake="less precise than its dtype",
            )

    return probe


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def repeatable(outputs: tuple[str, ...], kept: tuple[str, ...] = ()) -> Probe:
    """Strides do not matter; other inputs of the same shape get a result of their own, and the first ones theirs again.

    kept: inputs that are the same in all calls.
    """

    def probe(trial: Trial) -> None:
        before = trial()
        tensors = {n: v for n, v in trial.inputs.items() if isinstance(v, Tensor)}
        try:
            after = trial.named(trial.run(trial.changed(**strided(tensors))))
        except Failure as failure:
            raise Failure(
                f"with non-contiguous inputs it {failure.message}",
                mistake="depends on the memory layout of its inputs",
                errored=failure.errored,
            ) from failure
        others = {
            n: v * 0.5 + 0.25 if v.is_floating_point() else v.flip(-1)
            for n, v in tensors.items()
            if n not in kept
        }
        other, again = trial(**others), trial()
        right = {name for name in outputs if trial.close(name, before[name])}
        for name in outputs:
            trial.require(
                name,
                after[name],
                "non-contiguous inputs give another result",
                expected=before[name],
                mistake="depends on the memory layout of its inputs",
            )
            if name in right:
                trial.require(
                    name,
                    other[name],
                    "after a first call, other inputs of the same shape give a wrong result",
                    mistake="keeps state between calls",
                    **others,
                )
            trial.require(
                name,
                again[name],
                "a second call on the same inputs gives another result",
                expected=before[name],
                mistake="keeps state between calls",
            )

    return probe


def evaluates(outputs: tuple[str, ...]) -> Probe:
    """A module gives the same results in eval mode as in training mode."""

    def probe(trial: Trial) -> None:
        if not isinstance(trial.subject, ModuleSubject):
            return
        module, before = trial.subject.module(trial.case), trial()
        module.eval()
        try:
            after = trial()
        finally:
            module.train()
        for name in outputs:
            trial.require(
                name,
                after[name],
                "after eval() it gives another result",
                expected=before[name],
                mistake="depends on train() or eval()",
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
