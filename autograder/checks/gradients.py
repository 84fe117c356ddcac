"""Gradients: present, finite, and the derivative of the function they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Layer
from autograder.checks.check import Probe
from autograder.checks.failure import Failure, student_code
from autograder.checks.subject import ModuleSubject
from autograder.checks.trial import Trial

__all__ = ["differentiable", "every_parameter_learns", "works_as_made"]

TOLERANCE = 1e-4
"""Of the gradient's largest element."""


def differentiable(outputs: tuple[str, ...]) -> Probe:
    """Each output has a gradient with respect to the inputs it depends on, equal to that of the formula.

    The case must be float64. Compared are the gradients of a sum of the output's elements with random factors, element
    by element: no factor is zero, and none agree, so that nothing cancels. Rounding is below 1e-12 there; 1e-4 also
    lets through a result computed in float32, which has a check of its own, and stays far below any wrong gradient.
    """

    def probe(trial: Trial) -> None:
        leaves = {name: trial.inputs[name].clone().requires_grad_() for name in trial.differentiable}
        results = trial(**leaves)
        for name in outputs:
            _require_gradients(trial, name, results[name], leaves)

    return probe


def _require_gradients(trial: Trial, output: str, result: Tensor, leaves: Mapping[str, Tensor]) -> None:
    if not result.requires_grad:
        raise Failure(
            f"{output} carries no gradient at all. Is something detached, turned into numpy, or under no_grad?",
            mistake="gradient is cut off",
        )
    exact = {name: leaf.detach().clone().requires_grad_() for name, leaf in leaves.items()}
    reference = trial.target.formula(**trial.changed(**exact))[output].value
    factors = trial.draw.normal(*reference.shape, dtype=torch.float64)
    wanted = torch.autograd.grad((reference * factors).sum(), list(exact.values()), allow_unused=True)
    try:
        found = torch.autograd.grad(
            (result * factors).sum(), list(leaves.values()), allow_unused=True, retain_graph=True
        )
    except RuntimeError as failure:
        raise Failure(
            f"backward() raised {type(failure).__name__}: {str(failure)[:300]}",
            mistake="overwrites what backward() needs" if "inplace operation" in str(failure) else None,
            errored=True,
        ) from failure
    largest = max(float(want.abs().max()) for want in wanted if want is not None)
    for name, want, have in zip(leaves, wanted, found, strict=True):
        if want is None or float(want.abs().max()) <= 1e-12 * largest:
            continue  # this input does not matter: what is there is rounding
        if have is None or not bool((have != 0).any()):
            raise Failure(
                f"no gradient of {output} reaches {name}. Is it used, and is it detached anywhere?",
                mistake="gradient is cut off",
            )
        if not bool(torch.isfinite(have).all()):
            raise Failure(
                f"the gradient of {output} with respect to {name} is nan or inf.", mistake="nan gradients"
            )
        error = float((have - want).abs().max() / want.abs().max())
        if error > TOLERANCE:
            raise Failure(
                f"the gradient of {output} with respect to {name} is off by {error:.3g} times its largest element. "
                "Is a part of the computation detached, under no_grad, or rounded?",
                mistake="wrong gradient",
            )


def every_parameter_learns(output: str = "output") -> Probe:
    """Every parameter that the module holds gets a gradient, none is forgotten, and the formula has them all."""

    def probe(trial: Trial) -> None:
        if not isinstance(trial.subject, ModuleSubject):
            return
        if untrained := trial.subject.untrained(trial.case):
            raise Failure(
                f"training would not change {', '.join(untrained)}. Is each an nn.Parameter or a layer set in __init__, and "
                "neither a buffer nor frozen by requires_grad=False?",
                mistake="weights are not trainable",
            )
        trainable = trial.subject.trainable(trial.case)
        given = trial.fresh()
        result = trial.named(trial.subject.call_with(trial.case, given, trainable))[output]
        if not result.requires_grad:
            raise Failure(f"no gradient of {output} reaches any parameter.", mistake="gradient is cut off")
        gradients = torch.autograd.grad(result.square().sum(), list(trainable.values()), allow_unused=True)
        for name, gradient in zip(trainable, gradients, strict=True):
            # A bias of the keys shifts all scores of a row alike: its gradient is rightly zero, but it is there.
            if gradient is None and _matters(trial, trial.subject, trainable, name, result, output):
                raise Failure(
                    f"parameter {name} changes {output}, but gets no gradient. Is a part of it detached or under no_grad?",
                    mistake="gradient is cut off",
                )
            if gradient is None:
                raise Failure(
                    f"parameter {name} gets no gradient: it is created but never used. Is it applied in forward?",
                    mistake="a parameter is never used",
                )
        if surplus := trial.subject.surplus(trial.case):
            raise Failure(
                f"the module learns {', '.join(surplus)}, too, which the formula does not have. Should it be there?",
                mistake="a parameter that the formula does not have",
            )

    return probe


def _matters(
    trial: Trial,
    subject: ModuleSubject,
    trainable: Mapping[str, Tensor],
    name: str,
    result: Tensor,
    output: str,
) -> bool:
    """Whether another value of a parameter gives another result."""
    other = {**trainable, name: trial.draw.normal(*trainable[name].shape, dtype=trainable[name].dtype)}
    return not torch.equal(trial.named(subject.call_with(trial.case, trial.inputs, other))[output], result)


def works_as_made(output: str = "output") -> Probe:
    """With the weights that its constructor gives it, the module takes the case's inputs, and training can begin.

    Every other check puts weights of its own in their place. The case must be of the default dtype. One weight that
    starts at zero, as that of a last layer may, still learns, but not where it has no gradient either. A weight whose numbers
    are all alike has units that stay alike; no two objects hold the same parameter, or start with the same random numbers.
    """

    def probe(trial: Trial) -> None:
        if not isinstance(trial.subject, ModuleSubject):
            return
        module = trial.subject.module(trial.case)
        start = {
            n: held.detach().clone().requires_grad_(held.requires_grad)
            for n, held in module.named_parameters()
        }
        given = trial.fresh()
        try:
            with student_code():
                raw = trial.subject.call_with(trial.case, given, start)
        except Failure as failure:
            raise Failure(
                f"with the weights that it is made with, it {failure.message.rstrip('.')}. Do they have the default dtype?",
                mistake="does not work as it is made",
                errored=True,
            ) from failure
        result = trial.named(raw)[output]
        if not bool(torch.isfinite(result).all()):
            raise Failure(
                f"with the weights that it is made with, {output} holds nan or inf. Do all weights get start values, or is "
                "one left as torch.empty made it?",
                mistake="unusable start values",
            )
        factors = trial.draw.normal(*result.shape, dtype=result.dtype)
        weights = [n for n in start if start[n].requires_grad and not n.endswith("bias")]
        if not result.requires_grad or not weights:
            return  # another check says so
        gradients = torch.autograd.grad(
            (result * factors).sum(), [start[n] for n in weights], allow_unused=True
        )
        _require_different(module, weights)
        second, common = trial.subject.beside(trial.case)
        if common:
            raise Failure(
                "two objects of the class hold the same parameter, so that training one changes the other. Is a layer made "
                "once for the class, and not in __init__?",
                mistake="objects share what they hold",
            )
        if not any(isinstance(one, Layer) for one in trial.case.init.values()):
            _require_drawn(module, second, weights)
        stuck = [n for n, one in zip(weights, gradients, strict=True) if not _any(start[n]) and not _any(one)]
        if stuck:
            raise Failure(
                f"{stuck[0]} starts at zero, where its gradient is zero, too: it never learns. Should it start at random?",
                mistake="unusable start values",
            )
        if not any(_any(one) for one in gradients):
            raise Failure(
                "with the weights that it is made with, the gradient of every weight is zero, so training would not "
                "change them. Do they all start at zero?",
                mistake="unusable start values",
            )

    return probe


def _any(numbers: Tensor | None) -> bool:
    """Whether any of them is not zero."""
    return numbers is not None and bool((numbers != 0).any())


def _require_drawn(module: Any, second: Any, weights: list[str]) -> None:
    """Raises: Failure if the random numbers with which a second object starts are those of the first."""
    one, other = dict(module.named_parameters()), dict(second.named_parameters())
    random = [
        n for n in weights if one[n].dim() > 1 and 2 * one[n].unique().numel() > one[n].numel()
    ]  # no identity
    if random and all(n in other and torch.equal(one[n], other[n]) for n in random):
        raise Failure(
            "a second object of the class starts with the same random numbers as the first. Is a seed set in __init__? Then "
            "all layers of a model start alike, and the caller's random numbers repeat.",
            mistake="sets the seed of random numbers",
        )


def _require_different(module: Any, weights: list[str]) -> None:
    """Raises: Failure if a matrix of the module starts with all its numbers alike, other than zero."""
    held = dict(module.named_parameters())
    for name in weights:
        numbers = held[name].detach()
        if (
            numbers.dim() > 1
            and min(numbers.shape) > 1
            and _any(numbers)
            and bool((numbers == numbers.flatten()[0]).all())
        ):
            raise Failure(
                f"all numbers of {name} start alike, at {float(numbers.flatten()[0]):.3g}: what it makes stays alike for ever. "
                "Should they start at random?",
                mistake="unusable start values",
            )
