"""Gradients: present, finite, and the derivative of the function they belong to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.subject import ModuleSubject
from autograder.checks.trial import Trial

__all__ = ["differentiable", "every_parameter_learns"]


def differentiable(outputs: tuple[str, ...]) -> Probe:
    """Each output has a gradient with respect to the inputs it depends on, equal to its finite differences.

    The case must be float64: a central difference with step 1e-6 then has an error of about 1e-9, and the tolerance of
    1e-5 lies four orders above it and three below a 2 % error.
    """

    def probe(trial: Trial) -> None:
        names = trial.differentiable
        leaves = [trial.inputs[name].clone().requires_grad_() for name in names]

        def function(*values: Tensor) -> tuple[Tensor, ...]:
            results = trial.named(trial.run(trial.changed(**dict(zip(names, values, strict=True)))))
            return tuple(results[name] for name in outputs)

        for name, result in zip(outputs, function(*leaves), strict=True):
            _require_gradients(trial, name, result, names, leaves)
        try:
            gradcheck(function, leaves, eps=1e-6, atol=1e-5, rtol=1e-5, fast_mode=True)
        except GradcheckError as error:
            raise Failure(
                f"{' and '.join(outputs)}: the gradient that backward() gives is not the derivative of the result. "
                "Is a part of it detached, rounded, or computed outside autograd?",
                mistake="wrong gradient",
            ) from error

    return probe


def _require_gradients(trial: Trial, output: str, result: Tensor, names: tuple[str, ...], leaves: list[Tensor]) -> None:
    exact = {n: v.detach().clone().requires_grad_() for n, v in zip(names, leaves, strict=True)}
    reference = trial.target.formula(**trial.changed(**exact))[output].value
    wanted = torch.autograd.grad(reference.square().sum(), list(exact.values()), allow_unused=True)
    if not result.requires_grad:
        raise Failure(
            f"{output} carries no gradient at all. Is something detached, turned into numpy, or under no_grad?",
            mistake="gradient is cut off",
        )
    found = torch.autograd.grad(result.square().sum(), leaves, allow_unused=True, retain_graph=True)
    for name, want, have in zip(names, wanted, found, strict=True):
        if want is None or not bool((want != 0).any()):
            continue
        if have is None or not bool((have != 0).any()):
            raise Failure(
                f"no gradient of {output} reaches {name}. Is it used, and is it detached anywhere?",
                mistake="gradient is cut off",
            )
        if not bool(torch.isfinite(have).all()):
            raise Failure(f"the gradient of {output} with respect to {name} is nan or inf.", mistake="nan gradients")


def every_parameter_learns(output: str = "output") -> Probe:
    """Every parameter that the module holds gets a gradient: none is created and then forgotten."""

    def probe(trial: Trial) -> None:
        if not isinstance(trial.subject, ModuleSubject):
            return
        trainable = trial.subject.trainable(trial.case)
        if not trainable:
            raise Failure(
                "the module has no trainable parameters. Are its weights nn.Parameter or layers, set in __init__?",
                mistake="weights are not trainable",
            )
        result = trial.named(trial.subject.call_with(trial.case, trial.inputs, trainable))[output]
        if not result.requires_grad:
            raise Failure(f"no gradient of {output} reaches any parameter.", mistake="gradient is cut off")
        gradients = torch.autograd.grad(result.square().sum(), list(trainable.values()), allow_unused=True)
        for name, gradient in zip(trainable, gradients, strict=True):
            # A bias of the keys shifts all scores of a row alike: its gradient is rightly zero, but it is there.
            if gradient is None:
                raise Failure(
                    f"parameter {name} gets no gradient: it is created but never used. Is it applied in forward?",
                    mistake="a parameter is never used",
                )

    return probe
