"""Attention weights handed out beside the output: are they those that made it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.softmax import require_sums
from autograder.checks.trial import Trial

__all__ = ["weights_agree"]

Average = Callable[[Tensor, Mapping[str, Any]], Tensor]
"""Weights and inputs -> output."""


def weights_agree(made: Average, name: str = "weights", output: str = "output") -> Probe:
    """The weights are those of the formula: in [0, 1], summing to 1 in every row, positive. For cases without a mask.

    made: how the output comes from the weights and the inputs. Weights that do not equal the formula's will do if the
    output does not either, and is made of them: whoever has mistaken the scores has still handed out the right thing.
    """

    def probe(trial: Trial) -> None:
        results = trial()
        weights = results[name]
        right = {n: trial.close(n, results[n]) for n in (name, output)}
        if right[name]:
            require_sums(trial, weights, -1)
            return
        if right[output]:
            trial.require(
                name,
                weights,
                "the returned weights differ from the formula's, although the output does not",
                mistake="returned weights are not those that made the output",
            )
        require_sums(trial, weights, -1)
        exact = trial.expect()[name]
        # Scores of more than 50 may lie 100 apart, where exp underflows to zero in float32: those cases tell nothing.
        missed = (weights == 0) & (exact.value > 1e-3) & (exact.growth < 50)
        if bool(missed.any()):
            row, column = (int(place) for place in missed.nonzero()[0][-2:])
            raise Failure(
                f"query {row} gives key {column} a weight of exactly 0; softmax gives every key some.",
                mistake="keys that may be seen get no weight",
            )
        trial.require(
            output,
            results[output],
            "the output is not what the returned weights make of the values",
            expected=made(weights, trial.inputs),
            mistake="returned weights are not those that made the output",
        )

    return probe
