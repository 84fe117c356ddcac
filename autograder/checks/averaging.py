"""Averaging: an output is a weighted mean of the values, and the weights are a softmax of the scores."""

from __future__ import annotations

import torch

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.masking import require_hidden_from_low
from autograder.checks.trial import Trial
from autograder.oracle.attention import allowed_keys

__all__ = [
    "average_of_values",
    "finite_when",
    "sharp",
    "survives_large_inputs",
    "ties_share",
]


def average_of_values(value: str = "value", output: str = "output") -> Probe:
    """The output is linear in the values, and stays between the smallest and the largest of them."""

    def probe(trial: Trial) -> None:
        first, second = trial.inputs[value], torch.roll(trial.inputs[value], 1, -2).flip(-1) * 100.0
        mixed = first * 0.5 - second * 3.0
        one, two, both = (trial(**{value: v})[output] for v in (first, second, mixed))
        trial.require(
            output,
            both,
            "the output is not linear in the values",
            expected=one * 0.5 - two * 3.0,
            mistake="not linear in the values",
            **{value: mixed},
        )
        far = second + 10_000.0  # so far from zero that weights with any other sum than 1 leave the range
        low, high = far.amin(-2, keepdim=True), far.amax(-2, keepdim=True)
        slack = (high - low) * 1e-4  # far above rounding, far below any real overshoot
        found = trial(**{value: far})[output]
        if bool(((found < low - slack) | (found > high + slack)).any()):
            raise Failure(
                "an output lies outside the range of the values that it averages. Do the weights sum to 1?",
                mistake="output leaves the range of the values",
            )

    return probe


def ties_share(
    output: str = "output", weights: str = "weights", key: str = "key", value: str = "value"
) -> Probe:
    """Equal keys share their weight: duplicating every key changes no output, and all keys equal give the mean."""

    def probe(trial: Trial) -> None:
        before = trial()
        twice = {name: torch.cat([trial.inputs[name]] * 2, -2) for name in (key, value)}
        after = trial(**twice)
        trial.require(
            output,
            after[output],
            "duplicating every key and value changed the output",
            expected=before[output],
            mistake="duplicated keys change the output",
            **twice,
        )
        length = trial.inputs[key].shape[-2]
        trial.require(
            weights,
            after[weights][..., :length],
            "a key and its duplicate do not share their weight evenly",
            expected=before[weights] / 2,
            mistake="duplicated keys do not share their weight",
        )
        same = {key: trial.inputs[key][..., :1, :].expand_as(trial.inputs[key]).clone()}
        mean = trial.inputs[value].mean(-2, keepdim=True).broadcast_to(before[output].shape)
        trial.require(
            output,
            trial(**same)[output],
            "with all keys equal the output must be the mean of the values",
            expected=mean,
            mistake="equal keys do not give the mean",
            **same,
        )

    return probe


def sharp(output: str = "output", scale: float = 1e4) -> Probe:
    """As the scores grow without bound, all weight goes to the best key, without overflow."""

    def probe(trial: Trial) -> None:
        query, key, value = (trial.inputs[name] for name in ("query", "key", "value"))
        result = trial(query=query * scale)[output].detach()
        if not bool(torch.isfinite(result).all()):
            raise Failure(
                f"scores of about {scale:g} give nan or inf. Is the row's maximum subtracted before exp?",
                mistake="overflows or underflows for large scores",
            )
        scores = query.double() @ key.double().mT
        best = scores.argmax(-1, keepdim=True)  # (..., S_q, 1)
        winner = torch.take_along_dim(value, best.expand(*best.shape[:-1], value.shape[-1]), -2)
        # Only where the second key lies 30 behind on any sensible scale: it keeps less than exp(-30) of the weight.
        first, second = scores.topk(2, -1).values.unbind(-1)
        clear = ((first - second) * scale / query.shape[-1] > 30).unsqueeze(-1)
        gap = float(torch.where(clear, (result - winner).abs(), 0.0).max())
        if gap > 1e-4 * float(value.abs().max()):  # rounding leaves 1e-7, another key 1
            raise Failure(
                f"with scores of about {scale:g} an output is {gap:.3g} away from the value of the best key, "
                "which must get all the weight. Are scores clamped, or is the maximum of another row subtracted?",
                mistake="huge scores do not pick the best key",
            )

    return probe


def survives_large_inputs(output: str = "output", weights: str = "weights") -> Probe:
    """Inputs so large that exp of a score would overflow give the formula's result all the same.

    With attn_mask or is_causal, they give forbidden keys no weight. Where the case's mask allows one key a row, half of
    those have scores far below zero, and lose against a mask value that is merely low.
    """

    def probe(trial: Trial) -> None:
        results = trial()
        if not bool(torch.isfinite(results[output]).all()):
            raise Failure(
                "large inputs give nan or inf. Is the row's maximum subtracted before exp?",
                mistake="overflows or underflows for large scores",
            )
        trial.require(output, results[output], "for large inputs it differs from the formula")
        mask, is_causal = trial.inputs.get("attn_mask"), bool(trial.inputs.get("is_causal", False))
        if mask is None and not is_causal:
            return
        allowed = allowed_keys(results[weights].shape, mask, is_causal)
        require_hidden_from_low(results[weights], allowed, "with large scores")

    return probe


def finite_when(*levels: str, output: str = "output") -> Probe:
    """Results are finite in situations of these levels, such as "huge scores", if those of small inputs are."""

    def probe(trial: Trial) -> None:
        small = {name: trial.inputs[name] * 1e-3 for name in trial.differentiable}
        finite = [bool(torch.isfinite(trial(**given)[output]).all()) for given in ({}, small)]
        level = next((one for one in levels if one in trial.case.situation.values()), None)
        if level and finite == [False, True]:
            raise Failure(
                f"with {level} the result holds nan or inf. Is the row's maximum subtracted before exp?",
                mistake="overflows or underflows for large scores",
            )

    return probe
