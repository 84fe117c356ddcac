"""What stands behind a mask must not matter: attention with keys that no query may see."""

from __future__ import annotations

import torch

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.trial import Trial

__all__ = ["hidden_keys_do_nothing"]


def hidden_keys_do_nothing(output: str = "output", weights: str = "weights") -> Probe:
    """Forbidden keys weigh exactly zero; a huge value or key that no query may see changes nothing.

    One key is hidden from all queries. Its value becomes 1e30, then its key points along the queries' mean, a thousand
    times as long. Then all allowed scores are pushed far below zero: a mask value that is merely low would win.
    """

    def probe(trial: Trial) -> None:
        query, key, value = (trial.inputs[name] for name in ("query", "key", "value"))
        place = trial.draw.integer(0, key.shape[-2] - 1)
        mask = trial.inputs["attn_mask"].clone()
        mask[..., place] = False
        mask[..., (place + 1) % key.shape[-2]] = True
        base = trial(attn_mask=mask)
        leaked = base[weights].detach().masked_fill(mask.broadcast_to(base[weights].shape), 0.0).abs()
        if bool((leaked != 0).any()):
            raise Failure(
                f"a forbidden key has weight {float(leaked.max()):.4g}; it must be exactly 0. "
                "Should masked scores be -inf before the softmax?",
                mistake="forbidden keys keep some weight",
            )
        big_value, big_key = value.clone(), key.clone()
        big_value[..., place, :] = 1e30
        big_key[..., place, :] = query.mean(-2) * 1000
        for changes in ({"value": big_value}, {"key": big_key}):
            after = trial(attn_mask=mask, **changes)
            trial.require(
                output, after[output], "a key that no query may see changed the output", expected=base[output],
                mistake="forbidden keys leak into the output", attn_mask=mask,
            )
        # All queries equal, and all keys close to 100 times their opposite: the allowed scores are about -100 |q|^2.
        same = query[..., :1, :].expand_as(query).clone()
        low = {"query": same * 30, "key": key - 30 * same[..., :1, :], "attn_mask": mask}
        low["key"][..., place, :] = 0.0
        after = trial(**low)
        leaked = after[weights].detach().masked_fill(mask.broadcast_to(after[weights].shape), 0.0).abs()
        if not bool(torch.isfinite(after[weights]).all()) or bool((leaked != 0).any()):
            raise Failure(
                f"with allowed scores of about {-900 * float(same.square().sum(-1).mean()) / query.shape[-1] ** 0.5:.3g} "
                "the forbidden keys win. Is the mask value -inf, or merely a low number?",
                mistake="mask value is not low enough",
            )

    return probe
