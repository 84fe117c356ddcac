"""What stands behind a mask must not matter: keys that no query may see, and queries that may see no key."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.softmax import require_sums
from autograder.checks.structure import attempt
from autograder.checks.trial import Trial
from autograder.checks.weights import Average
from autograder.oracle.attention import allowed_keys

__all__ = [
    "dead_rows",
    "hidden_keys_do_nothing",
    "mask_broadcasts",
    "mask_of_fewer_axes",
    "mask_selects",
    "require_hidden_from_low",
]

LOW = 1e7
"""Allowed scores are pushed down to minus this. Mask values of -1e4 or float16's lowest lose against it; -1e9, which
is common and beats every score that float32 inputs of sane size can make, does not."""


def mask_selects(queries: str, keys: tuple[str, ...], weights: str = "", output: str = "output") -> Probe:
    """The output with a mask, also with is_causal, is the formula's.

    queries, keys: inputs that hold them. If the output differs from the formula without a mask, too, it is enough that
    each query gets what it gets when the keys that it may not see are taken away: whoever has mistaken the scores may
    still have masked them rightly. weights: a result that must be the formula's where the output is.
    """

    def probe(trial: Trial) -> None:
        results = _with_mask(trial)
        result = results[output]
        if trial.close(output, result):
            if weights:
                trial.require(
                    weights,
                    results[weights],
                    "with a mask, the returned weights are not those that made the output",
                    mistake="returned weights are not those that made the output",
                )
            return
        plain = _without_masks(trial)
        _require_selected(trial, result, queries, keys, output)
        if trial.close(output, trial(**plain)[output], **plain):
            trial.require(output, result, "with its mask it differs from the formula")

    return probe


def _without_masks(trial: Trial) -> dict[str, Any]:
    return {"attn_mask": None} | ({"is_causal": False} if "is_causal" in trial.inputs else {})


def _with_mask(trial: Trial) -> dict[str, Tensor]:
    """The results. Raises: Failure that tells whether the mask's shape is what the code cannot take."""
    results = attempt(trial)
    if not isinstance(results, Failure):
        return results
    shape = next(iter(trial.expect().values())).value.shape[:-1]
    full = allowed_keys((*shape, trial.inputs["attn_mask"].shape[-1]), trial.inputs["attn_mask"], False)
    if not isinstance(attempt(trial, attn_mask=full), Failure):
        raise Failure(
            f"an attn_mask of shape {tuple(trial.inputs['attn_mask'].shape)} must broadcast to {tuple(full.shape)}: "
            f"{results.message}",
            mistake="mask is not broadcast",
            errored=results.errored,
        )
    raise results


def _require_selected(trial: Trial, result: Tensor, queries: str, keys: tuple[str, ...], output: str) -> None:
    """Raises: Failure unless every query of one batch element sees just the keys that it may see."""
    lead = trial.inputs[queries].shape[:-2]
    place = tuple(trial.draw.integer(0, size - 1) for size in lead)
    shape = (*trial.inputs[queries].shape[:-1], trial.inputs[keys[0]].shape[-2])
    allowed = allowed_keys(shape, trial.inputs["attn_mask"], bool(trial.inputs.get("is_causal", False)))[
        place
    ]
    for i, row in enumerate(allowed):
        # Dead rows have a check of their own. A query that is a key, too, can stay only where it may see itself.
        if not bool(row.any()) or (queries in keys and not bool(row[i])):
            continue
        seen = {name: trial.inputs[name][place][row] for name in keys}
        own = int(row[:i].sum()) if queries in keys else 0
        alone = {queries: trial.inputs[queries][place][i : i + 1], **seen, **_without_masks(trial)}
        expected = trial(**alone)[output]
        actual = expected.clone()
        actual[own] = result[place][i]
        trial.require(
            output,
            actual,
            f"with its mask, query {i} gets another output than with the forbidden keys taken away",
            expected=expected,
            **alone,
        )


def hidden_keys_do_nothing(made: Average, output: str = "output", weights: str = "weights") -> Probe:
    """Forbidden keys weigh exactly zero, the others make the output; a huge value or key behind the mask does nothing.

    One key is hidden from all queries. Its value becomes 1e30, then its key points along the queries' mean, a thousand
    times as long. Then all allowed scores are pushed far below zero: a mask value that is merely low would win.
    made: how the output comes from the weights and the inputs.
    """

    def probe(trial: Trial) -> None:
        query, key, value = (trial.inputs[name] for name in ("query", "key", "value"))
        place = trial.draw.integer(0, key.shape[-2] - 1)
        mask = trial.inputs["attn_mask"].clone()
        mask[..., place] = False
        mask[..., (place + 1) % key.shape[-2]] = True
        base = trial(attn_mask=mask)
        allowed = allowed_keys(base[weights].shape, mask, bool(trial.inputs.get("is_causal", False)))
        alive = allowed.any(-1)
        if (leaked := largest_forbidden(base[weights], allowed)) != 0:
            raise Failure(
                f"a forbidden key has weight {leaked:.4g}; it must be exactly 0. "
                "Should masked scores be -inf before the softmax?",
                mistake="forbidden keys keep some weight",
            )
        require_sums(trial, base[weights], -1, alive)
        trial.require(
            output,
            base[output],
            "with a mask, the output is not what the returned weights make of the values",
            expected=made(base[weights], trial.inputs),
            mistake="returned weights are not those that made the output",
            attn_mask=mask,
        )
        big_value, big_key = value.clone(), key.clone()
        big_value[..., place, :] = 1e30
        big_key[..., place, :] = query.mean(-2) * 1000
        for changes in ({"value": big_value}, {"key": big_key}):
            after = trial(attn_mask=mask, **changes)
            trial.require(
                output,
                after[output],
                "a key that no query may see changed the output",
                expected=base[output],
                mistake="forbidden keys leak into the output",
                attn_mask=mask,
            )
        # A softmax that underflows here without a mask, too, is caught where it belongs, with huge scores.
        low = {"attn_mask": torch.ones_like(mask), **_deep(query, key, None)}
        sums = trial(**low)[weights].sum(-1)[alive]
        after = trial(attn_mask=mask, **_deep(query, key, place))
        if bool(((sums - 1).abs() < 0.01).all()):
            require_hidden_from_low(after[weights], allowed, f"with allowed scores of about {-LOW:.0e}")

    return probe


def require_hidden_from_low(weights: Tensor, allowed: Tensor, where: str) -> None:
    """Raises: Failure if a forbidden key has taken the weight of allowed ones, whose scores are far below zero."""
    if (leaked := largest_forbidden(weights, allowed)) != 0:
        raise Failure(
            f"{where} a forbidden key takes weight {leaked:.4g}. "
            "Is the mask value -inf or the dtype's lowest number, or merely a low one?",
            mistake="mask value is not low enough",
        )
    left = weights.detach().masked_fill(~allowed, 0.0).sum(-1)[allowed.any(-1)]
    if left.numel() and float(left.min()) < 0.5:
        raise Failure(
            f"{where} the weights of a row sum to {float(left.min()):.4g}; they must sum to 1. Do forbidden keys win the "
            "softmax, because the mask value is merely a low number?",
            mistake="mask value is not low enough",
        )


def largest_forbidden(weights: Tensor, mask: Tensor) -> float:
    """The largest weight of a forbidden key."""
    return float(weights.detach().masked_fill(mask.broadcast_to(weights.shape), 0.0).abs().max())


def _deep(query: Tensor, key: Tensor, place: int | None) -> dict[str, Tensor]:
    """Queries that are all alike and keys that lie far on the other side: every score is about -LOW, that of key
    `place`, if any, zero."""
    length = math.sqrt(LOW * math.sqrt(query.shape[-1]))
    direction = query[..., :1, :] / query[..., :1, :].norm(dim=-1, keepdim=True)
    keys = key - length * direction
    if place is not None:
        keys[..., place, :] = 0.0
    return {"query": (length * direction).expand_as(query).clone(), "key": keys}


def dead_rows(through: tuple[str, ...], output: str = "output", weights: str = "weights") -> Probe:
    """A query that may see no key gets weights of exactly zero, and the output that zero weights make; it disturbs no
    other query, and every gradient stays finite."""

    def probe(trial: Trial) -> None:
        leaves = {name: trial.inputs[name].clone().requires_grad_() for name in through}
        # Clones, so that code which writes into its inputs is judged for that elsewhere.
        results = trial(**{name: leaf.clone() for name, leaf in leaves.items()})
        mask = trial.inputs["attn_mask"]
        allowed = allowed_keys(results[weights].shape, mask, bool(trial.inputs.get("is_causal", False)))
        dead = ~allowed.any(-1, keepdim=True)
        _require_zero(trial, results, dead, output, weights)
        _require_others_undisturbed(trial, results, dead, output)
        total = sum((results[name] * results[name]).sum() for name in (output, weights))
        if not isinstance(total, Tensor) or not total.requires_grad:
            return  # the gradients have a check of their own
        gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        for name, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None and not bool(torch.isfinite(gradient).all()):
                raise Failure(
                    f"a row that allows no key makes the gradient with respect to {name} nan. "
                    "Is a nan replaced after the softmax? Its gradient stays; let no row be all -inf before it.",
                    mistake="nan gradients where no key is allowed",
                )

    return probe


def _require_zero(trial: Trial, results: dict[str, Tensor], dead: Tensor, output: str, weights: str) -> None:
    for name in (weights, output):
        rows = results[name].detach().masked_fill(~dead, 0.0)
        if not bool(torch.isfinite(rows).all()):
            raise Failure(
                f"a row that allows no key comes out of {name} as nan. "
                "Is it a softmax over nothing but -inf? Its weights must be exactly 0.",
                mistake="nan where no key is allowed",
            )
        if name == weights and bool((rows != 0).any()):
            raise Failure(
                f"a row that allows no key has weights up to {float(rows.abs().max()):.4g}; they must be exactly 0. "
                "Did the softmax spread the weight over forbidden keys?",
                mistake="a row that allows no key is not zero",
            )
    expected = trial.expect()[output].value
    rows = torch.where(dead, results[output].detach().to(torch.float64), expected)
    zeroed = bool((rows.masked_fill(~dead, 0.0) == 0).all()) and bool(
        (expected.masked_fill(~dead, 0.0) != 0).any()
    )
    trial.require(
        output,
        rows,
        "a row that allows no key comes out as zero; zero weights pass through the output layer like any others and "
        "leave its bias"
        if zeroed
        else "a row that allows no key has another output than zero weights make",
        mistake="a row that allows no key misses the output layer's bias"
        if zeroed
        else "a row that allows no key is not zero",
    )


def _require_others_undisturbed(trial: Trial, results: dict[str, Tensor], dead: Tensor, output: str) -> None:
    # With is_causal, key 0 alone is what every row may see.
    revived = trial.inputs["attn_mask"] | dead
    before = trial(attn_mask=revived)[output].detach()
    trial.require(
        output,
        torch.where(dead, before, results[output].detach()),
        "one row that allows no key changed the output of another row",
        expected=before,
        mistake="a row that allows no key disturbs the others",
        attn_mask=revived,
    )


def mask_of_fewer_axes(queries: str) -> Probe:
    """A mask without the first axis means the same as one that holds its rows once for each element of that axis.

    For code that takes the latter: what is wrong with it is found elsewhere.
    """

    def probe(trial: Trial) -> None:
        mask = trial.inputs["attn_mask"]
        full = mask.broadcast_to(trial.inputs[queries].shape[0], *mask.shape)
        wanted = attempt(trial, attn_mask=full.clone())
        if isinstance(wanted, Failure):
            return
        results = _with_mask(trial)
        for name, value in wanted.items():
            trial.require(
                name,
                results[name],
                f"an attn_mask of shape {tuple(mask.shape)} gives another result than the same of {tuple(full.shape)}",
                expected=value,
                mistake="mask is not broadcast",
            )

    return probe


def mask_broadcasts(scores: str) -> Probe:
    """A mask with axes of one, or of fewer axes, means the same as in full shape, for code that is right with the latter."""

    def probe(trial: Trial) -> None:
        mask, shape = trial.inputs["attn_mask"], trial.inputs[scores].shape
        wanted = attempt(trial, attn_mask=mask.broadcast_to(shape).clone())
        if isinstance(wanted, Failure) or not all(trial.close(name, value) for name, value in wanted.items()):
            return
        results = attempt(trial)
        if isinstance(results, Failure) or not all(trial.close(n, v) for n, v in results.items()):
            raise Failure(
                f"an attn_mask of shape {tuple(mask.shape)} must broadcast to {tuple(shape)}.",
                mistake="mask is not broadcast",
            )

    return probe
