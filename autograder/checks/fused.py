"""Fused attention: what can go wrong once it runs over tiles, parts and pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.conduct import strided
from autograder.checks.failure import Failure, student_code
from autograder.checks.kernels import rehearsal
from autograder.checks.trial import Target, Trial

LEAVES = ("query", "key", "value")

__all__ = ["agrees_here", "any_splits", "causal_tiles", "float32_sums", "gradients_agree", "ignores_garbage"]


MAXIMUM = "Is the running maximum subtracted from every score before the exponential?"


def agrees_here(
    claim: str,
    *outputs: str,
    mistake: str | None = None,
    finite: str | None = None,
    question: str = MAXIMUM,
) -> Probe:
    """The named results equal the formula's; if not, the report says `claim`.

    mistake: its name. finite: that of nan and inf, where they come instead, and `question` what to ask then.
    """

    def probe(trial: Trial) -> None:
        results = trial()
        for name in outputs:
            if finite and not bool(torch.isfinite(results[name]).all()):
                raise Failure(
                    f"{name} is nan or inf. {question}",
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


def any_splits() -> Probe:
    """The result for the case's num_splits is that for 1 and for 2, and more splits are more programs."""

    def probe(trial: Trial) -> None:
        most = trial.inputs["num_splits"]
        for count in (most, 1, 2):
            trial.require(
                "output",
                trial(num_splits=count)["output"],
                f"with num_splits={count} it differs from the formula",
                mistake="the number of splits changes the result",
                num_splits=count,
            )
        few, many = (rehearsal(trial, trial.changed(num_splits=count)).programs for count in (1, most))
        if few == many:
            raise Failure(
                f"launches {few:,} programs for num_splits=1, and as many for {most}. "
                "Does each part of a sequence have a program of its own?",
                mistake="num_splits has no effect",
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


def gradients_agree(target: Target, result: str = "output", *, in_models: bool = False) -> Probe:
    """Autograd gives the formula's gradients for query, key and value.

    target: the result and, by the names grad_query, grad_key, grad_value, its gradients, from the inputs and grad_output.
    in_models: also as models use it: where no tensor is contiguous, for one input alone, and with another forward pass
    before the backward pass.
    """

    def probe(trial: Trial) -> None:
        given: dict[str, Any] = dict(trial.inputs)
        query = given["query"]
        grad_output = trial.draw.normal(*query.shape, dtype=query.dtype)
        known = Trial(
            target, trial.subject, replace(trial.case, inputs={**given, "grad_output": grad_output})
        )
        found = _gradients(trial, given, grad_output, result)
        for name, gradient in found.items():
            known.require(
                f"grad_{name}",
                gradient,
                "the gradient that autograd gets differs from the formula",
                mistake="wrong gradient",
            )
        if not in_models:
            return
        moved = strided({name: given[name] for name in LEAVES} | {"grad_output": grad_output})
        for name, gradient in _gradients(trial, given | moved, moved["grad_output"], result).items():
            known.require(
                f"grad_{name}",
                gradient,
                "with a non-contiguous query, key, value and grad_output the gradient differs from the formula",
                mistake="depends on the memory layout of its inputs",
            )
        for name in LEAVES:
            alone = _gradients(trial, given, grad_output, result, wanted=(name,), between=True)
            known.require(
                f"grad_{name}",
                alone[name],
                f"for a {name} that alone wants a gradient, and after another forward pass, it differs from the formula "
                "(is what forward keeps in ctx?)",
                mistake="keeps state between calls",
            )

    return probe


def _gradients(
    trial: Trial,
    given: Mapping[str, Any],
    grad_output: Tensor,
    result: str,
    *,
    wanted: tuple[str, ...] = LEAVES,
    between: bool = False,
) -> dict[str, Tensor]:
    """What autograd gets for `wanted`. between: other numbers go forward before. Raises: Failure if it gets none."""
    inputs = {name: value for name, value in given.items() if name != "grad_output"}
    leaves: dict[str, Tensor] = {n: inputs[n].detach().requires_grad_() for n in wanted}
    output = trial.named(trial.run({**inputs, **leaves}))[result]
    if not output.requires_grad:
        raise Failure(
            f"{result} carries no gradient. Is it made by FlashAttention.apply(...)?",
            mistake="gradient is cut off",
        )
    if between:
        trial.run({**inputs, **{n: (inputs[n].detach() + 1.0).requires_grad_() for n in wanted}})
    with student_code():
        found = torch.autograd.grad(output, list(leaves.values()), grad_output, allow_unused=True)
    for name, gradient in zip(leaves, found, strict=True):
        if gradient is None:
            alone = "" if len(wanted) > 1 else f", where {name} alone wants one"
            raise Failure(
                f"{name} gets no gradient{alone}. Does backward return one for each argument of forward, in their order?",
                mistake="gradient is cut off",
            )
        if gradient.shape != leaves[name].shape:
            raise Failure(
                f"the gradient of {name} has shape {tuple(gradient.shape)}; {name} has {tuple(leaves[name].shape)}.",
                mistake="gradient has the wrong shape",
            )
    return dict(zip(leaves, found, strict=True))
