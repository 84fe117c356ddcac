"""Sharing: is what should exist once there once, used everywhere it should be, and nowhere else?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autograder.case import Case, Draw
from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.objects import Remote, construct
from autograder.checks.subject import ModuleSubject, Parameter
from autograder.checks.trial import Trial
from autograder.observation import Observation

__all__ = [
    "StackSubject",
    "TasksSubject",
    "depth_is_refused",
    "groups",
    "one_copy",
    "own_heads",
    "symmetric_scores",
    "tasks_learn",
]


class StackSubject(ModuleSubject):
    """A student's class made from a layer and a depth; both are inputs of the case.

    The layer's weights are found by their values: the student's names for them are free.
    """

    def make(self, case: Case) -> Any:
        """A new stack."""
        return construct(self.module_class, case.inputs["layer"], case.inputs["depth"])

    def prepare(self, case: Case) -> dict[str, Tensor]:
        """Fresh N(0, 1 / fan_in) weights for the layer, by its own names."""
        self._built(case)
        draw = Draw(case.number + 1)
        return {
            name: draw.normal(*held.shape, dtype=torch.float64) / held.shape[-1] ** 0.5
            for name, held in case.inputs["layer"].build().named_parameters()
        }

    def call_with(self, case: Case, inputs: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
        """The stack's raw result on x, with `state` in place of its own weights, under all the names that they have."""
        module, _ = self._built(case)
        named = _by_all_names(module, state)
        return self.with_weights(module, named, (inputs["x"],), {}, tie=False)

    def call(self, case: Case, inputs: Mapping[str, Any]) -> Any:
        """The stack's raw result on x, with the weights among `inputs` in place of its own, in every copy of them."""
        return self.call_with(case, inputs, self._state(case, inputs))

    def observe(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """What the stack's forward does on x."""
        module, _ = self._built(case)
        if not isinstance(module, Remote):
            return super().observe(case, inputs)
        seen = module.observe([inputs["x"]], {}, self._state(case, inputs))
        return replace(seen, modified=("x",) if seen.modified else ())

    def _state(self, case: Case, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The weights among `inputs` by the module's own names, in every copy of them."""
        module, places = self._built(case)
        held = dict(module.named_parameters())
        return {
            raw: inputs[name][...]  # a tensor of its own: one for two copies would pass for shared
            for name, (first, _) in places.items()
            for raw, weight in held.items()
            if raw == first or (first in held and _equal(weight, held[first]))
        }

    def learned(self, case: Case, depth: int) -> int:
        """How many numbers a stack of that depth learns."""
        module = self._made(replace(case, inputs={**case.inputs, "depth": depth}))
        return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)

    def _places(self, state: dict[str, Tensor], case: Case) -> dict[str, Any]:
        places = {}
        for name, weight in case.inputs["layer"].build().named_parameters():
            raw = next((raw for raw, held in state.items() if _equal(held, weight)), None)
            if raw is None:
                raise Failure(
                    f"the layer's {name} is not among the module's parameters, which are: "
                    f"{', '.join(sorted(state)) or 'none'}. Is the layer that was handed over set in __init__, as it is?",
                    mistake="the layer is not held",
                )
            places[name] = (raw, _as_it_is)
        return places


def _by_all_names(module: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` under every name that a weight has, but once for a module that is registered twice.

    functional_call would leave its weights behind in such a module.
    """
    held = dict(module.named_parameters(remove_duplicate=False))
    values = {id(held[raw]): value for raw, value in state.items()}
    named: dict[tuple[int, str], tuple[str, Tensor]] = {}
    for raw, weight in held.items():
        path, _, last = raw.rpartition(".")
        if id(weight) in values:
            named[id(module.get_submodule(path)), last] = (raw, values[id(weight)])
    return dict(named.values())


def _as_it_is(weight: Tensor) -> Tensor:
    return weight


def _equal(one: Tensor, other: Tensor) -> bool:
    """The same random numbers: drawn in another process, they may differ in the last bit."""
    return one.shape == other.shape and torch.allclose(one.detach(), other.detach(), rtol=1e-5, atol=1e-6)


class TasksSubject(ModuleSubject):
    """A student's module with `heads`, one for each of `num_tasks` tasks."""

    def expected(self, case: Case) -> tuple[Parameter, ...]:
        """The shared weights, and heads.0, heads.1, ..."""
        square = ("d_model", "d_model")
        heads = (Parameter(f"heads.{task}", square, bias=True) for task in range(case.init["num_tasks"]))
        return (*self.parameters, *heads)

    def names(self, case: Case) -> dict[str, str]:
        """The canonical name of each of the module's own weights."""
        _, places = self._built(case)
        return {raw: name for name, (raw, _) in places.items()}


def one_copy() -> Probe:
    """The numbers that a stack learns are those of its layer, whatever the depth."""

    def probe(trial: Trial) -> None:
        if not isinstance(trial.subject, StackSubject):
            return
        wanted = sum(weight.numel() for weight in trial.case.inputs["layer"].build().parameters())
        for depth in (1, 2, 5):
            got = trial.subject.learned(trial.case, depth)
            if got == wanted:
                continue
            if got == depth * wanted:
                raise Failure(
                    f"a stack of depth {depth} learns {got:,} numbers; its layer has {wanted:,}. Has every depth a copy "
                    "of its own? Then nothing is shared.",
                    mistake="a copy of the layer for each depth",
                )
            raise Failure(
                f"a stack of depth {depth} learns {got:,} numbers; its layer has {wanted:,}, and nothing else should learn.",
                mistake="a parameter that the formula does not have"
                if got > wanted
                else "weights are not trainable",
            )

    return probe


def depth_is_refused(*depths: int) -> Probe:
    """A stack of such a depth cannot be made: the constructor raises ValueError."""

    def probe(trial: Trial) -> None:
        if not isinstance(trial.subject, StackSubject):
            return
        for depth in depths:
            case = replace(trial.case, inputs={**trial.case.inputs, "depth": depth})
            try:
                trial.subject.make(case)
            except ValueError:
                continue
            except Exception as error:
                raise Failure(
                    f"depth={depth} must raise ValueError; it raised {type(error).__name__}.",
                    mistake="raises another exception than ValueError",
                ) from error
            raise Failure(
                f"depth={depth} must raise ValueError in the constructor; a module came back. Is depth compared with 1?",
                mistake="depth is not checked",
            )

    return probe


def symmetric_scores(weights: str = "weights") -> Probe:
    """The scores behind the weights are symmetric: i scores j as j scores i. For cases without a mask.

    The weights alone tell: log w_ij = s_ij - n_i, so that going round three positions one way and the other way gives
    the same sum of logarithms. Each of the six logarithms is off by at most 4 (n + T) u.
    """

    def probe(trial: Trial) -> None:
        found = trial()[weights].detach().double()
        if not bool((found > 0).all()):
            raise Failure(
                "the weights are not all positive, so no scores lie behind them. Is there a softmax over the keys?",
                mistake="weights outside [0, 1]",
            )
        logs = found.log()
        steps = logs - logs.mT  # (..., S, S): s_ij - s_ji - n_i + n_j
        # Round the triangle 0, i, j the norms cancel.
        gaps = steps[..., 0, :, None] + steps - steps[..., 0, None, :]
        slack = 24 * (found.shape[-1] + trial.expect()[weights].growth) * torch.finfo(trial.dtype).eps
        if float(gaps.abs().max()) > slack:
            raise Failure(
                f"the scores behind the weights are not symmetric: off by {float(gaps.abs().max()):.3g} (+-{slack:.1g} by "
                "rounding). Are queries and keys made by the same projection?",
                mistake="scores are not symmetric",
            )

    return probe


def groups() -> Probe:
    """Changing one key or value head changes the outputs of its own group of query heads, and no others."""

    def probe(trial: Trial) -> None:
        before = trial()
        H_q, H_kv = trial.inputs["query"].shape[1], trial.inputs["key"].shape[1]
        size = H_q // H_kv
        for name, result in (("key", "weights"), ("value", "output")):
            for head in range(H_kv):
                other = trial.inputs[name].clone()
                other[:, head] = trial.draw.normal(*other[:, head].shape, dtype=other.dtype)
                after = trial(**{name: other})
                moved = (before[result] != after[result]).flatten(2).any(-1).any(0)  # (H_q,)
                got = [h for h in range(H_q) if bool(moved[h])]
                wanted = list(range(head * size, (head + 1) * size))
                if got != wanted:
                    raise Failure(
                        f"changing {name} head {head} of {H_kv} changes the {result} of the query heads {got}; "
                        f"expected {wanted}. Neighbours share: query head h reads head h // {size}.",
                        mistake="query heads read the wrong group",
                    )

    return probe


def own_heads() -> Probe:
    """Each task's output comes from its own head and from no other; the weights are the same for every task."""

    def probe(trial: Trial) -> None:
        tasks = range(trial.case.init["num_tasks"])
        results = {task: trial(task=task) for task in tasks}
        for task in tasks:
            trial.require(
                "weights",
                results[task]["weights"],
                f"task {task} gets other weights than task 0",
                expected=results[0]["weights"],
                mistake="tasks do not share their attention",
            )
            other = trial.draw.normal(*trial.inputs[f"heads.{task}"].shape, dtype=trial.dtype)
            changed = {f"heads.{task}": other}
            moved = [
                t for t in tasks if not torch.equal(trial(task=t, **changed)["output"], results[t]["output"])
            ]
            if moved != [task]:
                raise Failure(
                    f"changing heads[{task}] changes the output of the tasks {moved}; expected [{task}].",
                    mistake="a task reads another task's head",
                )

    return probe


def tasks_learn(output: str = "output") -> Probe:
    """Training one task trains the shared layers and that task's head, and leaves the other heads alone."""

    def probe(trial: Trial) -> None:
        subject = trial.subject
        if not isinstance(subject, TasksSubject):
            return
        if untrained := subject.untrained(trial.case):
            raise Failure(
                f"training would not change {', '.join(untrained)}. Is each a layer set in __init__, and not frozen?",
                mistake="weights are not trainable",
            )
        if surplus := subject.surplus(trial.case):
            raise Failure(
                f"the module learns {', '.join(surplus)}, too, which the formula does not have. Should it be there?",
                mistake="a parameter that the formula does not have",
            )
        trainable = subject.trainable(trial.case)
        for task in range(trial.case.init["num_tasks"]):
            inputs = trial.changed(x=trial.inputs["x"].clone(), task=task)
            result = trial.named(subject.call_with(trial.case, inputs, trainable))[output]
            if not result.requires_grad:
                raise Failure(
                    f"no gradient of {output} reaches any parameter.", mistake="gradient is cut off"
                )
            found = torch.autograd.grad(result.square().sum(), list(trainable.values()), allow_unused=True)
            reached = {n for n, g in zip(trainable, found, strict=True) if g is not None}
            felt = {n for n, g in zip(trainable, found, strict=True) if g is not None and bool(g.any())}
            for raw, name in subject.names(trial.case).items():
                _require_the_right_reach(name, task, raw in reached, raw in felt)

    return probe


def _require_the_right_reach(name: str, task: int, reached: bool, felt: bool) -> None:
    """A bias of the keys shifts all scores of a row alike: its gradient is rightly zero, but it is there."""
    own = not name.startswith("heads.") or name.removesuffix("_bias") == f"heads.{task}"
    if own and not reached:
        raise Failure(
            f"training task {task} sends no gradient to {name}. Is it used, and is it detached anywhere?",
            mistake="gradient is cut off",
        )
    if not own and felt:
        raise Failure(
            f"training task {task} changes {name}, the head of another task. Is only heads[task] applied?",
            mistake="a task trains another task's head",
        )
