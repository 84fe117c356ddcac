"""Softmax invariants: what is true of attention weights whatever the scores are. No oracle needed."""

from __future__ import annotations

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.trial import Trial
from autograder.oracle.tolerance import unit_roundoff

__all__ = ["dead_rows_are_zero", "hidden_scores_do_nothing", "probabilities", "require_sums", "shift_changes_nothing"]


def _axis(trial: Trial) -> int:
    return int(trial.inputs.get("dim", -1))


def require_sums(trial: Trial, weights: Tensor, axis: int, alive: Tensor | None = None) -> None:
    """Raises: Failure unless the weights lie in [0, 1] and sum to 1 along `axis` in every row that is alive.

    The sum of n weights, each rounded to the dtype, may be off by 4 (n + T) u: one rounding a weight, and T, the
    growth of the exponential, where the normaliser is subtracted inside it (exp(s - logsumexp)).
    """
    exact = weights.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(exact).all()):
        raise Failure("the weights hold nan or inf.", mistake="weights are not finite")
    if float(exact.min()) < 0 or float(exact.max()) > 1 + 4 * unit_roundoff(trial.dtype):
        raise Failure(
            f"weights lie in [{float(exact.min()):.4g}, {float(exact.max()):.4g}]; they must lie in [0, 1].",
            mistake="weights outside [0, 1]",
        )
    sums = exact.sum(axis)
    growth = max(quantity.growth for quantity in trial.expect().values())
    allowed = 4 * (exact.shape[axis] + growth) * unit_roundoff(trial.dtype)
    gap = (sums - 1).abs() if alive is None else torch.where(alive, (sums - 1).abs(), 0.0)
    if float(gap.max()) > allowed:
        row = int(gap.argmax())
        raise Failure(
            f"row {row} of the weights sums to {float(sums.flatten()[row]):.4g}; it must sum to 1 (+-{allowed:.1g}).",
            mistake="weights do not sum to one",
        )


def probabilities(name: str = "weights") -> Probe:
    """Weights lie in [0, 1] and sum to 1."""

    def probe(trial: Trial) -> None:
        require_sums(trial, trial()[name], _axis(trial))

    return probe


def shift_changes_nothing(inputs: str = "scores", offset: float = 1000.0, name: str = "weights") -> Probe:
    """Adding a constant to all scores of a row changes nothing, another constant for each row, however large.

    The scores are multiples of 1/64 below 16 and the constants whole, so that no score is rounded in the sum.
    """

    def probe(trial: Trial) -> None:
        axis = _axis(trial)
        coarse = (trial.inputs[inputs] * 64).round() / 64
        shape = list(coarse.shape)
        shape[axis] = 1
        shift = (trial.draw.normal(*shape, dtype=torch.float64) * offset).round().to(coarse.dtype)
        before, after = trial(**{inputs: coarse})[name], trial(**{inputs: coarse + shift})[name]
        trial.require(
            name,
            after,
            "adding a constant to all scores of a row changed its weights",
            expected=before,
            mistake="overflows or underflows for large scores",
            **{inputs: coarse},
        )
        require_sums(trial, after, axis)

    return probe


def hidden_scores_do_nothing(scores: str = "scores", mask: str = "attn_mask", name: str = "weights") -> Probe:
    """Forbidden scores get a weight of exactly zero, and a huge one there changes nothing, for the loss of no row."""

    def probe(trial: Trial) -> None:
        allowed = trial.inputs[mask].broadcast_to(trial.inputs[scores].shape)
        before = trial()[name]
        leaked = before.detach().masked_fill(allowed, 0.0).abs()
        if bool((leaked != 0).any()):
            raise Failure(
                f"a forbidden key has weight {float(leaked.max()):.4g}; it must be exactly 0. "
                "Should masked scores be -inf before the softmax?",
                mistake="forbidden keys keep some weight",
            )
        # Deeply negative allowed scores: a mask value that is merely low would win over them.
        for huge, lift in ((1e30, 0.0), (0.0, -3e4)):
            raised = torch.where(allowed, trial.inputs[scores] + lift, trial.inputs[scores] + huge)
            base = torch.where(allowed, trial.inputs[scores] + lift, trial.inputs[scores])
            after = trial(**{scores: raised})[name]
            trial.require(
                name,
                after,
                "what stands behind the mask changed the weights of the allowed keys",
                mistake="forbidden scores leak into the others",
                **{scores: base},
            )

    return probe


def dead_rows_are_zero(
    mask: str = "attn_mask", outputs: tuple[str, ...] = ("weights",), through: tuple[str, ...] = ("scores",)
) -> Probe:
    """Rows that allow no key come out as exactly zero, and every gradient stays finite."""

    def probe(trial: Trial) -> None:
        leaves = {name: trial.inputs[name].clone().requires_grad_() for name in through}
        results = trial.named(trial.run(trial.changed(**leaves)))
        shape = results[outputs[-1]].shape
        dead = ~trial.inputs[mask].broadcast_to(shape).any(-1)
        for name in outputs:
            rows = results[name].detach()[dead]
            if not bool(torch.isfinite(rows).all()):
                raise Failure(
                    f"a row that allows no key comes out of {name} as nan; it must be exactly 0. "
                    "Is it a softmax over nothing but -inf?",
                    mistake="nan where no key is allowed",
                )
            if bool((rows != 0).any()):
                raise Failure(
                    f"a row that allows no key comes out of {name} with values up to {float(rows.abs().max()):.4g}; "
                    "it must be exactly 0. Did the softmax spread the weight over forbidden keys?",
                    mistake="a row that allows no key is not zero",
                )
        total = sum((results[name] * results[name]).sum() for name in outputs)
        if not isinstance(total, Tensor) or not total.requires_grad:
            return  # the gradients have a check of their own
        for name, gradient in zip(
            leaves, torch.autograd.grad(total, list(leaves.values()), allow_unused=True), strict=True
        ):
            if gradient is not None and not bool(torch.isfinite(gradient).all()):
                raise Failure(
                    f"a row that allows no key makes the gradient of {name} nan. "
                    "Is a nan replaced after the softmax, where its gradient stays?",
                    mistake="nan gradients where no key is allowed",
                )

    return probe
