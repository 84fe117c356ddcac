"""Exercise `KVCache`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.decoding import refused
from autograder.checks.failure import student_code
from autograder.checks.objects import invoke
from autograder.checks.scripted import UsedObject, length_of
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.generation import whole
from autograder.oracle.quantity import Quantity, Rounder, exact

__all__ = ["KV_CACHE"]

OUTPUTS = ("keys", "values", "lengths")


def _inputs(
    draw: Draw, *, pieces: str = "several", axes: int = 2, dtype: torch.dtype = torch.float32, spare: int = 0
) -> dict[str, Any]:
    """key (..., S, D), value (..., S, D_v), the lengths of the pieces, and room for `spare` positions more."""
    *lead, D, D_v = draw.sizes(axes + 2)
    steps = {"one": [draw.integer(3, 5)], "single": [1] * 5}
    chunks = steps.get(pieces) or [draw.integer(2, 5), 1, draw.integer(2, 4), 1, 1]
    S = sum(chunks)
    return {
        "key": draw.normal(*lead, S, D, dtype=dtype),
        "value": draw.normal(*lead, S, D_v, dtype=dtype),
        "chunks": chunks,
        "max_length": S + spare,
    }


def _fill(cache: Any, inputs: Mapping[str, Any]) -> tuple[Any, list[int]]:
    """What the last append returns, and the lengths before the first append and after each."""
    result, lengths = None, [length_of(cache)]
    pieces = zip(
        inputs["key"].split(inputs["chunks"], -2), inputs["value"].split(inputs["chunks"], -2), strict=True
    )
    for key, value in pieces:
        result = invoke(cache, "append", key.clone(), value.clone())
        lengths.append(length_of(cache))
    return result, lengths


def _script(make: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
    result, lengths = _fill(make(inputs["max_length"]), inputs)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Failure(
            "append must return the keys and values of all positions so far, (keys, values).",
            mistake="does not return what is asked for",
        )
    return (*result, torch.tensor(lengths, dtype=torch.float64))


def _formula(
    key: Tensor, value: Tensor, chunks: list[int], max_length: int, round: Rounder = exact
) -> dict[str, Quantity]:
    return {
        "keys": Quantity(key, key.abs()),
        "values": Quantity(value, value.abs()),
        "lengths": whole([0, *accumulate(chunks)]),
    }


def _grows(*names: str) -> Callable[[Trial], None]:
    def probe(trial: Trial) -> None:
        results, expected = trial(), trial.expect()
        for name in names:
            if not torch.equal(results[name].to(torch.float64), expected[name].value):
                raise Failure(
                    f"after appending pieces of {trial.inputs['chunks']} positions, {name} "
                    + (
                        f"are {results[name].long().tolist()}; expected {expected[name].value.long().tolist()}: "
                        "before the first append, and after each."
                        if name == "lengths"
                        else "are not those of all positions, oldest first, unchanged."
                    ),
                    mistake="len() is wrong" if name == "lengths" else None,
                )

    return probe


def _dtype(trial: Trial) -> None:
    results = trial()
    for name in ("keys", "values"):
        if results[name].dtype != trial.dtype:
            raise Failure(
                f"{name} are {str(results[name].dtype).removeprefix('torch.')}; they went in as "
                f"{str(trial.dtype).removeprefix('torch.')}. Is the buffer made with the dtype of what goes in?",
                mistake="does not keep the dtype",
            )
    _grows("keys", "values")(trial)


def _maker(trial: Trial) -> Callable[..., Any]:
    if not isinstance(trial.subject, UsedObject):
        raise Failure("must be a class.")
    return trial.subject.make


def _reset(trial: Trial) -> None:
    """After reset the cache is as new, also for keys of another batch size."""
    inputs = trial.inputs
    with student_code():
        cache = _maker(trial)(inputs["max_length"])
        _fill(cache, inputs)
        invoke(cache, "reset")
        length = length_of(cache)
        key, value = (inputs[name][:1, ..., :2, :] * 2 for name in ("key", "value"))
        found = _two_tensors(invoke(cache, "append", key.clone(), value.clone()))
    if length != 0 or not all(
        got.shape == want.shape and torch.equal(got, want)
        for got, want in zip(found, (key, value), strict=True)
    ):
        raise Failure(
            f"after reset() the length is {length}, and a first append of {tuple(key.shape)} gives keys of shape "
            f"{tuple(found[0].shape)}. It must be as if the cache were new.",
            mistake="reset does not forget",
        )


def _two_tensors(result: Any) -> tuple[Tensor, Tensor]:
    """What append returned. Raises: Failure if that is not two tensors."""
    if not isinstance(result, (tuple, list)) or [type(item) for item in result] != [Tensor, Tensor]:
        raise Failure(
            "append must return (keys, values), two tensors.", mistake="does not return what is asked for"
        )
    return result[0], result[1]


def _full(trial: Trial) -> None:
    """One position too many is refused, and leaves the cache as it was; the last place can be used."""
    inputs = trial.inputs
    with student_code():
        cache = _maker(trial)(inputs["max_length"])
        _fill(cache, inputs)
        before = length_of(cache)
        key, value = inputs["key"], inputs["value"]
        refused(
            lambda: _asked(cache, key[..., :2, :], value[..., :2, :]),
            f"a position beyond max_length={inputs['max_length']}",
            "grows beyond max_length",
        )
        after = length_of(cache)
    try:
        keys, _ = _two_tensors(_asked(cache, key[..., :1, :], value[..., :1, :]))
    except Failure as failure:
        raise Failure(
            f"after a refused append there was one place left, but using it {failure.message} "
            "Is the length compared before anything is written?",
            mistake="a refused append leaves its traces",
            errored=True,
        ) from failure
    right = torch.cat([key, key[..., :1, :]], -2)
    if before != after or keys.shape != right.shape or not torch.equal(keys, right):
        raise Failure(
            f"after a refused append the length went from {before} to {after}, and the next append does not give "
            "what it should. Is the length compared before anything is written?",
            mistake="a refused append leaves its traces",
        )


def _asked(cache: Any, key: Tensor, value: Tensor) -> Any:
    with student_code():
        return invoke(cache, "append", key.clone(), value.clone())


def _apart(trial: Trial) -> None:
    """Two caches do not know of each other."""
    inputs = trial.inputs
    make = _maker(trial)
    try:
        with student_code():
            one, other = make(inputs["max_length"]), make(inputs["max_length"])
            _fill(other, {**inputs, "key": inputs["key"] + 1, "value": inputs["value"] - 1})
            result, _ = _fill(one, inputs)
    except Failure as failure:
        raise Failure(
            f"with a second cache beside it the first one {failure.message} Are keys and values set in __init__, on self?",
            mistake="all caches share their contents",
            errored=True,
        ) from failure
    keys, values = _two_tensors(result)
    if not (torch.equal(keys, inputs["key"]) and torch.equal(values, inputs["value"])):
        raise Failure(
            "a second cache changes what the first one holds. Are keys and values set in __init__, on self?",
            mistake="all caches share their contents",
        )


def _mistake(name: str, question: str, turn: Callable[[list[Tensor]], Tensor]) -> Mistake:
    """`turn` makes the whole of the pieces (..., S_i, D)."""

    def formula(key: Tensor, value: Tensor, chunks: list[int], max_length: int) -> Mapping[str, Tensor]:
        lengths = torch.tensor([0, *accumulate(chunks)], dtype=torch.float64)
        keys, values = (turn(list(given.split(chunks, -2))) for given in (key, value))
        return {"keys": keys, "values": values, "lengths": lengths}

    return Mistake(name, question, formula)


def _swapped(key: Tensor, value: Tensor, chunks: list[int], max_length: int) -> Mapping[str, Tensor]:
    return {
        "keys": value,
        "values": key,
        "lengths": torch.tensor([0, *accumulate(chunks)], dtype=torch.float64),
    }


def _whole_buffer(key: Tensor, value: Tensor, chunks: list[int], max_length: int) -> Mapping[str, Tensor]:
    room = (0, 0, 0, max_length - key.shape[-2])
    keys, values = (torch.nn.functional.pad(given, room) for given in (key, value))
    return {
        "keys": keys,
        "values": values,
        "lengths": torch.tensor([0, *accumulate(chunks)], dtype=torch.float64),
    }


def _values_only_new(key: Tensor, value: Tensor, chunks: list[int], max_length: int) -> Mapping[str, Tensor]:
    lengths = torch.tensor([0, *accumulate(chunks)], dtype=torch.float64)
    return {"keys": key, "values": value[..., -chunks[-1] :, :], "lengths": lengths}


def _overwritten(parts: list[Tensor]) -> Tensor:
    buffer = torch.zeros_like(torch.cat(parts, -2))
    for part in parts:
        buffer[..., : part.shape[-2], :] = part
    return buffer


MISTAKES = (
    _mistake(
        "newest first",
        "Oldest first: which of the two comes first in cat?",
        lambda parts: torch.cat(parts[::-1], -2),
    ),
    _mistake(
        "only the new positions come back", "All positions so far are asked for.", lambda parts: parts[-1]
    ),
    _mistake(
        "the new positions are missing",
        "Is the result taken after the append?",
        lambda parts: torch.cat(parts, -2)[..., : -parts[-1].shape[-2], :],
    ),
    _mistake(
        "only the last two pieces are kept",
        "Is the joined tensor stored, or the new piece alone?",
        lambda parts: torch.cat(parts[-2:], -2),
    ),
    _mistake(
        "always written to the start",
        "New positions go behind the ones that are there.",
        _overwritten,
    ),
    Mistake("keys and values swapped", "append takes (key, value) and returns (keys, values).", _swapped),
    Mistake("the unused places come back, too", "Is the buffer cut at the length so far?", _whole_buffer),
    Mistake("values are not kept", "Keys and values are both needed later.", _values_only_new),
)

RECIPES = (
    Recipe("one piece", partial(_inputs, pieces="one")),
    Recipe("pieces of several lengths", partial(_inputs, spare=3)),
    Recipe("one position at a time", partial(_inputs, pieces="single")),
    Recipe("no leading axis", partial(_inputs, axes=0)),
    Recipe("three leading axes", partial(_inputs, axes=3, spare=2)),
    Recipe("float64", partial(_inputs, dtype=torch.float64)),
    Recipe("bfloat16", partial(_inputs, dtype=torch.bfloat16)),
    Recipe("one place left", partial(_inputs, spare=1)),
)

GROWS = "grows"

KV_CACHE = Exercise(
    name="KVCache",
    assignment="text_generation",
    target=Target("KVCache", OUTPUTS, _formula),
    positional=(),
    parameters=(),
    used_as=lambda obj, *_: UsedObject(obj, _script),
    recipes=RECIPES,
    checks=(
        Check(
            GROWS,
            "append returns all keys and values so far, oldest first",
            1.0,
            ("pieces of several lengths", "one piece", "one position at a time"),
            _grows("keys", "values"),
        ),
        Check(
            "length",
            "len() is how many positions it holds",
            0.25,
            ("pieces of several lengths",),
            _grows("lengths"),
            GROWS,
        ),
        Check("reset", "reset() makes it as new", 0.5, ("pieces of several lengths",), _reset, GROWS),
        Check(
            "full",
            "more than max_length positions raise ValueError, and change nothing",
            0.5,
            ("one place left",),
            _full,
            GROWS,
        ),
        Check(
            "apart",
            "two caches do not know of each other",
            0.25,
            ("pieces of several lengths",),
            _apart,
            GROWS,
        ),
        Check(
            "leading axes",
            "any number of leading axes",
            0.25,
            ("no leading axis", "three leading axes"),
            _grows("keys", "values"),
            GROWS,
        ),
        Check("dtype", "the dtype is kept", 0.25, ("float64", "bfloat16"), _dtype, GROWS),
    ),
    mistakes=MISTAKES,
    hints=(
        "What has to survive between two calls? Keep it on self, and say in __init__ what it is at first.",
        "Along which axis do keys of shape (..., S, D) grow? Count it from the end.",
        (
            "Compare first: `if len(self) + key.shape[-2] > self.max_length: raise ValueError(...)`. Then `torch.cat` with "
            "what is there, or write into a slice of a buffer of max_length positions; return what is filled."
        ),
    ),
)
