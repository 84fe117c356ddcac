"""Structure: symmetries, causality, linearity. What a function must respect whatever its numbers are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.trial import Trial

__all__ = [
    "agrees_with_slices",
    "average_of_values",
    "causal",
    "few_keys",
    "permutation",
    "sharp",
    "ties_share",
]


def permutation(inputs: Mapping[str, int], outputs: Mapping[str, int | None], what: str, mistake: str | None = None) -> Probe:
    """Permuting `inputs` along the given axes permutes `outputs` along theirs (None: leaves them as they are)."""

    def probe(trial: Trial) -> None:
        present = {n: axis for n, axis in inputs.items() if isinstance(trial.inputs.get(n), Tensor)}
        first, axis = next(iter(present.items()))
        order = trial.draw.permutation(trial.inputs[first].shape[axis])
        before = trial()
        moved = {n: _permuted(trial.inputs[n], a, order) for n, a in present.items()}
        after = trial(**moved)
        for name, out_axis in outputs.items():
            expected = before[name] if out_axis is None else before[name].index_select(out_axis, order)
            trial.require(
                name, after[name], f"putting the {what} into another order changed the results", expected=expected,
                mistake=mistake or f"depends on the order of the {what}", **moved,
            )

    return probe


def _permuted(value: Tensor, axis: int, order: Tensor) -> Tensor:
    return value if value.shape[axis] == 1 else value.index_select(axis, order)


def agrees_with_slices(inputs: Mapping[str, int], outputs: tuple[str, ...]) -> Probe:
    """Each batch element and head stands alone, and any number of leading axes will do.

    `inputs` names the batched inputs and how many trailing axes are no batch axes. The result for one element of the
    batch, given alone without any leading axis, equals that element of the whole; so does the whole with one more axis.
    """

    def probe(trial: Trial) -> None:
        batched = {n: k for n, k in inputs.items() if isinstance(trial.inputs.get(n), Tensor)}
        lead = max((trial.inputs[n].shape[: trial.inputs[n].dim() - k] for n, k in batched.items()), key=len)
        place = tuple(trial.draw.integer(0, size - 1) for size in lead)
        whole = trial()
        single = {n: trial.inputs[n][place] if trial.inputs[n].dim() > k else trial.inputs[n] for n, k in batched.items()}
        deeper = {n: trial.inputs[n].unsqueeze(0) if trial.inputs[n].dim() > k else trial.inputs[n] for n, k in batched.items()}
        alone, nested = trial(**single), trial(**deeper)
        for name in outputs:
            trial.require(
                name, alone[name], f"element {list(place)} of the batch, given alone, gives another result",
                expected=whole[name][place], mistake="batch elements influence each other", **single,
            )
            trial.require(
                name, nested[name], "one more leading axis gives another result",
                expected=whole[name].unsqueeze(0), mistake="fixed number of leading axes", **deeper,
            )

    return probe


def causal(sequences: Mapping[str, int], queries: Mapping[str, int], outputs: tuple[str, ...]) -> Probe:
    """With is_causal=True the future cannot change the past; without it, it can.

    `sequences` are the inputs that hold keys (name -> axis), `queries` those that hold queries. Three ways: equal to
    the explicit lower-triangular mask; the result of a prefix; the gradient of past outputs by future keys.
    """

    def probe(trial: Trial) -> None:
        results = trial()
        S_q, S_k = results[outputs[-1]].shape[-2:]
        triangle = torch.ones(S_q, S_k, dtype=torch.bool).tril()
        mask = trial.inputs.get("attn_mask")
        plain = trial(is_causal=False, attn_mask=triangle if mask is None else mask & triangle)
        for name in outputs:
            trial.require(
                name, results[name], "is_causal=True differs from the explicit mask in which query i sees keys 0..i",
                expected=plain[name],
            )
        _prefix_is_unchanged(trial, {**sequences, **queries}, results[outputs[0]], min(S_q, S_k), outputs[0])
        _no_gradient_from_future(trial, sequences, outputs[0])

    return probe


def _prefix_is_unchanged(trial: Trial, axes: Mapping[str, int], whole: Tensor, length: int, output: str) -> None:
    cut = trial.draw.integer(1, max(1, length - 1))
    prefix = {n: trial.inputs[n].narrow(axis, 0, min(cut, trial.inputs[n].shape[axis])) for n, axis in axes.items()}
    if isinstance(mask := trial.inputs.get("attn_mask"), Tensor):
        prefix["attn_mask"] = mask[..., :cut, :cut]
    first = trial(**prefix)[output]
    trial.require(
        output, first, f"the first {cut} positions alone give another result than with the future attached",
        expected=whole.narrow(-2, 0, cut), mistake="future keys change past outputs", **prefix,
    )


def _no_gradient_from_future(trial: Trial, sequences: Mapping[str, int], output: str) -> None:
    leaves = {n: trial.inputs[n].clone().requires_grad_() for n in sequences}
    result = trial.named(trial.run(trial.changed(**leaves)))[output]
    row = trial.draw.integer(0, result.shape[-2] - 1)
    if not result.requires_grad:
        return  # the gradients have a check of their own
    for (name, axis), gradient in zip(
        sequences.items(),
        torch.autograd.grad(result.select(-2, row).sum(), list(leaves.values()), allow_unused=True),
        strict=True,
    ):
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


def average_of_values(value: str = "value", output: str = "output") -> Probe:
    """The output is linear in the values, and stays between the smallest and the largest of them."""

    def probe(trial: Trial) -> None:
        first, second = trial.inputs[value], torch.roll(trial.inputs[value], 1, -2).flip(-1) * 100.0
        mixed = first * 0.5 - second * 3.0
        one, two, both = (trial(**{value: v})[output] for v in (first, second, mixed))
        trial.require(
            output, both, "the output is not linear in the values", expected=one * 0.5 - two * 3.0,
            mistake="not linear in the values", **{value: mixed},
        )
        low, high = second.amin(-2, keepdim=True), second.amax(-2, keepdim=True)
        slack = (high - low) * 1e-4  # far above rounding, far below any real overshoot
        if bool(((two < low - slack) | (two > high + slack)).any()):
            raise Failure(
                "an output lies outside the range of the values it averages.", mistake="output leaves the values' hull"
            )

    return probe


def ties_share(outputs: tuple[str, str] = ("output", "weights"), key: str = "key", value: str = "value") -> Probe:
    """Equal keys share their weight: duplicating every key changes no output, and all keys equal give the mean."""

    def probe(trial: Trial) -> None:
        output, weights = outputs
        before = trial()
        twice = {n: torch.cat([trial.inputs[n]] * 2, -2) for n in (key, value)}
        after = trial(**twice)
        trial.require(
            output, after[output], "duplicating every key and value changed the output", expected=before[output],
            mistake="duplicated keys change the output", **twice,
        )
        length = trial.inputs[key].shape[-2]
        trial.require(
            weights, after[weights][..., :length], "a key and its duplicate do not share their weight evenly",
            expected=before[weights] / 2, mistake="duplicated keys do not share their weight",
        )
        same = {key: trial.inputs[key][..., :1, :].expand_as(trial.inputs[key]).clone()}
        mean = trial.inputs[value].mean(-2, keepdim=True).broadcast_to(before[output].shape)
        trial.require(
            output, trial(**same)[output], "with all keys equal the output must be the mean of the values",
            expected=mean, mistake="equal keys do not give the mean", **same,
        )

    return probe


def few_keys(output: str = "output", weights: str = "weights") -> Probe:
    """One key takes all the weight; of two keys, the first has the sigmoid of the scaled score difference."""

    def probe(trial: Trial) -> None:
        query, key, value = (trial.inputs[n] for n in ("query", "key", "value"))
        one = {"key": key[..., :1, :], "value": value[..., :1, :]}
        alone = trial(**one)
        trial.require(
            output, alone[output], "with a single key the output must be its value",
            expected=one["value"].broadcast_to(alone[output].shape), mistake="fails for a single key", **one,
        )
        two = {"key": key[..., :2, :], "value": value[..., :2, :]}
        pair = trial(**two)[weights]
        gap = (query.double() @ (key[..., :1, :] - key[..., 1:2, :]).double().mT) / math.sqrt(query.shape[-1])
        expected = torch.sigmoid(torch.cat([gap, -gap], -1))
        trial.require(weights, pair, "with two keys the weights must be a sigmoid", expected=expected, **two)
        lone = {"query": query[..., :1, :]}
        trial.require(output, trial(**lone)[output], "a single query gives another result", **lone)

    return probe


def sharp(output: str = "output", scale: float = 1e4) -> Probe:
    """As the scores grow without bound, all weight goes to the best key, without overflow."""

    def probe(trial: Trial) -> None:
        query, key, value = (trial.inputs[n] for n in ("query", "key", "value"))
        best = (query.double() @ key.double().mT).argmax(-1, keepdim=True)  # (..., S_q, 1)
        winner = torch.take_along_dim(value, best.expand(*best.shape[:-1], value.shape[-1]), -2)
        huge = {"query": query * scale}
        result = trial(**huge)[output]
        if not bool(torch.isfinite(result).all()):
            raise Failure(
                f"scores of about {scale:g} give nan or inf. Is the row's maximum subtracted before exp?",
                mistake="overflows or underflows for large scores",
            )
        # Two best scores may lie close together; the formula says how much weight the second one keeps.
        trial.require(output, result, "huge scores must pick the best key", **huge)
        if bool((trial.expect(**huge)[output].value - winner).abs().max() < 1e-6):
            trial.require(output, result, "huge scores must pick the best key's value", expected=winner, **huge)

    return probe
