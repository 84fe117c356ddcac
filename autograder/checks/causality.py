"""Causality: with is_causal=True the future cannot change the past, and nothing else is hidden."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.structure import Results, attempt
from autograder.checks.trial import Trial

__all__ = [
    "causal",
]

FEW = 16


def causal(
    sequences: Mapping[str, int],
    queries: Mapping[str, int],
    outputs: tuple[str, str],
    attn_mask: bool = True,
) -> Probe:
    """With is_causal=True query i sees keys 0..i, and only those. For cases without attn_mask.

    `sequences` are the inputs that hold keys (name -> axis), `queries` those that hold queries; `outputs` are the
    output and the weights. Four ways: the weights are zero in the future and nowhere else; the result of a prefix;
    the gradient of past outputs by future keys; and, for code that takes an attn_mask, the result of the explicit
    lower-triangular mask.
    """

    def probe(trial: Trial) -> None:
        output, weights = outputs
        results = _with_any_lengths(trial, sequences, queries)
        _only_the_future_is_hidden(results[weights].detach(), trial.expect()[weights].value)
        _prefix_is_unchanged(
            trial, {**sequences, **queries}, results[output], min(results[weights].shape[-2:]), output
        )
        _no_gradient_from_future(trial, sequences, output)
        if attn_mask:
            _equals_the_triangle(trial, results, outputs)

    return probe


def _with_any_lengths(trial: Trial, sequences: Mapping[str, int], queries: Mapping[str, int]) -> Results:
    """The results. Raises: Failure that tells whether unequal lengths are what the code cannot take."""
    results = attempt(trial)
    if not isinstance(results, Failure):
        return results
    axes = {**sequences, **queries}
    lengths = {name: trial.inputs[name].shape[axis] for name, axis in axes.items()}
    shortest = min(lengths.values())
    square = {name: trial.inputs[name].narrow(axis, 0, shortest) for name, axis in axes.items()}
    if len(set(lengths.values())) > 1 and not isinstance(attempt(trial, **square), Failure):
        raise Failure(
            f"with is_causal=True it works for as many queries as keys only: {results.message.rstrip('.')}. "
            "The triangle has shape (S_q, S_k).",
            mistake="causal mask is square",
            errored=results.errored,
        )
    raise results


def _only_the_future_is_hidden(weights: Tensor, formula: Tensor) -> None:
    S_q, S_k = weights.shape[-2:]
    past = torch.ones(S_q, S_k, dtype=torch.bool).tril()
    leaked = torch.where(past, 0.0, weights.abs()).reshape(-1, S_q, S_k).amax(0)  # (S_q, S_k)
    if bool((leaked != 0).any()):
        i, j = divmod(int(leaked.argmax()), S_k)
        raise Failure(
            f"with is_causal=True query {i} gives weight {float(leaked[i, j]):.4g} to key {j}, which lies in its "
            "future. Query i sees keys 0..i, counted from the start of both: is it tril() of (S_q, S_k)?",
            mistake="future keys get weight",
        )
    # Where the formula's weight is no tiny one, not even scores on a wrong scale make it underflow to zero.
    missed = (past & (weights == 0) & (formula > 1e-3)).reshape(-1, S_q, S_k).any(0)
    if bool(missed.any()):
        i, j = divmod(int(missed.int().argmax()), S_k)
        raise Failure(
            f"with is_causal=True query {i} gives no weight to key {j}, which it may see. "
            "Query i sees keys 0..i, its own place included, counted from the start of both sequences.",
            mistake="is_causal hides keys that may be seen",
        )


def _prefix_is_unchanged(
    trial: Trial, axes: Mapping[str, int], whole: Tensor, length: int, output: str
) -> None:
    cut = trial.draw.integer(1, max(1, length - 1))
    prefix = {name: trial.inputs[name].narrow(axis, 0, cut) for name, axis in axes.items()}
    trial.require(
        output,
        trial(**prefix)[output],
        f"the first {'position alone gives' if cut == 1 else f'{cut} positions alone give'} another result than with "
        "the future attached",
        expected=whole.narrow(-2, 0, cut),
        mistake="future keys change past outputs",
        **prefix,
    )


def _no_gradient_from_future(trial: Trial, sequences: Mapping[str, int], output: str) -> None:
    leaves = {name: trial.inputs[name].clone().requires_grad_() for name in sequences}
    # Clones, so that code which writes into its inputs is judged for that elsewhere.
    result = trial(**{name: leaf.clone() for name, leaf in leaves.items()})[output]
    row = trial.draw.integer(0, result.shape[-2] - 1)
    if not result.requires_grad:
        return  # the gradients have a check of their own
    gradients = torch.autograd.grad(result.select(-2, row).sum(), list(leaves.values()), allow_unused=True)
    for (name, axis), gradient in zip(sequences.items(), gradients, strict=True):
        length = trial.inputs[name].shape[axis]
        if gradient is None or row + 1 >= length:
            continue
        future = gradient.narrow(axis, row + 1, length - row - 1)
        if bool((future != 0).any()):
            raise Failure(
                f"output row {row} depends on {name} at later positions (gradient up to "
                f"{float(future.abs().max()):.3g}); with is_causal=True it must not.",
                mistake="future keys change past outputs",
            )


def _equals_the_triangle(trial: Trial, results: Results, outputs: tuple[str, str]) -> None:
    """Equal to the student's own result for the explicit mask or, where that mask does not work, to the formula."""
    triangle = torch.ones(results[outputs[1]].shape[-2:], dtype=torch.bool).tril()
    own = attempt(trial, is_causal=False, attn_mask=triangle)
    for name in outputs:
        if isinstance(own, Failure) or not trial.close(name, results[name], own[name]):
            trial.require(
                name,
                results[name],
                "is_causal=True differs from the explicit mask in which query i sees keys 0..i",
                mistake="is_causal differs from the same mask given as attn_mask",
            )
