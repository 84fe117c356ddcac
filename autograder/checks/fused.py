"""Fused attention: what can go wrong once it runs over tiles, parts and through autograd."""

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
from autograder.circumstance import ORDINARY, Circumstance, under

LEAVES = ("query", "key", "value")

__all__ = ["every_tile", "gradients_in_models", "ignores_garbage", "parts_are_programs"]

MOST_TILES = 8
"""So many of the configurations that are declared for a kernel are tried."""


def every_tile(*outputs: str) -> Probe:
    """Each configuration that is declared for a kernel gives the formula's results: one call for each."""

    def probe(trial: Trial) -> None:
        try:
            for place in range(1, MOST_TILES):
                trial.circumstance = Circumstance(tiles=place)
                with under(trial.circumstance):
                    results = trial()
                for name in outputs:
                    trial.require(
                        name,
                        results[name],
                        f"with configuration {place} (from 0, counted round) of those that @triton.autotune may take it differs "
                        "from the formula. Is a number of one tile used where the other is meant?",
                        mistake="wrong with other tiles",
                    )
        finally:
            trial.circumstance = ORDINARY

    return probe


def parts_are_programs() -> Probe:
    """More parts of a sequence are more programs. Kernels are launched here, and do not run."""

    def probe(trial: Trial) -> None:
        few, many = (rehearsal(trial, trial.changed(num_splits=count)).programs for count in (1, 4))
        if few == many:
            raise Failure(
                f"launches {few:,} programs for num_splits=1, and as many for 4. Does each part of a sequence have a program of "
                "its own?",
                mistake="num_splits has no effect",
            )

    return probe


def ignores_garbage() -> Probe:
    """What lies behind a sequence's end, nan here, takes no part: a result that is nan with it is none without it."""

    def probe(trial: Trial) -> None:
        clean = {name: trial.inputs[name].nan_to_num(0.0) for name in trial.differentiable}
        if bool(trial()["output"].isnan().any()) and not bool(trial(**clean)["output"].isnan().any()):
            raise Failure(
                "nan from behind a sequence's end reaches the output; a weight of 0 does not hide it, as 0 * nan is nan. "
                "Are keys and values beyond the length masked when they are loaded?",
                mistake="reads behind the end of a sequence",
            )

    return probe


def gradients_in_models(target: Target, result: str = "output") -> Probe:
    """Autograd gives the formula's gradients for query, key and value as models ask for them.

    target: the result and, by the names grad_query, grad_key, grad_value, its gradients, from the inputs and grad_output.
    Where no tensor is contiguous; for one input alone; with another forward pass, of the other is_causal, before the backward
    pass; twice from one forward pass; from a sum, whose gradient is one number in all places.
    """

    def probe(trial: Trial) -> None:
        given: dict[str, Any] = dict(trial.inputs)
        query = given["query"]
        grad_output, second = (trial.draw.normal(*query.shape, dtype=query.dtype) for _ in range(2))
        rows = trial.draw.normal(*query.shape[:-1], 1, dtype=query.dtype).expand(query.shape)
        known = _known(target, trial, grad_output)

        def require(known: Trial, found: Mapping[str, Tensor], claim: str, mistake: str) -> None:
            for name, gradient in found.items():
                known.require(f"grad_{name}", gradient, claim, mistake=mistake)

        moved = strided({name: given[name] for name in LEAVES} | {"grad_output": grad_output})
        output = _output(trial, given | {n: moved[n].detach().requires_grad_() for n in LEAVES}, result)
        leaves = output[1]
        require(
            known,
            _gradients(output, moved["grad_output"], keep=True),
            "with a non-contiguous query, key, value and grad_output the gradient differs from the formula",
            "depends on the memory layout of its inputs",
        )
        require(
            _known(target, trial, second),
            _gradients((output[0], leaves), second, keep=True),
            "in a second backward pass from the same output (retain_graph=True) the gradient differs from the formula",
            "keeps state between calls",
        )
        require(
            _known(target, trial, rows),
            _gradients((output[0], leaves), rows),
            "for the gradient of a sum over the width, which has stride 0 there, the gradient differs from the formula",
            "depends on the memory layout of its inputs",
        )
        others = {n: given[n].detach() + 1.0 for n in LEAVES}
        for name in LEAVES:
            alone = _output(trial, given | {name: given[name].detach().requires_grad_()}, result, (name,))
            trial.run(
                {
                    **others,
                    name: others[name].requires_grad_(),
                    "is_causal": not given.get("is_causal", False),
                }
            )
            require(
                known,
                _gradients(alone, grad_output),
                f"for a {name} that alone wants a gradient, and after another forward pass, it differs from the formula (is what "
                "forward keeps in ctx?)",
                "keeps state between calls",
            )
        _changed_in_between(trial, given, grad_output, result)

    return probe


Made = tuple[Tensor, dict[str, Tensor]]
"""The output of a forward pass, and the leaves that it has come from."""


def _known(target: Target, trial: Trial, grad_output: Tensor) -> Trial:
    return Trial(
        target, trial.subject, replace(trial.case, inputs={**trial.inputs, "grad_output": grad_output})
    )


def _output(trial: Trial, inputs: Mapping[str, Any], result: str, wanted: tuple[str, ...] = LEAVES) -> Made:
    """A forward pass. Raises: Failure if its output carries no gradient."""
    output = trial.named(trial.run(inputs))[result]
    if not output.requires_grad:
        raise Failure(
            f"{result} carries no gradient. Is it made by FlashAttention.apply(...)?",
            mistake="gradient is cut off",
        )
    return output, {name: inputs[name] for name in wanted}


def _gradients(made: Made, grad_output: Tensor, keep: bool = False) -> dict[str, Tensor]:
    """What autograd gets for the leaves. Raises: Failure if it gets none, or another shape."""
    output, leaves = made
    with student_code():
        found = torch.autograd.grad(
            output, list(leaves.values()), grad_output, allow_unused=True, retain_graph=keep
        )
    for name, gradient in zip(leaves, found, strict=True):
        if gradient is None:
            alone = "" if len(leaves) > 1 else f", where {name} alone wants one"
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


def _changed_in_between(trial: Trial, given: Mapping[str, Any], grad_output: Tensor, result: str) -> None:
    """An input that is changed in place before the backward pass: autograd refuses that for what it was told is kept."""
    leaves = {n: given[n].detach().clone().requires_grad_() for n in LEAVES}
    handed = {n: leaf.clone() for n, leaf in leaves.items()}
    output = trial.named(trial.run({**given, **handed}))[result]
    before = torch.autograd.grad(output, list(leaves.values()), grad_output, retain_graph=True)
    with torch.no_grad():
        handed["key"].mul_(-2.0)
    try:
        after = torch.autograd.grad(output, list(leaves.values()), grad_output)
    except RuntimeError:
        return  # as it should be, where what is needed has gone
    if any(not torch.equal(one, other) for one, other in zip(before, after, strict=True)):
        raise Failure(
            "key is changed in place after the forward pass, and the gradients come out wrong without a word. Does forward keep "
            "tensors by ctx.save_for_backward(...), which notices?",
            mistake="keeps tensors without save_for_backward",
        )
