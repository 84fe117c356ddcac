"""Softmax invariants: what is true of attention weights whatever the scores are. No oracle needed."""

from __future__ import annotations

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.structure import responds
from autograder.checks.trial import Trial
from autograder.oracle.tolerance import unit_roundoff

__all__ = [
    "dead_rows_are_zero",
    "hidden_scores_do_nothing",
    "probabilities",
    "require_sums",
    "shift_changes_nothing",
]

LOW = 1e7
"""How far below zero a score may lie before a mask value of a thousand million is not low enough either."""

SHORT = 8
"""A row that every block of a blockwise softmax holds: what is wrong there is not wrong because the row is long."""


def _axis(trial: Trial) -> int:
    return int(trial.inputs.get("dim", -1))


def require_sums(
    trial: Trial, weights: Tensor, axis: int, alive: Tensor | None = None, growth: float | None = None
) -> None:
    """Raises: Failure unless the weights lie in [0, 1] and sum to 1 along `axis` in every row that is alive.

    The sum of n weights, each rounded to the dtype, may be off by 4 (n + T) u: one rounding a weight, and
    T, the growth of the exponential (of the trial's own scores, if not given), where the normaliser is
    subtracted inside it: exp(s - logsumexp).
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
    if growth is None:
        growth = max(quantity.growth for quantity in trial.expect().values())
    allowed = 4 * (exact.shape[axis] + growth) * unit_roundoff(trial.dtype)
    gap = (sums - 1).abs() if alive is None else torch.where(alive, (sums - 1).abs(), 0.0)
    if float(gap.max()) > allowed:
        row = torch.unravel_index(gap.argmax(), gap.shape)
        place = f"row {[int(index) for index in row]}" if row else "the row"
        raise Failure(
            f"{place} of the weights sums to {float(sums[row]):.4g}; it must sum to 1 (+-{allowed:.1g}).",
            mistake="weights do not sum to one",
        )


def probabilities(name: str = "weights") -> Probe:
    """Weights lie in [0, 1] and sum to 1; a part of the scores, given alone, shares its weight as it did."""

    def probe(trial: Trial) -> None:
        axis, weights = _axis(trial), trial()[name]
        require_sums(trial, weights, axis)
        length = weights.shape[axis]
        cut = trial.draw.integer(length // 4, 3 * length // 4)
        short = {"scores": trial.inputs["scores"].narrow(axis, 0, min(SHORT, length))}
        mistake = "goes wrong in long rows" if trial.close(name, trial(**short)[name], **short) else None
        for start, size in ((0, cut), (cut, length - cut)):
            part = {"scores": trial.inputs["scores"].narrow(axis, start, size)}
            place = f"scores {start} to {start + size - 1} of {length}"
            share = weights.narrow(axis, start, size).double()
            if bool((share.sum(axis) == 0).any()):
                raise Failure(
                    f"{place} get no weight at all, though they are not low. Does every score take part?",
                    mistake=mistake,
                )
            trial.require(
                name,
                trial(**part)[name],
                f"{place}, given alone, share their weight otherwise",
                expected=share / share.sum(axis, keepdim=True),
                mistake=mistake,
                **part,
            )

    return probe


def shift_changes_nothing(inputs: str = "scores", offset: float = 1000.0, name: str = "weights") -> Probe:
    """For code that is right for ordinary scores: a constant added to all scores of a row changes nothing, however large or
    low, and scores of one row may lie far apart.

    The scores are multiples of 1/64 and the constants whole, so that no score is rounded in the sum. A right solution may
    still round log-sum-exp, which is as large as the constant: hence 8 u times the largest score.
    """

    def probe(trial: Trial) -> None:
        axis = _axis(trial)
        coarse = trial.draw.normal(*trial.inputs[inputs].shape, dtype=torch.float64) * 2
        coarse = ((coarse * 64).round() / 64).to(trial.dtype)
        before = trial(**{inputs: coarse})[name]
        if not trial.close(name, before, **{inputs: coarse}):
            return  # it is not the size of the scores that matters
        shape = list(coarse.shape)
        shape[axis] = 1
        constants = (trial.draw.normal(*shape, dtype=torch.float64).abs() + 0.5) * offset
        constants.view(-1)[::2] *= -1  # up in one row and down in the next
        shifted = coarse + constants.round().to(coarse.dtype)
        after, apart = (trial(**{inputs: s})[name].detach().double() for s in (shifted, coarse * offset))
        if not bool(torch.isfinite(after).all()) or bool((after.sum(axis) == 0).any()):
            raise Failure(
                f"scores of about {offset:g} give nan, inf or zero. Is the row's maximum subtracted before exp?",
                mistake="overflows or underflows for large scores",
            )
        slack = 8 * unit_roundoff(trial.dtype) * float(shifted.abs().max())
        change = (after - before).abs() / before.abs().amax(axis, keepdim=True)
        if not float(change.max()) <= slack:
            raise Failure(
                "adding a constant to all scores of a row changed its weights by up to "
                f"{float(change.max()):.3g} times the largest of them (rounding allows {slack:.1g}). "
                "Do only differences between scores matter?",
                mistake="a constant added to the scores changes the weights",
            )
        if not bool(torch.isfinite(apart).all()):
            raise Failure(
                f"scores of one row that lie {offset:g} apart give nan or inf. "
                "Is it the largest score of the row that is subtracted before exp?",
                mistake="overflows or underflows for large scores",
            )

    return probe


def hidden_scores_do_nothing(scores: str = "scores", mask: str = "attn_mask", name: str = "weights") -> Probe:
    """Forbidden keys weigh exactly zero; a huge score there changes nothing; low scores lose nothing."""

    def probe(trial: Trial) -> None:
        given = trial.inputs[scores]
        allowed = trial.inputs[mask].broadcast_to(given.shape)
        responds({scores: (name,)})(trial)
        before = trial()[name]
        _require_hidden(before, allowed)
        require_sums(trial, before, -1, allowed.any(-1))
        trial.require(
            name,
            trial(**{scores: torch.where(allowed, given, given + 1e30)})[name],
            "a huge score behind the mask changed the weights of the allowed keys (is the softmax, or its "
            "maximum, taken over all keys and masked only afterwards?)",
            expected=before,
            mistake="forbidden scores leak into the others",
        )
        # Deeply negative allowed scores: a mask value that is merely low would win over them. Scores of
        # this size are whole numbers in float32, so log-sum-exp may be off by 1/2, and the sum of the
        # weights by a factor of 1.65.
        low = trial(**{scores: torch.where(allowed, given - LOW, given)})[name].detach().double()
        left = low.masked_fill(~allowed, 0.0).sum(-1)[allowed.any(-1)]
        if not bool(torch.isfinite(low).all()) or float(left.min()) < 0.5:
            raise Failure(
                f"with allowed scores of about {-LOW:g} the forbidden keys win: {float(left.min()):.4g} of "
                "the weight is left for the allowed ones. Is the mask value -inf, or merely a low number?",
                mistake="mask value is not low enough",
            )

    return probe


def _require_hidden(weights: Tensor, allowed: Tensor) -> None:
    """Raises: Failure unless every forbidden key weighs exactly zero."""
    leaked = weights.detach().masked_fill(allowed, 0.0).abs()
    if bool((leaked != 0).any()):
        raise Failure(
            f"a forbidden key has weight {float(leaked.max()):.4g}; it must be exactly 0. "
            "Should masked scores be -inf before the softmax?",
            mistake="forbidden keys keep some weight",
        )


def dead_rows_are_zero(scores: str = "scores", mask: str = "attn_mask", name: str = "weights") -> Probe:
    """Rows that allow no key come out as exactly zero, they alone, and every gradient stays finite."""

    def probe(trial: Trial) -> None:
        leaf = trial.inputs[scores].clone().requires_grad_()
        weights = trial(**{scores: leaf})[name]
        dead = ~trial.inputs[mask].broadcast_to(weights.shape).any(-1)
        rows = weights.detach()[dead]
        if not bool(torch.isfinite(rows).all()):
            raise Failure(
                f"a row that allows no key comes out of {name} as nan; it must be exactly 0. "
                "Is it a softmax over nothing but -inf?",
                mistake="nan where no key is allowed",
            )
        if bool((rows != 0).any()):
            raise Failure(
                f"a row that allows no key comes out of {name} with values up to "
                f"{float(rows.abs().max()):.4g}; it must be exactly 0. "
                "Did the softmax spread the weight over forbidden keys?",
                mistake="a row that allows no key is not zero",
            )
        _require_living_rows(trial, mask, weights, name, dead)
        if not weights.requires_grad:
            return  # the gradients have a check of their own
        try:
            (gradient,) = torch.autograd.grad(weights.square().sum(), leaf, allow_unused=True)
        except RuntimeError:
            return  # likewise
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            raise Failure(
                f"a row that allows no key makes the gradient of {scores} nan. "
                "Is a nan replaced after the softmax, where its gradient stays?",
                mistake="nan gradients where no key is allowed",
            )

    return probe


def _require_living_rows(trial: Trial, mask: str, weights: Tensor, name: str, dead: Tensor) -> None:
    """Raises: Failure unless dead rows leave the others alone, and live once they may see all keys."""
    given = trial.inputs[mask]
    revived = trial(**{mask: given | ~given.any(-1, keepdim=True)})[name].detach()
    if not bool((revived[dead] != 0).any(-1).all()):
        raise Failure(
            f"a row of {name} is zero even when it allows every key. "
            "Does the mask decide which rows are zero?",
            mistake="rows are zero that allow a key",
        )
    trial.require(
        name,
        weights,
        "the other rows change when one row allows no key",
        expected=revived.masked_fill(dead.unsqueeze(-1), 0.0),
        mistake="a dead row changes the other rows",
    )
