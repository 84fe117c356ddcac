"""Exercise `KVCache`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw
from autograder.checks import Failure, Target, Trial
from autograder.checks.decoding import refused
from autograder.checks.failure import student_code
from autograder.checks.objects import invoke
from autograder.checks.scripted import UsedObject, length_of
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, Step, slips
from autograder.oracle.generation import whole
from autograder.oracle.quantity import Quantity
from autograder.situations import AXES, DTYPES, Factor, Situations, drawn_by, without
from autograder.situations.factors import VERY_LONG
from autograder.situations.space import GRADIENT, Group, groups

__all__ = ["KV_CACHE"]

SHAPES = {"key": "... S D", "value": "... S D_v"}
SEVERAL, ONE = "pieces of several lengths", "one piece"
_text = drawn_by(SHAPES)


def _drawn(
    draw: Draw, *, pieces: str = SEVERAL, spare: int = 3, value_dtype: torch.dtype | None = None, ask: str = "",
    text: str = "", **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """key, value, the lengths of the pieces in which they are appended, and max_length, for `spare` positions more.

    ask: when more is asked for than there is room for: "first", "between" or "last". text: what other text there is.
    """
    inputs = _text(draw, **{"S": (7, 9), **options})
    S = inputs["key"].shape[-2]
    chunks = {"one": [S], "single": [1] * S, "none": [0, 2, 0, S - 2], "long": [3, 61, S - 65, 1]}
    inputs |= {"value": inputs["value"].to(value_dtype), "chunks": chunks.get(pieces, [2, 1, S - 4, 1])}
    return inputs | {"max_length": S + spare} | {n: v for n, v in (("ask", ask), ("text", text)) if v}


FACTORS: Mapping[str, Factor] = {
    "room": {
        "room to spare": {},
        "a full cache asked for more": {"spare": 0, "ask": "last"},
        "an empty cache asked for too much": {"ask": "first"},
        "too much in between": {"spare": 1, "ask": "between"},
    },
    "text": {
        "a new cache": {},
        "after reset": {"text": "before"},
        "after reset, from a text of other sizes": {"text": "of other sizes"},
        "after reset, from a text of another dtype": {"text": "of another dtype"},
        "after reset, from a text of another batch": {"text": "of another batch"},
        "after reset, from a text of other values": {"text": "of other values"},
        "after reset, from a text with values of another dtype": {"text": "with values of another dtype"},
        "beside another cache": {"text": "beside"},
    },
    "lengths": {
        SEVERAL: {},
        ONE: {"pieces": "one"},
        "one position at a time": {"pieces": "single", "S": (4, 5)},
        "pieces of no position": {"pieces": "none"},
        "over two thousand positions": {"pieces": "long", "S": VERY_LONG, "axes": 0},
    },
    "dtype": {**DTYPES, "values of another dtype": {"value_dtype": torch.float64}},
    "axes": {**AXES, "a batch of one": {"axes": 1, "batch": 1}},
}  # fmt: skip


def _script(make: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
    """What all appends return, one behind the other along the positions, and the lengths before the first and after each."""
    key, value, text = inputs["key"], inputs["value"], inputs.get("text", "")
    most, chunks = inputs["max_length"], inputs["chunks"]
    asked = {"first": 0, "between": 1, "last": len(chunks)}.get(inputs.get("ask", ""))
    cache, other = make(most), make(most) if text == "beside" else None
    if text and other is None:
        _forget(cache, key.detach(), value.detach(), text)
    results, lengths = [], [length_of(cache)]
    for place, piece in enumerate(zip(key.split(chunks, -2), value.split(chunks, -2), strict=True)):
        if place == asked:
            _overfill(cache, key, value, most, sum(chunks[:place]))
            if not place:
                _overfill(make(0), key, value, 0, 0)
        results.append(_appended(cache, *piece))
        lengths.append(length_of(cache))
        if other is not None:
            _appended(other, piece[0].detach() + 1, piece[1].detach() - 1)
    if asked == len(chunks):
        _overfill(cache, key, value, most, sum(chunks))
    joined = (_joined(name, parts) for name, parts in zip(SHAPES, zip(*results, strict=True), strict=True))
    return (*joined, key.new_tensor(lengths, dtype=torch.float64))


def _forget(cache: Any, key: Tensor, value: Tensor, text: str) -> None:
    """Two positions of another text, which are then forgotten."""
    other = torch.float32 if value.dtype == torch.float64 else torch.float64
    if text == "of other sizes":
        key = torch.cat([key, key], -1)
    if text in ("of other sizes", "of other values"):
        value = torch.cat([value, value], -1)
    if text in ("of other sizes", "of another batch"):
        key, value = (torch.cat([one, one]) if one.dim() > 2 else one for one in (key, value))
    if text == "of another dtype":
        key = key.to(other)
    if text in ("of another dtype", "with values of another dtype"):
        value = value.to(other)
    _appended(cache, key[..., 1:3, :], value[..., 1:3, :])
    invoke(cache, "reset")
    if length := length_of(cache):
        raise Failure(f"after reset() the length is {length}.", mistake="reset does not forget")


def _overfill(cache: Any, key: Tensor, value: Tensor, most: int, held: int) -> None:
    """One position too many is refused, and leaves the cache as it was; where that is empty, in a batch of another size."""
    rows = [one.detach()[..., :1, :].repeat_interleave(most - held + 1, -2) for one in (key, value)]
    rows = [torch.cat([one, one]) if one.dim() > 2 and not held else one for one in rows]
    before = length_of(cache)

    def ask() -> None:
        with student_code():
            invoke(cache, "append", *rows)

    refused(ask, f"a position beyond max_length={most}", "grows beyond max_length")
    if (after := length_of(cache)) != before:
        said = f"after a refused append the length is {after}, and was {before}. Is it compared before anything is written?"
        raise Failure(said, mistake="a refused append leaves its traces")


def _appended(cache: Any, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    result = invoke(cache, "append", key, value)
    if not isinstance(result, (tuple, list)) or [type(item) for item in result] != [Tensor, Tensor]:
        raise Failure(
            "append must return (keys, values), two tensors: those of all positions so far.",
            mistake="does not return what is asked for",
        )
    return result[0], result[1]


def _joined(name: str, parts: tuple[Tensor, ...]) -> Tensor:
    dtypes = [str(one.dtype).removeprefix("torch.") for one in parts]
    if len(set(dtypes)) > 1:
        raise Failure(
            f"append returned {name}s of {', then '.join(dict.fromkeys(dtypes))}; they went in as {dtypes[0]}.",
            mistake="does not keep the dtype",
        )
    try:
        return torch.cat(parts, -2)
    except (RuntimeError, IndexError) as error:
        shapes = ", ".join(str(tuple(one.shape)) for one in parts)
        raise Failure(
            f"append returned {name}s of shapes {shapes}.", mistake=f"{name}s has the wrong shape"
        ) from error


def _right(trial: Trial, results: Mapping[str, Tensor]) -> None:
    """Keys and values are those that went in, in their dtype, and so are the lengths."""
    try:
        trial.shaped(tuple(results.values()))
    except Failure as failure:
        failure.message += " That is all that the appends returned, one behind the other along the positions."
        raise
    expected, pieces = trial.expect(), f"with pieces of {trial.inputs['chunks']} positions"
    for name in ("keys", "values"):
        dtype, wanted = (
            str(x.dtype).removeprefix("torch.") for x in (results[name], trial.inputs[name.rstrip("s")])
        )
        if dtype != wanted:
            raise Failure(
                f"{name} are {dtype}; they went in as {wanted}. Is the buffer made with the dtype of what goes in?",
                mistake="does not keep the dtype",
            )
        if not torch.equal(results[name].double(), expected[name].value):
            raise Failure(f"{pieces}, {name} are not those of all positions so far, oldest first, unchanged.")
    found, lengths = results["lengths"].tolist(), expected["lengths"].value.tolist()
    if found != lengths:
        text = f"{pieces}, len() is {found}; expected {lengths}: before the first append, and after each."
        raise Failure(text, mistake="len() is wrong")


Turn = Callable[[list[Tensor], list[Tensor], int], Tensor]
"""What is returned: of the pieces (..., S_i, D) so far, of all of them, which are written into it later, and max_length."""


def _steps(
    key: Tensor,
    value: Tensor,
    chunks: list[int],
    max_length: int,
    *,
    keys: Turn = lambda parts, every, most: torch.cat(parts, -2),
    values: Turn | None = None,
    order: int = 1,
    **_: Any,
) -> Mapping[str, Tensor]:
    """The script's results in steps."""
    made = [
        torch.cat([turn(list(every[: n + 1]), list(every), max_length) for n in range(len(every))], -2)
        for every, turn in ((key.split(chunks, -2), keys), (value.split(chunks, -2), values or keys))
    ]
    lengths = torch.tensor([0, *accumulate(chunks)], dtype=torch.float64)
    return dict(zip(("keys", "values", "lengths"), (*made[::order], lengths), strict=True))


def _formula(**given: Any) -> dict[str, Quantity]:
    right = _steps(**given)
    return {name: Quantity(right[name], right[name].abs()) for name in ("keys", "values")} | {
        "lengths": whole(right["lengths"])
    }


def _overwritten(parts: list[Tensor], written: list[Tensor], most: int) -> Tensor:
    """A buffer of which each piece is written to the first places."""
    buffer = torch.zeros_like(torch.cat(written, -2))
    for part in written:
        buffer[..., : part.shape[-2], :] = part
    return buffer[..., : sum(part.shape[-2] for part in parts), :]


def _buffer(parts: list[Tensor], written: list[Tensor], most: int) -> Tensor:
    filled = torch.cat(written, -2)
    return torch.nn.functional.pad(filled, (0, 0, 0, most - filled.shape[-2]))


def _views_or_copies(turn: Turn) -> list[Step]:
    """What is returned shows what is written later, or it is a copy."""
    return [{"keys": turn}, {"keys": lambda parts, every, most: turn(parts, parts, most)}]


SLIPS: Slips = {
    "Oldest first: which of the two comes first in cat?": {
        "newest first": {"keys": lambda parts, *_: torch.cat(parts[::-1], -2)},
    },
    "All positions so far are asked for.": {"only the new positions come back": {"keys": lambda parts, *_: parts[-1]}},
    "Is the result taken after the append?": {
        "the new positions are missing": {"keys": lambda parts, *_: torch.cat([parts[0][..., :0, :], *parts[:-1]], -2)},
    },
    "Is the joined tensor stored, or the new piece alone?": {
        "only the last two pieces are kept": {"keys": lambda parts, *_: torch.cat(parts[-2:], -2)},
    },
    "New positions go behind the ones that are there.": {"always written to the start": _views_or_copies(_overwritten)},
    "append takes (key, value) and returns (keys, values).": {"keys and values swapped": {"order": -1}},
    "Is the buffer cut at the length so far?": {"the unused places come back, too": _views_or_copies(_buffer)},
    "Keys and values are both needed later.": {"values are not kept": {"values": lambda parts, *_: parts[-1]}},
}  # fmt: skip

TRACES = ("a refused append leaves its traces", "Is the length compared before anything is written?")
FORGETS = ("reset does not forget", "Is the cache after reset() as if it were new?")
OWN = ("all caches share their contents", "Are keys and values set in __init__, on self?")

KV_CACHE = Exercise(
    name="KVCache",
    assignment="text_generation",
    target=Target("KVCache", ("keys", "values", "lengths"), _formula),
    positional=(),
    parameters=(),
    used_as=lambda obj, *_: UsedObject(obj, _script),
    situations=Situations(
        draw=_drawn,
        factors=FACTORS,
        axes=SHAPES,
        groups=groups(
            "append returns all keys and values so far, oldest first, and len() says how many", 1.0,
            (Group("full", "more than max_length positions raise ValueError, and change nothing", 0.5, ("room",)),
             Group("reset and apart", "reset() makes it as new; two caches do not know of each other", 0.75, ("text",))),
            lengths=0.25, dtypes=0.25, calls=0.25,
        ),
        never=({"lengths": tuple(without(FACTORS["lengths"], ONE)), "gradient": GRADIENT},),  # a call's graph is its own
        left_out={"state": "each script makes a cache of its own; earlier texts and other caches are a factor",
                  "gradient: activation checkpointing": "an append that is made again is one more append"},
        right=_right,
        names={
            **{("room", name): TRACES for name in FACTORS["room"] if name != "room to spare"},
            **{("text", name): FORGETS for name in FACTORS["text"] if name.startswith("after")},
            ("text", "beside another cache"): OWN,
        },
    ),
    recipes=(),
    checks=(),
    mistakes=slips(_steps, SLIPS),
    hints=(
        "What has to survive between two calls? Keep it on self, and say in __init__ what it is at first.",
        "Along which axis do keys of shape (..., S, D) grow? Count it from the end.",
        "Compare first: `if len(self) + key.shape[-2] > self.max_length: raise ValueError(...)`. Then `torch.cat` with "
        "what is there, or write into a slice of a buffer of max_length positions; return what is filled.",
    ),
)  # fmt: skip
