"""Heads: masks that differ between them, rows that one of them may not use, weights that come on request."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.structure import Results, attempt
from autograder.checks.trial import Trial
from autograder.checks.weights import Average
from autograder.oracle.attention import allowed_keys

__all__ = ["dead_rows_by_head", "masks_by_head", "past_stands"]


def _allowed(trial: Trial, queries: str, keys: str) -> Tensor:
    """The (..., H, S_q, S_k) mask that the case's masks make together."""
    query, key = trial.inputs[queries], trial.inputs.get(keys)
    key = query if key is None else key
    shape = (*query.shape[:-2], trial.inputs["num_heads"], query.shape[-2], key.shape[-2])
    mask = trial.inputs["attn_mask"].broadcast_to(shape)
    return allowed_keys(shape, mask, bool(trial.inputs.get("is_causal", False)))


def _unmasked(trial: Trial) -> dict[str, Any]:
    return {"attn_mask": None} | ({"is_causal": False} if "is_causal" in trial.inputs else {})


def masks_by_head(made: Average | None = None, queries: str = "query", keys: str = "key") -> Probe:
    """Each head sees just the keys that the masks allow it.

    made: how the output comes from weights and inputs, where weights are returned. Then, if the results differ from
    the formula without any mask, too, it is enough that a head's weights are those that it gives with the forbidden
    keys taken away: whoever has mistaken the scores may still have masked them rightly.
    """

    def probe(trial: Trial) -> None:
        results = _with_mask(trial, queries, keys)
        names = trial.target.outputs
        if all(trial.compare(name, results[name]).close for name in names):
            return
        plain = _unmasked(trial)
        alone = trial(**plain)
        if made is None or all(trial.compare(name, alone[name], **plain).close for name in names):
            for name in names:
                trial.require(
                    name,
                    results[name],
                    "with its mask it differs from the formula",
                    mistake="goes wrong under a mask",
                )
            return
        _require_selected(trial, results["weights"].detach(), queries, keys)
        trial.require(
            "output",
            results["output"],
            "with a mask, the output is not what the returned weights make of the values",
            expected=made(results["weights"], trial.inputs),
            mistake="returned weights are not those that made the output",
        )

    return probe


def _with_mask(trial: Trial, queries: str, keys: str) -> Results:
    """The results. Raises: Failure that tells whether the mask's shape is what the code cannot take."""
    results = attempt(trial)
    if not isinstance(results, Failure):
        return results
    given, full = trial.inputs["attn_mask"], _allowed(trial, queries, keys)
    causal = {"is_causal": False} if "is_causal" in trial.inputs else {}
    if given.shape != full.shape and not isinstance(attempt(trial, attn_mask=full, **causal), Failure):
        raise Failure(
            f"an attn_mask of shape {tuple(given.shape)} must broadcast to {tuple(full.shape)}: {results.message}",
            mistake="mask is not broadcast",
            errored=results.errored,
        )
    raise results


def _require_selected(trial: Trial, weights: Tensor, queries: str, keys: str) -> None:
    """Raises: Failure unless, in one batch element, each head gives each query's weight as if forbidden keys were gone."""
    allowed = _allowed(trial, queries, keys)
    place = tuple(trial.draw.integer(0, size - 1) for size in trial.inputs[queries].shape[:-2])
    itself = trial.inputs.get(keys) is None
    for head, table in enumerate(allowed[place]):
        for i, row in enumerate(table):
            # Dead rows have a check of their own; a query that is a key, too, can stay only where it sees itself.
            if not bool(row.any()) or (itself and not bool(row[i])):
                continue
            own = int(row[:i].sum()) if itself else 0
            lone = {name: trial.inputs[name][place][row] for name in (keys, "value") if name in trial.inputs}
            query = trial.inputs[queries][place]
            lone[queries] = query[row] if itself else query[i : i + 1]
            expected = trial(**lone, **_unmasked(trial))["weights"].detach()
            actual = expected.clone()
            actual[head, own] = weights[place][head, i][row]
            trial.require(
                "weights",
                actual,
                f"with its mask, head {head} weighs query {i}'s keys otherwise than with the forbidden ones taken away",
                expected=expected,
                **lone,
                **_unmasked(trial),
            )
            if bool((weights[place][head, i][~row] != 0).any()):
                raise Failure(
                    f"head {head} gives a forbidden key weight; it must be exactly 0. "
                    "Should masked scores be -inf before the softmax?",
                    mistake="forbidden keys keep some weight",
                )


def dead_rows_by_head(
    through: tuple[str, ...], made: Average | None = None, queries: str = "query", keys: str = "key"
) -> Probe:
    """A query for which a head may see no key gets weights of exactly zero there; the other heads and queries do not
    notice, and every gradient stays finite. made: how the output comes from weights and inputs, where weights are returned.
    """

    def probe(trial: Trial) -> None:
        leaves = {name: trial.inputs[name].clone().requires_grad_() for name in through}
        # Clones, so that code which writes into its inputs is judged for that elsewhere.
        results = trial(**{name: leaf.clone() for name, leaf in leaves.items()})
        for name, result in results.items():
            if not bool(torch.isfinite(result).all()):
                raise Failure(
                    f"where a head may see no key, {name} is nan or inf. "
                    "Is it a softmax over nothing but -inf? Its weights must be exactly 0.",
                    mistake="nan where no key is allowed",
                )
        if made is None:
            trial.require(
                "output", results["output"], "where a row allows no key it differs from the formula"
            )
        else:
            _require_zero(trial, results, made, ~_allowed(trial, queries, keys).any(-1, keepdim=True))
        _require_finite_gradients(results, leaves)

    return probe


def _require_zero(trial: Trial, results: Results, made: Average, dead: Tensor) -> None:
    weights = results["weights"].detach()
    if bool((weights.masked_fill(~dead, 0.0) != 0).any()):
        raise Failure(
            "a head that may see no key has weights above 0; they must be exactly 0. "
            "Did the softmax spread the weight over forbidden keys?",
            mistake="a row that allows no key is not zero",
        )
    trial.require(
        "output",
        results["output"],
        "where a head may see no key, the output is not what the returned weights make of the values",
        expected=made(weights, trial.inputs),
        mistake="a row that allows no key is not zero",
    )
    revived = trial.inputs["attn_mask"] | dead
    before = trial(attn_mask=revived)["weights"].detach()
    trial.require(
        "weights",
        torch.where(dead, before, weights),
        "one row that allows no key changed the weights of another row or head",
        expected=before,
        mistake="a row that allows no key disturbs the others",
        attn_mask=revived,
    )


def _require_finite_gradients(results: Results, leaves: dict[str, Tensor]) -> None:
    total = torch.stack([result.square().sum() for result in results.values()]).sum()
    if not total.requires_grad:
        return  # the gradients have a check of their own
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    for name, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            raise Failure(
                f"a row that allows no key makes the gradient with respect to {name} nan. "
                "Is a nan replaced after the softmax? Its gradient stays; let no row be all -inf before it.",
                mistake="nan gradients where no key is allowed",
            )


def past_stands(name: str, output: str = "output") -> Probe:
    """With is_causal=True the output is the formula's, and a prefix of the sequence gives what it gives within the whole."""

    def probe(trial: Trial) -> None:
        whole = trial()[output]
        length = trial.inputs[name].shape[-2]
        prefix = {name: trial.inputs[name][..., : trial.draw.integer(1, length - 1), :]}
        cut = prefix[name].shape[-2]
        trial.require(
            output,
            trial(**prefix)[output],
            f"the first {cut} of {length} positions alone give another result than with the future attached",
            expected=whole[..., :cut, :],
            mistake="future keys change past outputs",
            **prefix,
        )
        trial.require(output, whole, "with is_causal=True it differs from the formula")

    return probe
