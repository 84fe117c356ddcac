"""Fused attention: what can go wrong once it runs over tiles, parts and pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure, student_code
from autograder.checks.trial import Target, Trial

__all__ = ["agrees_here", "any_splits", "causal_tiles", "float32_sums", "gradients_agree", "ignores_garbage"]


def agrees_here(claim: str, *outputs: str, mistake: str | None = None, finite: str | None = None) -> Probe:
    """The named results equal the formula's; if not, the report says `claim`.

    mistake: its name. finite: that of nan and inf, where they come instead.
    """

    def probe(trial: Trial) -> None:
        results = trial()
        for name in outputs:
            if finite and not bool(torch.isfinite(results[name]).all()):
                raise Failure(
                    f"{name} is nan or inf. Is the running maximum subtracted from every score before the exponential?",
                    mistake=finite,
                )
            trial.require(name, results[name], claim, mistake=mistake)

    return probe


def float32_sums(*outputs: str, statistics: tuple[str, ...] = ()) -> Probe:
    """Sums are kept in float32 whatever the inputs' dtype, and `statistics` come back in float32.

    For a case in half precision in which half precision would lose terms, or overflow on the way.
    """

    def probe(trial: Trial) -> None:
        results = trial()
        for name in statistics:
            if results[name].dtype != torch.float32:
                raise Failure(
                    f"{name} is {str(results[name].dtype).removeprefix('torch.')}; it must be float32 for every dtype of the "
                    "inputs: backward takes its exponential.",
                    mistake="statistics are not float32",
                )
        for name in outputs:
            trial.require(
                name,
                results[name],
                "with many or large terms it loses more than its dtype does (are the sums kept in float32?)",
                mistake="sums are not kept in float32",
            )

    return probe


def causal_tiles() -> Probe:
    """With is_causal=True later keys change nothing for earlier queries, and a query sees the key of its own position."""

    def probe(trial: Trial) -> None:
        before = trial()["output"]
        key, value = trial.inputs["key"], trial.inputs["value"]
        cut = trial.draw.integer(1, min(before.shape[-2], key.shape[-2]) - 1)
        future = {"key": key.clone(), "value": value.clone()}
        for name, tensor in future.items():
            tensor[..., cut:, :] = 4 * trial.draw.normal(*trial.inputs[name][..., cut:, :].shape)
        after = trial(**future)["output"]
        if not torch.allclose(before[..., :cut, :], after[..., :cut, :], rtol=1e-4, atol=1e-5):
            raise Failure(
                f"with is_causal=True, replacing keys and values from position {cut} on changes queries before it. "
                "Which keys does the mask of the last tile hide?",
                mistake="future keys change past outputs",
            )
        present = value.clone()
        present[..., cut - 1, :] += 10.0
        moved = trial(value=present)["output"]
        if torch.allclose(before[..., cut - 1, :], moved[..., cut - 1, :], rtol=1e-4, atol=1e-5):
            raise Failure(
                f"with is_causal=True, query {cut - 1} does not see key {cut - 1}. Is it column <= row?",
                mistake="causal mask hides the present",
            )

    return probe


def any_splits(*counts: int) -> Probe:
    """The result does not depend on how many programs share a sequence."""

    def probe(trial: Trial) -> None:
        for count in counts:
            trial.require(
                "output",
                trial(num_splits=count)["output"],
                f"with num_splits={count} it differs from the formula",
                mistake="the number of splits changes the result",
                num_splits=count,
            )

    return probe


def ignores_garbage() -> Probe:
    """What lies behind a sequence's end, nan here, takes no part."""

    def probe(trial: Trial) -> None:
        output = trial()["output"]
        if bool(output.isnan().any()):
            raise Failure(
                "nan from behind a sequence's end reaches the output; a weight of 0 does not hide it, as 0 * nan is nan. "
                "Are keys and values beyond the length masked when they are loaded?",
                mistake="reads behind the end of a sequence",
            )
        trial.require("output", output, "with nan behind the sequences' ends it differs from the formula")

    return probe


def gradients_agree(target: Target, result: str = "output") -> Probe:
    """Autograd gives the formula's gradients for query, key and value.

    target: the result and, by the names grad_query, grad_key, grad_value, its gradients, from the inputs and grad_output.
    """

    def probe(trial: Trial) -> None:
        given: dict[str, Any] = dict(trial.inputs)
        query = given["query"]
        grad_output = trial.draw.normal(*query.shape, dtype=query.dtype)
        known = Trial(
            target, trial.subject, replace(trial.case, inputs={**given, "grad_output": grad_output})
        )
        leaves: dict[str, Tensor] = {n: given[n].clone().requires_grad_() for n in ("query", "key", "value")}
        output = trial.named(trial.run({**given, **leaves}))[result]
        if not output.requires_grad:
            raise Failure(
                f"{result} carries no gradient. Is it made by FlashAttention.apply(...)?",
                mistake="gradient is cut off",
            )
        with student_code():
            found = torch.autograd.grad(output, list(leaves.values()), grad_output, allow_unused=True)
        for name, gradient in zip(leaves, found, strict=True):
            if gradient is None:
                raise Failure(
                    f"{name} gets no gradient. Does backward return one for each argument of forward, in their order?",
                    mistake="gradient is cut off",
                )
            if gradient.shape != leaves[name].shape:
                raise Failure(
                    f"the gradient of {name} has shape {tuple(gradient.shape)}; {name} has {tuple(leaves[name].shape)}.",
                    mistake="gradient has the wrong shape",
                )
            known.require(
                f"grad_{name}",
                gradient,
                "the gradient that autograd gets differs from the formula",
                mistake="wrong gradient",
            )

    return probe
