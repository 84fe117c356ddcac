"""Structure: what depends on what. Responses to each input, order, leading axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.trial import Trial

__all__ = ["Results", "agrees_with_slices", "attempt", "permutation", "responds"]

Results = dict[str, Tensor]


def attempt(trial: Trial, **changes: Any) -> Results | Failure:
    """The student's results for the inputs with `changes`, or how the call failed."""
    try:
        return trial(**changes)
    except Failure as failure:
        return failure


def responds(effects: Mapping[str, tuple[str, ...]], mixing: str | None = None) -> Probe:
    """Each named input changes the results that it should, and nothing else does.

    Tried in whichever number of leading axes the code takes.
    effects: input -> results that must change with it. mixing: an input of which one position must change the first
    result at other positions. Any serious attempt does this; a constant, an average or a copy does not.
    """

    def probe(trial: Trial) -> None:
        start, before = _first_that_runs(trial)
        _require_the_same(before, trial(**start))
        for name, results in effects.items():
            other = trial.draw.normal(*start[name].shape, dtype=start[name].dtype)
            after = trial(**{**start, name: other})
            for result in results:
                _require_change(before[result], after[result], f"replacing all of {name}", result, name)
        if mixing:
            moved, result = start[mixing].clone(), trial.target.outputs[0]
            moved[..., 0, :] = trial.draw.normal(*moved[..., 0, :].shape, dtype=moved.dtype)
            after = trial(**{**start, mixing: moved})
            others = (before[result][..., 1:, :], after[result][..., 1:, :])
            _require_change(*others, f"replacing {mixing} at one position", f"{result} at any other", mixing)

    return probe


def _require_the_same(before: Results, again: Results) -> None:
    for name in before:
        if not bool(torch.isfinite(before[name]).all()):
            raise Failure(
                f"{name} holds nan or inf for ordinary inputs. Is there a division by zero, or a row of nothing but -inf?",
                mistake="nan or inf for ordinary inputs",
            )
        if not torch.allclose(before[name], again[name], rtol=1e-3, atol=1e-3):  # far above any rounding
            raise Failure(
                f"two calls on the same inputs give different {name}. Is something random in it, such as dropout?",
                mistake="another result at every call",
            )


def _require_change(before: Tensor, after: Tensor, change: str, result: str, name: str) -> None:
    if not bool((before != after).any()):
        raise Failure(
            f"{change} does not change {result}. Is {name} used there, or is a result kept from an earlier call?",
            mistake=f"{name} has no effect",
        )


def _first_that_runs(trial: Trial) -> tuple[dict[str, Tensor], Results]:
    """The case's tensors, or their first element along leading axes where the code takes fewer axes; the results."""
    start = {n: v for n, v in trial.inputs.items() if isinstance(v, Tensor) and n not in trial.weights}
    first: Failure | None = None
    while True:
        found = attempt(trial, **start)
        if not isinstance(found, Failure):
            return start, found
        first = first or found
        if min(value.dim() for value in start.values()) <= 2:
            raise first
        start = {n: v[0] for n, v in start.items()}


def permutation(
    inputs: Mapping[str, int], outputs: Mapping[str, int | None], what: str, mistake: str | None = None
) -> Probe:
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
            changed = (
                f"changed {name}" if out_axis is None else f"did not just put {name} into the same order"
            )
            trial.require(
                name,
                after[name],
                f"putting the {what} into another order {changed}",
                expected=expected,
                mistake=mistake or f"depends on the order of the {what}",
                **moved,
            )

    return probe


def _permuted(value: Tensor, axis: int, order: Tensor) -> Tensor:
    return value if value.shape[axis] == 1 else value.index_select(axis, order)


def agrees_with_slices(inputs: Mapping[str, int], outputs: tuple[str, ...]) -> Probe:
    """Each batch element and head stands alone, and any number of leading axes will do.

    `inputs` names the batched inputs and how many trailing axes are no batch axes. The result for one element of the
    batch, given alone without any leading axis, equals that element of the whole; so does the whole with one axis
    more.
    """

    def probe(trial: Trial) -> None:
        batched = {
            name: trial.inputs[name]
            for name, kept in inputs.items()
            if isinstance(trial.inputs.get(name), Tensor) and trial.inputs[name].dim() > kept
        }
        lead = max((value.shape[: value.dim() - inputs[name]] for name, value in batched.items()), key=len)
        place = tuple(trial.draw.integer(0, size - 1) for size in lead)
        single = {name: value[place] for name, value in batched.items()}
        deeper = {name: value.unsqueeze(0) for name, value in batched.items()}
        fewer = [
            {name: value[place[:cut]] for name, value in batched.items()} for cut in range(len(lead) + 1)
        ]
        runs = {len(lead) - cut: attempt(trial, **changes) for cut, changes in enumerate(fewer)}
        results = _all_of(runs | {len(lead) + 1: attempt(trial, **deeper)})
        whole, alone, nested = (results[axes] for axes in (len(lead), 0, len(lead) + 1))
        for name in outputs:
            trial.require(
                name,
                alone[name],
                f"element {list(place)} of the batch, given alone, gives another result",
                expected=whole[name][place],
                mistake="batch elements influence each other",
                **single,
            )
            trial.require(
                name,
                nested[name],
                "one more leading axis gives another result",
                expected=whole[name].unsqueeze(0),
                mistake="fixed number of leading axes",
                **deeper,
            )

    return probe


def _all_of(runs: Mapping[int, Results | Failure]) -> Mapping[int, Results]:
    """The results by number of leading axes. Raises: Failure, about that number if some of them work."""
    good = {axes: run for axes, run in runs.items() if not isinstance(run, Failure)}
    bad = {axes: run for axes, run in runs.items() if isinstance(run, Failure)}
    if not bad:
        return good
    axes, failure = next(iter(bad.items()))
    if not good:
        raise failure
    raise Failure(
        f"with {axes} leading axes, unlike with {next(iter(good))}: {failure.message.rstrip('.')}. "
        "Are axes counted from the end, as in transpose(-2, -1)?",
        mistake="fixed number of leading axes",
        errored=failure.errored,
    )
