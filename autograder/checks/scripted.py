"""Subjects that are put to use by a script: an object whose methods are called, a module that is fed in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Case
from autograder.checks.failure import Failure
from autograder.checks.objects import construct, invoke
from autograder.checks.subject import FunctionSubject, ModuleSubject
from autograder.circumstance import THERE, mark, present
from autograder.observation import Observation

__all__ = ["FedModule", "UsedFunction", "UsedObject", "length_of", "numbers_as_tensors"]

Script = Callable[[Callable[..., Any], Mapping[str, Any]], Any]
"""Puts to use what it is given (what makes objects of a class, or calls a function), and returns what came out."""


def numbers_as_tensors(result: Any) -> Any:
    """A result whose plain numbers have become tensors of no axes, so that one comparison serves all."""
    if isinstance(result, (tuple, list)):
        return type(result)(numbers_as_tensors(item) for item in result)
    if isinstance(result, (int, float)) and not isinstance(result, bool):
        return torch.tensor(result, dtype=torch.float64)
    return result


class UsedFunction(FunctionSubject):
    """A student's function that may return plain numbers, as another function that `script` makes of it.

    script: what calls the function with arguments by name, and the inputs -> the result; without one, a single call.
    """

    several_calls = True

    def __init__(
        self, function: Callable[..., Any], positional: tuple[str, ...], script: Script | None = None
    ):
        super().__init__(function, positional)
        self.script = script

    def call(self, case: Case, inputs: Mapping[str, Any]) -> Any:
        """What the script gives, numbers as tensors."""
        once = super().call
        if self.script is None:
            return numbers_as_tensors(once(case, inputs))
        return numbers_as_tensors(self.script(lambda given: once(case, given), inputs))


class UsedObject:
    """A student's class that is no module, as the function that `script` makes of it."""

    several_calls = True
    """The script makes several calls: what comes before a call comes before all of them."""

    def __init__(self, made: Callable[..., Any], script: Script):
        self.made, self.script = made, script

    def make(self, *args: Any) -> Any:
        """An object of the class."""
        return construct(self.made, *args)

    def prepare(self, case: Case) -> dict[str, Tensor]:
        """An object has no weights."""
        return {}

    def call(self, case: Case, inputs: Mapping[str, Any]) -> Any:
        """What the script gives."""
        return numbers_as_tensors(self.script(self.make, inputs))

    def observe(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """Objects are asked, not watched."""
        raise NotImplementedError("an object cannot be watched")


class FedModule(ModuleSubject):
    """A module with forward(x, start=0) that is fed x (..., S, d_model) in pieces of the lengths `chunks`.

    Another text may come `other`="before" it, shorter and in a larger batch, or stand "beside" it, in a second module that is
    fed in turn. Every call gets the module's buffers as they were made: what it remembers in one is lost.
    Inputs that are arguments of the constructor, too, are for the formula and are not handed over.
    """

    several_calls = True

    def call_with(self, case: Case, inputs: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
        """The outputs for all pieces, one after the other along the positions; the ordinary call without `chunks`."""
        given, other = _without(inputs, "chunks", "other", *case.init), inputs.get("other")
        if other == "before":
            x = given["x"].flip(-2)[..., 1:, :] if given["x"].shape[-2] > 1 else given["x"]
            super().call_with(case, given | {"x": torch.cat([x, x]) if x.dim() > 2 else x}, state)
        chunks = inputs.get("chunks") or [given["x"].shape[-2]]
        beside, outputs, start = self._another(case) if other == "beside" else None, [], 0
        for piece in given["x"].split(chunks, dim=-2):
            step = {**given, "x": piece} | ({"start": start} if start else {})
            output = super().call_with(case, step, state)
            if not isinstance(output, Tensor) or output.shape != piece.shape:
                return output
            if beside is not None:
                self.with_weights(beside, state, (piece.flip(-1),), {"start": start} if start else {})
            outputs.append(output)
            start += piece.shape[-2]
        return torch.cat(outputs, -2) if len(outputs) > 1 else outputs[0]

    def _another(self, case: Case) -> Any:
        """A second module of the class, where the first one is and in its mode."""
        made = self.make(case).train(self.module(case).training)
        if present().second_device:
            mark((*made.parameters(), *made.buffers()), THERE)
        return made

    def with_weights(
        self,
        module: Any,
        state: Mapping[str, Tensor],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        tie: bool = True,
    ) -> Any:
        """One call, with copies of the module's buffers beside the weights."""
        held = {name: buffer.clone() for name, buffer in module.named_buffers()}
        return super().with_weights(module, {**state, **held}, args, kwargs, tie)

    def observe(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """What one forward pass does."""
        return super().observe(case, _without(inputs, "chunks", "other", *case.init))


def _without(inputs: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name not in names}


def length_of(obj: Any) -> int:
    """len(obj), wherever the object lives. Raises: Failure if that is no whole number."""
    length = invoke(obj, "__len__")
    if type(length) is not int:
        raise Failure(f"len() must give a whole number; it gave a {type(length).__name__}.")
    return length
