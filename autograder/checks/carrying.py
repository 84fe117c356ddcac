"""Carrying on: code that returns a state, a memory or a cache, and reads it again with the next piece."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from autograder.case import Case
from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.objects import Remote
from autograder.checks.subject import FunctionSubject
from autograder.checks.trial import Trial
from autograder.circumstance import ORDINARY, Circumstance, under
from autograder.observation import Observation, observe

__all__ = [
    "StateSubject",
    "branches_apart",
    "no_gradient_through",
    "pieces_agree",
    "remembers",
    "texts_in_turn",
]


class StateSubject(FunctionSubject):
    """A student's function (..., state=(kv, z)) -> output, (kv, z), as one of kv and z that returns three tensors."""

    def __init__(self, function: Any, positional: tuple[str, ...], parameters: None = None):
        super().__init__(function, positional)

    def call(self, case: Case, inputs: Mapping[str, Any]) -> Any:
        """The result, the state in it laid out flat. Raises: Failure if there is no state of two parts in it."""
        result = super().call(case, _packed(inputs))
        state = result[1] if isinstance(result, (tuple, list)) and len(result) == 2 else None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise Failure(
                "must return output, (kv, z): a pair, the second of which is a pair.",
                mistake="does not return what is asked for",
            )
        return result[0], state[0], state[1]

    def observe(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """What the function does on `inputs`."""
        if isinstance(self.function, Remote):
            return super().observe(case, _packed(inputs))
        return observe(lambda given: self.call(case, given), inputs)


def _packed(inputs: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in inputs.items() if name not in ("kv", "z")}
    return rest | ({"state": (inputs["kv"], inputs["z"])} if "kv" in inputs else {})


def pieces_agree(sequences: tuple[str, ...], carried: tuple[str, ...], output: str = "output") -> Probe:
    """A sequence fed in pieces, single positions among them, gives the formula's results for the whole.

    sequences: the inputs that are cut along their axis -2. carried: results that the next call is given under the same
    names; the case gives none of them.
    """

    def probe(trial: Trial) -> None:
        length = trial.inputs[sequences[0]].shape[-2]
        first = trial.draw.integer(1, max(1, length - 3))
        cuts = sorted({0, first, min(first + 1, length), length})
        rows, state = [], dict[str, Tensor]()
        for start, stop in pairwise(cuts):
            piece = {name: trial.inputs[name][..., start:stop, :] for name in sequences}
            results = trial(**piece, **state)
            state = {name: results[name] for name in carried}
            rows.append(results[output])
        lengths = [stop - start for start, stop in pairwise(cuts)]
        for name, got in {output: torch.cat(rows, -2), **state}.items():
            trial.require(
                name,
                got,
                f"fed in pieces of {', '.join(map(str, lengths))}, it gives another result than as a whole",
                mistake="pieces differ from the whole",
            )

    return probe


def texts_in_turn(sequences: tuple[str, ...], carried: tuple[str, ...], output: str = "output") -> Probe:
    """Two texts fed in two pieces each, in turn: each goes on from what it is handed, not from what was left behind."""

    def probe(trial: Trial) -> None:
        length = trial.inputs[sequences[0]].shape[-2]
        cut = trial.draw.integer(1, max(1, length - 1))
        texts = [
            {name: trial.inputs[name] for name in sequences},
            {name: trial.inputs[name].flip(-2) * 0.5 for name in sequences},
        ]
        handed = []
        for text in texts:
            results = trial(**{name: rows[..., :cut, :] for name, rows in text.items()})
            handed.append({name: results[name] for name in carried})
        for text, state in zip(texts, handed, strict=True):
            piece = {name: rows[..., cut:, :] for name, rows in text.items()}
            trial.require(
                output,
                trial(**piece, **state)[output],
                f"of two texts fed in turn, {cut} positions and then the rest, one goes on as if it were another",
                expected=trial.expect(**text)[output].value[..., cut:, :],
                mistake="goes on from an earlier call, not from what it is handed",
                **piece,
                **state,
            )

    return probe


def branches_apart(sequence: str, carried: str) -> Probe:
    """Two continuations of one text, without a gradient: the second leaves what the first has given as it was."""

    def probe(trial: Trial) -> None:
        rows = trial.inputs[sequence]
        trial.circumstance = Circumstance(grad="no_grad")
        try:
            with under(trial.circumstance):
                state = trial(**{sequence: rows[..., :-1, :]})[carried]
                one, two = ({sequence: rows[..., -1:, :] * factor, carried: state} for factor in (1.0, 0.5))
                first = trial.named(trial.run(trial.changed(**one)))
                before = {name: value.clone() for name, value in first.items()}
                trial.run(trial.changed(**two))
        finally:
            trial.circumstance = ORDINARY
        for name, value in first.items():
            if not torch.equal(value.nan_to_num(), before[name].nan_to_num()):
                raise Failure(
                    f"of two continuations of one text, from the same {carried}, the second changes the {name} of the first. "
                    "Does a call write into memory that an earlier one has handed out?",
                    mistake=f"writes into the {carried} that it has handed out",
                )

    return probe


def remembers(sequence: str, memory: str, returned: str, length: str) -> Probe:
    """What is returned as the new memory are the last `length` rows of the old one and the sequence, for any length.

    Lengths from none to more than there are, each with a memory and without.
    """

    def probe(trial: Trial) -> None:
        x, old = trial.inputs[sequence], trial.inputs[memory]
        for before in (old, None):
            rows = x.shape[-2] + (0 if before is None else before.shape[-2])
            for wanted in (0, 1, x.shape[-2], rows - 1, rows, rows + 2):
                changes = {memory: before, length: wanted}
                expected = trial.expect(**changes)[returned].value
                got = trial.named(trial.run(trial.fresh(**changes)))[returned].detach().double()
                if got.shape != expected.shape or not torch.equal(got, expected):
                    raise Failure(
                        f"with {length}={wanted}, {'no' if before is None else f'{before.shape[-2]} rows of'} {memory} and "
                        f"{x.shape[-2]} rows of {sequence}, {returned} of shape {tuple(got.shape)} does not hold the last "
                        f"{expected.shape[-2]} rows of [{memory}, {sequence}] as they are.",
                        mistake="the new memory is not the last rows",
                    )

    return probe


def no_gradient_through(memory: str, returned: str, output: str = "output") -> Probe:
    """No gradient flows from the output into the memory, nor from the returned memory into anything, there first one too."""

    def probe(trial: Trial) -> None:
        leaves = {name: trial.inputs[name].clone().requires_grad_() for name in trial.differentiable}
        results = trial(**leaves)
        if results[output].requires_grad:
            into = torch.autograd.grad(
                results[output].square().sum(), leaves[memory], allow_unused=True, retain_graph=True
            )[0]
            if into is not None and bool((into != 0).any()):
                raise Failure(
                    f"a gradient of {output} flows into {memory} (up to {float(into.abs().max()):.3g}). Training would "
                    "reach back through all earlier segments. Is it detached?",
                    mistake="gradient flows into the memory",
                )
        own = trial.inputs[memory].clone().requires_grad_()
        trial.run(trial.fresh() | {memory: own})
        if not own.requires_grad:
            raise Failure(
                f"the call switches off the gradient of the {memory} that it is given, for its owner, too. Is it "
                "requires_grad_ or detach_ where detach is meant?",
                mistake="changes its inputs in place",
            )
        first = trial(**{**leaves, memory: None})[returned]
        for made, when in ((results[returned], ""), (first, f" where there is no {memory} yet")):
            if not made.requires_grad:
                continue
            found = torch.autograd.grad(made.sum(), list(leaves.values()), allow_unused=True)
            if any(one is not None and bool((one != 0).any()) for one in found):
                raise Failure(
                    f"{returned}{when} carries a gradient to what it was made of: the graph of this segment would be kept alive "
                    "by the next one. Is it detached?",
                    mistake=f"{returned} is not detached",
                )

    return probe
