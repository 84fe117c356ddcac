"""Attention weights handed out beside the output: are they those that made it?"""

from __future__ import annotations

from autograder.checks.check import Probe
from autograder.checks.softmax import require_sums
from autograder.checks.trial import Trial
from autograder.oracle.attention import allowed_keys

__all__ = ["weights_agree"]


def weights_agree(name: str = "weights", output: str = "output") -> Probe:
    """The weights lie in [0, 1], sum to 1 in every row that may see a key, and equal the formula's."""

    def probe(trial: Trial) -> None:
        results = trial()
        weights = results[name]
        mask, is_causal = trial.inputs.get("attn_mask"), bool(trial.inputs.get("is_causal", False))
        require_sums(trial, weights, -1, allowed_keys(weights.shape, mask, is_causal).any(-1))
        # Where the output is right, its weights were right, too, and others have been handed out.
        apart = trial.compare(output, results[output]).close
        trial.require(
            name, weights, "differ from the formula",
            mistake="returned weights are not those that made the output" if apart else None,
        )

    return probe
