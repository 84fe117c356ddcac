"""Dropout on attention weights: the right rate, the right scale, in train mode only.

False alarms: the share of zeros among n weights leaves [p - t, p + t] with probability at most 2 exp(-2 n t^2)
(Hoeffding); t = sqrt(ln(2e7) / 2n) makes that 1e-7. That two rows, columns, heads or batch elements of the mask agree
everywhere by chance has a probability below 1e-9 for the case's sizes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.structure import Results
from autograder.checks.subject import ModuleSubject
from autograder.checks.trial import Trial
from autograder.checks.weights import Average
from autograder.circumstance import Circumstance

__all__ = ["drops_weights"]

FALSE_ALARM = 1e-7
AXES = {-1: "keys", -2: "queries", -3: "heads", -4: "batch elements"}


@contextlib.contextmanager
def _mode(trial: Trial, training: bool) -> Iterator[None]:
    """The student's module in that mode; afterwards in eval mode, where its results can be compared."""
    if not isinstance(trial.subject, ModuleSubject):
        raise TypeError("only a module has a mode")
    module = trial.subject.module(trial.case)
    module.train(training)
    try:
        yield
    finally:
        module.eval()


def drops_weights(made: Average, weights: str = "weights", output: str = "output") -> Probe:
    """In train mode each weight is zero with probability `dropout`, alone, the rest are divided by 1 - dropout, and
    those weights make the output. made: how the output comes from the weights and the inputs."""

    def probe(trial: Trial) -> None:
        rate = float(trial.case.init["dropout"])
        clean = trial.expect()[weights].value
        with _mode(trial, True):
            first, second = trial(), trial()
        if all(torch.equal(first[name], second[name]) for name in (weights, output)):
            raise Failure(
                f"in train mode with dropout={rate:g}, two calls give the same. "
                "Is dropout applied, and drawn anew at each call?",
                mistake="dropout never applied",
            )
        for results in (first, second):
            _require_scaled(trial, results[weights].detach(), clean, rate, weights)
        # Both calls' weights count, and two calls must differ.
        zero = torch.stack([first[weights] == 0, second[weights] == 0])
        masked = trial.inputs.get("attn_mask") is not None
        if not masked:
            _require_independent(zero)
        _require_rate(zero[:, clean > 0] if masked else zero, rate)
        for results in (first, second):
            _require_made(trial, results, made, weights, output)
        _require_everywhere(trial)
        _require_gradient(trial, output)

    return probe


def _require_scaled(trial: Trial, got: Tensor, clean: Tensor, rate: float, name: str) -> None:
    kept = got != 0
    if bool(kept.all()):
        raise Failure(
            f"in train mode with dropout={rate:g}, results change from call to call, but no returned weight is zero. "
            "Dropout acts on the weights, after the softmax; are those weights returned?",
            mistake="dropout elsewhere than on the returned weights",
        )
    factor = float((got / clean)[kept].median())
    if abs(factor - 1) < 1e-3:
        raise Failure(
            f"in train mode the weights that stay are as large as without dropout; they must be divided by {1 - rate:g}, "
            "so that their mean stays what it was.",
            mistake="dropout does not scale what it keeps",
        )
    if bool(((got.sum(-1) - 1).abs() < 1e-3).all()):
        raise Failure(
            "in train mode the weights that stay sum to 1 in each row: is dropout applied before the softmax? "
            "It acts after it.",
            mistake="dropout before the softmax",
        )
    trial.require(
        name,
        got,
        f"in train mode with dropout={rate:g}, the weights that stay must be the softmax's divided by {1 - rate:g}",
        expected=torch.where(kept, clean / (1 - rate), 0.0),
        mistake="wrong scale of what dropout keeps",
    )


def _require_rate(zero: Tensor, rate: float) -> None:
    slack = math.sqrt(math.log(2 / FALSE_ALARM) / (2 * zero.numel()))
    share = float(zero.double().mean())
    if abs(share - rate) > slack:
        turned = abs(share - (1 - rate)) <= slack
        raise Failure(
            f"in train mode with dropout={rate:g}, {share:.3f} of {zero.numel()} weights are zero (chance allows "
            f"+-{slack:.3f})."
            + (" Is it the share that is kept?" if turned else " Is it passed on as it is?"),
            mistake="dropout keeps where it should drop" if turned else "wrong dropout rate",
        )


def _require_independent(zero: Tensor) -> None:
    for axis, what in AXES.items():
        one, other = zero.narrow(axis, 0, 1), zero.narrow(axis, 1, 1)
        if torch.equal(one, other):
            raise Failure(
                f"in train mode the same weights are dropped for all {what}; each weight must have a draw of its own.",
                mistake=f"one dropout mask for all {what}",
            )


def _require_everywhere(trial: Trial) -> None:
    """Raises: Failure unless dropout acts, too, where no weights are asked for, and without gradients."""
    for change, grad, where, mistake in (
        ({"need_weights": False}, "", "without need_weights", "dropout only where weights are asked for"),
        ({}, "no_grad", "under no_grad", "dropout only where gradients are asked for"),
    ):
        inputs = {**trial.inputs, **change}
        with _mode(trial, True), trial.within(Circumstance(grad=grad)):
            pairs = trial.run(inputs), trial.run(inputs)
        if not all(
            isinstance(pair, (tuple, list)) and pair and isinstance(pair[0], Tensor) for pair in pairs
        ):
            continue  # what comes back has a check of its own
        if torch.equal(pairs[0][0], pairs[1][0]):
            raise Failure(
                f"in train mode {where} two calls give the same output. Is dropout applied there, too?",
                mistake=mistake,
            )


def _require_gradient(trial: Trial, output: str) -> None:
    """Raises: Failure unless in train mode a gradient of the output reaches every input and weight."""
    leaves = {name: trial.inputs[name].clone().requires_grad_() for name in trial.differentiable}
    with _mode(trial, True):
        made = trial(**leaves)[output]
        try:
            found = torch.autograd.grad(made.square().sum(), list(leaves.values()), allow_unused=True)
        except RuntimeError as error:
            raise Failure(
                f"in train mode backward() raised {type(error).__name__}: {str(error)[:300]}",
                mistake="overwrites what backward() needs",
                errored=True,
            ) from error
    for name, gradient in zip(leaves, found, strict=True):
        # What is added to all scores of a row alike changes no weight.
        if name != "k_proj_bias" and (gradient is None or not bool((gradient != 0).any())):
            raise Failure(
                f"in train mode no gradient of {output} reaches {name}. Is something detached before dropout?",
                mistake="gradient is cut off",
            )


def _require_made(trial: Trial, results: Results, made: Average, weights: str, output: str) -> None:
    trial.require(
        output,
        results[output],
        "in train mode the output is not what the returned weights make of the values. Is something else dropped, too?",
        expected=made(results[weights], trial.inputs),
        mistake="returned weights are not those that made the output",
    )
