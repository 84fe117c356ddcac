"""One case in its situation: the call is made as the situation says, and everything that comes back is compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autograder.case import CASES_PER_SEED
from autograder.checks.agreement import as_float32
from autograder.checks.conduct import strided
from autograder.checks.failure import Failure
from autograder.checks.subject import ModuleSubject
from autograder.checks.trial import Trial
from autograder.circumstance import Circumstance
from autograder.situations.covering import Row
from autograder.situations.space import GRADIENT, HALVED, LONG_SUMS, Situations, expanded

__all__ = ["circumstance_of", "cut", "hold"]

BEFORE = {
    "in tensors used before": "other numbers",
    "after results were written over": "results",
    "with an earlier result": "apart",
    "after an optimizer step": "other weights",
}


def circumstance_of(row: Row, dtype: torch.dtype) -> Circumstance:
    """How the calls of a situation are made."""
    grad = {
        "activation checkpointing": "checkpoint",
        "no_grad": "no_grad",
        "inference_mode": "inference_mode",
    }
    other = "float32" if dtype == torch.float64 else "float64"
    return Circumstance(
        grad=grad.get(row.get("gradient", ""), ""),
        default_dtype=other if row.get("default dtype") == "another default dtype" else "",
        second_device=row.get("device") == "a second device",
        poisoned=row.get("device") == "a second device",
        before=BEFORE.get(row.get("state", ""), ""),
        watched=row.get("gradient") not in GRADIENT,
        far=row.get("layout") == "far apart in memory",
    )


def cut(inputs: Mapping[str, Any], axes: Mapping[str, str], lengths: tuple[str, ...]) -> dict[str, Any]:
    """The inputs with one position less along the first of these lengths that there is, and two more on the other."""
    symbols = {
        symbol
        for name, spec in axes.items()
        if isinstance(inputs.get(name), Tensor)
        for symbol in spec.split()
    }
    symbol = next((one for one in lengths if one in symbols), "")
    made = dict(inputs)
    for name, spec in axes.items():
        value = inputs.get(name)
        if isinstance(value, Tensor) and symbol in (names := spec.split()):
            places = [n - len(names) for n, one in enumerate(names) if one == symbol]
            for place in [one for one in places if value.dim() >= -one]:  # a mask may have fewer axes
                size = value.shape[place]
                if size > 1 or name != "attn_mask":
                    order = torch.arange(size - 1) if size > 1 else torch.zeros(3, dtype=torch.int64)
                    value = value.index_select(place, order)
            made[name] = value
    return made


def hold(space: Situations, trial: Trial) -> None:
    """The student's results are right in the case's situation. Raises: Failure."""
    row = trial.case.situation
    circumstance = replace(circumstance_of(row, trial.dtype), one_object=bool(_twins(trial)))
    module = _module(trial) if space.module else None
    if module is not None:
        module.train(row.get("mode") != "eval mode")
    with trial.within(circumstance):
        _before(space, trial, row)
        if row.get("gradient") in GRADIENT:
            _differentiates(space, trial, row)
        else:
            _judge(space, trial, _laid_out(space, trial, trial.fresh(), row))
            if row.get("state") == "beside a second object":
                _judge(space, trial, trial.fresh())


def _twins(trial: Trial) -> dict[str, str]:
    """Inputs that are the same object as an earlier one, each with the name of that."""
    names = trial.differentiable
    first = {id(trial.inputs[name]): name for name in reversed(names)}
    return {name: one for name in names if (one := first[id(trial.inputs[name])]) != name}


def _module(trial: Trial) -> Any:
    return trial.subject.module(trial.case) if isinstance(trial.subject, ModuleSubject) else None


def _before(space: Situations, trial: Trial, row: Row) -> None:
    """What happens before the call that counts: what it gives is not looked at, but it must not fail."""
    state = row.get("state")
    if state == "after other sizes":
        _called(trial, trial.fresh(**cut(trial.inputs, space.axes, space.lengths)))
    elif state == "beside a second object":
        _judge(space, trial, trial.fresh())
        other = replace(trial.case, number=trial.case.number + CASES_PER_SEED // 2)
        second = Trial(trial.target, trial.subject, other)  # a module of its own, with weights of its own
        second.circumstance = trial.circumstance
        _called(second, second.fresh(**_others(second.inputs)))


def _others(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Other numbers of the same shapes."""
    return {
        n: v * 0.5 + 0.25 if v.is_floating_point() else v.flip(-1) if v.dtype == torch.bool and v.dim() else v
        for n, v in inputs.items()
        if isinstance(v, Tensor)
    }


def _laid_out(space: Situations, trial: Trial, inputs: dict[str, Any], row: Row) -> dict[str, Any]:
    """The inputs in the situation's layout. Weights stay as they are: leaves, which lie as modules hold them."""
    layout = row.get("layout")
    if layout == "strided":
        given = {n: v for n, v in inputs.items() if isinstance(v, Tensor) and n not in trial.weights}
        return {**inputs, **strided(given)}
    return expanded(inputs, space.axes) if layout == "expanded" else inputs


def _judge(space: Situations, trial: Trial, given: Mapping[str, Any]) -> None:
    """The results for these inputs are right: as the exercise says, or else the formula's. Raises: Failure."""
    if space.right is None:
        _right(trial, _results(trial, given))
        return
    try:
        results = trial.named(trial.run(given))
    except Failure as failure:
        raise _explained(failure, trial) from failure
    space.right(trial, results)


def _results(trial: Trial, given: Mapping[str, Any]) -> dict[str, Tensor]:
    return trial.shaped(_called(trial, given))


def _called(trial: Trial, given: Mapping[str, Any]) -> Any:
    try:
        return trial.run(given)
    except Failure as failure:
        raise _explained(failure, trial) from failure


def _explained(failure: Failure, trial: Trial) -> Failure:
    """What the kind of an exception tells."""
    if failure.kind == "InputWrittenTo":
        return Failure(
            "the call changed its input. Is there an in-place operation (-=, *=, a trailing underscore, an indexed "
            "assignment)?",
            mistake="changes its inputs in place",
        )
    if failure.kind == "EarlierResultChanged":
        return Failure(
            "a later call changed the result of an earlier one. Is the same memory handed out each time?",
            mistake="returns memory that it uses again",
        )
    if failure.kind == "ModeLeft":
        return Failure(
            f"{failure.message.removeprefix('raised ModeLeft: ')}. Is a block meant, as in `with torch.no_grad():`?",
            mistake="leaves a mode of torch changed",
        )
    if failure.kind == "MixedDevices":
        return Failure(
            f"{failure.message.removeprefix('raised MixedDevices: ')}. The inputs may lie on a GPU. Is a mask or a table "
            "made without device=...?",
            mistake="makes a tensor on the CPU",
            errored=True,
        )
    if "without overflow" in failure.message:
        return Failure(
            f"{failure.message}. Is the mask value too large for {_short(trial.dtype)}? torch.finfo(scores.dtype).min never is.",
            mistake="mask value does not fit the dtype",
            errored=True,
        )
    return failure


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


EXACTLY = 1e-12
"""Of the largest number of a float64 result: far above its rounding, wherever terms cancel, and far below float32's."""


def _within(actual: Tensor, expected: Tensor, share: float) -> bool:
    finite = bool(actual.isfinite().all()) and bool(expected.isfinite().all()) and actual.numel() > 0
    return finite and float((actual.detach() - expected).abs().max()) <= share * float(expected.abs().max())


def _right(trial: Trial, results: Mapping[str, Tensor]) -> None:
    """Values and dtypes are the formula's. Raises: Failure."""
    for name, value in results.items():
        statistic = name in trial.target.statistics
        if statistic and value.dtype != torch.float32:
            raise Failure(
                f"{name} is {_short(value.dtype)}; it must be float32 for every dtype of the inputs.",
                mistake="statistics are not float32",
            )
        kept = statistic or trial.target.whole
        if not kept and value.dtype != trial.dtype and value.is_floating_point():
            raise Failure(
                f"{name} is {_short(value.dtype)} for {_short(trial.dtype)} inputs; it must keep their dtype.",
                mistake="does not keep the dtype",
            )
        expected = trial.expect()[name].value
        if trial.target.whole:
            _counts(name, int(value), int(expected))
            continue
        if (
            name == "weights"
            and value.dim()
            and bool(((value == 0).all(-1) & (expected.sum(-1) > 0.5)).any())
        ):
            raise Failure(
                "a row of the weights is all zero; it must sum to 1.", mistake="weights do not sum to one"
            )
        # In float64 a weight that is as good as zero may be one by a hair of rounding.
        least = torch.finfo(torch.float64).tiny if trial.dtype == torch.float64 else 0.0
        if name == "weights" and bool((value.nan_to_num(0.0).abs() > least)[expected == 0].any()):
            raise Failure(
                "a key that is not allowed keeps some weight; it must weigh exactly zero. Is the fill low enough for all scores?",
                mistake="forbidden keys keep some weight",
            )
        if trial.dtype == torch.float64 and _within(value, expected, EXACTLY):
            continue
        claim, mistake = "is not what the formula gives", None
        if trial.dtype == torch.float64 and as_float32(value, expected):
            claim = "is right in float32, not in float64 (is a part computed in another dtype?)"
            mistake = "less precise than its dtype"
        elif {LONG_SUMS, HALVED} <= set(trial.case.situation.values()):
            claim += " (in bfloat16 a sum of many terms stands still: is it kept in float32?)"
            mistake = "a long sum is kept in half precision"
        trial.require(name, value, claim, mistake=mistake)


NEARLY = 1e-6
"""Of a count: below any factor or term that one forgets."""


def _counts(name: str, got: int, wanted: int) -> None:
    """A count is right to the last one. Raises: Failure."""
    if 0 < abs(got - wanted) <= NEARLY * wanted:
        raise Failure(
            f"{name} is {got:,}, expected exactly {wanted:,}. Is a part of it computed as a float and rounded?",
            mistake="rounded on the way",
        )
    if got != wanted:
        raise Failure(f"{name} is {got:,}, expected {wanted:,}.")


def _differentiates(space: Situations, trial: Trial, row: Row) -> None:
    """Results and the gradient of each with respect to every input and weight."""
    wanted_of, twins = trial.differentiable, _twins(trial)
    if row.get("gradient") == "a gradient of one input":
        chosen = wanted_of[trial.case.number % len(wanted_of)]
        wanted_of = tuple(n for n in wanted_of if twins.get(n, n) == twins.get(chosen, chosen))
    leaves = {n: trial.inputs[n].clone().requires_grad_() for n in wanted_of}
    # In float16 what is added up on the way must not overflow.
    scale = 1 / 256 if trial.dtype == torch.float16 else 1.0
    derivatives = trial.derivatives(wanted_of, scale)
    # An input may be what something made; a weight is always a leaf.
    given = {n: leaf.clone() if n in trial.case.inputs else leaf for n, leaf in leaves.items()}
    others = {n: v.clone() for n, v in trial.inputs.items() if isinstance(v, Tensor) and n not in given}
    if row["gradient"] == "a gradient of one input" and space.right is None:
        with trial.within(replace(trial.circumstance, grad="inference_mode", before="")):
            _called(trial, trial.fresh())  # what is kept from such a call must serve one with a gradient
    results = _results(trial, _laid_out(space, trial, trial.changed(**others, **given), row))
    (space.right or _right)(trial, {name: value.detach() for name, value in results.items()})
    if row["gradient"] == "a gradient asked" and space.right is None:
        _called(trial, trial.fresh(**_others(trial.inputs)))  # a backward pass is that of its own call
    # What a gradient is a sum of: its terms are products of a factor and of the other inputs, whatever their sum is.
    degree = min(3, max(2, len(trial.differentiable) - len(trial.weights) - 1))
    product = math.prod(trial.shared("sizes", lambda: _sizes(trial))[-degree:])
    for name, result in results.items():
        if not result.numel() or name not in (*derivatives, *trial.target.detached):
            continue
        none = torch.ones_like(result, dtype=torch.float64), (None,) * len(leaves)
        factors, wanted = derivatives.get(name, none)
        found = (
            _backward(result, factors, list(leaves.values()))
            if result.requires_grad
            else (None,) * len(leaves)
        )
        terms = float(factors.abs().max()) * product
        slack = SLACK * torch.finfo(trial.dtype).eps * (1 + trial.expect()[name].growth) * terms
        for leaf, want, have in _added(leaves, wanted, found, twins):
            if want is None and have is not None and bool((have != 0).any()):
                raise Failure(
                    f"a gradient of {name} flows into {leaf} (up to {float(have.abs().max()):.3g}); none should. "
                    "Is what is only kept, or comes from earlier, detached?",
                    mistake=f"{name} is not detached"
                    if name in trial.target.detached
                    else f"gradient flows into the {leaf}",
                )
            if (
                want is not None
                and want.numel()
                and float(want.abs().max()) < torch.finfo(trial.dtype).max / 16
            ):
                least = 1e-2 * terms if trial.dtype in HALVES else slack
                try:
                    _same_gradient(name, leaf, want.nan_to_num(), have, slack, least)
                except Failure:  # so much more is looked at only where it matters
                    if trial.dtype in HALVES:
                        raise
                    more = slack + _unsteadiness(trial, name, leaf, tuple(leaves), wanted, scale, twins)
                    _same_gradient(name, leaf, want.nan_to_num(), have, more, max(least, more))


def _unsteadiness(
    trial: Trial,
    name: str,
    leaf: str,
    leaves: tuple[str, ...],
    wanted: Gradients,
    scale: float,
    twins: Mapping[str, str],
) -> float:
    """How far the gradient of a result with respect to a leaf may be off where all steps towards it are rounded."""
    lost = trial.unsteady(leaves, scale)[name][1]
    of = {one: have for one, _, have in _added(leaves, wanted, lost, twins)}
    gap = of.get(leaf)
    return 0.0 if gap is None or not gap.numel() else UNSTEADY * float(gap.nan_to_num(0.0, 0.0, 0.0).max())


def _sizes(trial: Trial) -> list[float]:
    """How large each input's largest finite number is, one at least, in order."""
    given = [trial.inputs[name] for name in trial.differentiable]
    return sorted(max(1.0, float(v.masked_fill(~v.isfinite(), 0.0).abs().max())) for v in given if v.numel())


Gradients = tuple[Tensor | None, ...]


def _added(
    leaves: Iterable[str], wanted: Gradients, found: Gradients, twins: Mapping[str, str]
) -> Iterator[tuple[str, Tensor | None, Tensor | None]]:
    """Each leaf's gradient by the formula and by the student; what is one object has the sum of its gradients."""
    groups: dict[str, list[tuple[Tensor | None, Tensor | None]]] = {}
    for leaf, *both in zip(leaves, wanted, found, strict=True):
        groups.setdefault(twins.get(leaf, leaf), []).append((both[0], both[1]))
    for leaf, pairs in groups.items():
        want, have = ([one for one in of if one is not None] for of in zip(*pairs, strict=True))
        yield leaf, sum(want[1:], want[0]) if want else None, sum(have[1:], have[0]) if have else None


def _backward(result: Tensor, factors: Tensor, leaves: list[Tensor]) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(
            result, leaves, factors.to(result.dtype, copy=True), allow_unused=True, retain_graph=True
        )
    except RuntimeError as error:
        raise Failure(
            f"backward() raised {type(error).__name__}: {str(error)[:300]}",
            mistake="overwrites what backward() needs" if "inplace operation" in str(error) else None,
            errored=True,
        ) from error


HALVES = (torch.float16, torch.bfloat16)

SLACK = 64.0
"""Roundings that a gradient may have gone through."""

UNSTEADY = 32.0
"""The same, in units of what one rounding of every step does to it."""


def _same_gradient(
    output: str, leaf: str, want: Tensor, have: Tensor | None, slack: float, least: float
) -> None:
    """One gradient against the formula's, within `slack`; one that is nowhere larger than `least` need not be there."""
    if have is not None and not bool(torch.isfinite(have).all()):
        raise Failure(
            f"the gradient of {output} with respect to {leaf} is nan or inf.", mistake="nan gradients"
        )
    peak = float(want.abs().max())
    if (have is None or not bool((have != 0).any())) and peak > least:
        raise Failure(
            f"no gradient of {output} reaches {leaf}. Is it used, and is it detached anywhere?",
            mistake="gradient is cut off",
        )
    if have is None:
        return
    error = float((have.double() - want).abs().max())
    if error > max(slack, max(1e-6, SLACK * torch.finfo(have.dtype).eps) * peak):
        raise Failure(
            f"the gradient of {output} with respect to {leaf} is off by {error / max(peak, 1e-300):.3g} times its largest "
            "element. Is a part of the computation detached, under no_grad, or rounded?",
            mistake="wrong gradient",
        )
