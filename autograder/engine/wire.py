"""What crosses between judge and worker: JSON and safetensors in length-prefixed frames, over a socket. Never pickle.

A frame is two big-endian 32-bit lengths, then a JSON document, then a safetensors blob. In the document a tensor stands
as {"t": place}, with its strides; other values as one-letter tagged objects, a random generator by its state. The reader
checks lengths, depth and tags before it builds anything, so a malformed frame is an error here and nothing else anywhere.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from autograder.case import Layer

__all__ = [
    "MOST_GIVEN",
    "TOO_MUCH",
    "Callback",
    "Closed",
    "Handle",
    "Limits",
    "Malformed",
    "Opaque",
    "numbers_in",
    "receive",
    "send",
]

HEADER = struct.Struct(">II")
MAX_DEPTH = 12
MAX_ITEMS = 10_000
LARGEST_INT = 2**63
LARGEST_STRIDE = 2**40
LONGEST_INDEX = 1 << 20
"""Bytes of a blob's own index: room for thousands of tensors, not for millions of empty ones."""

SPREAD = 16
"""Strides may spread a tensor over at most so many times its own size."""

MOST_GIVEN = 1 << 20
"""So many numbers student code may hand to the judge's functions while one request is answered."""

TOO_MUCH = f"more than {MOST_GIVEN:,} numbers were handed to functions in one go"

DTYPES = {str(d).removeprefix("torch."): d for d in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)}  # fmt: skip
KNOWN = frozenset(DTYPES.values())


class Closed(Exception):
    """The other side is gone, or did not answer in time; the text says which."""


class Malformed(Exception):
    """A frame that breaks the rules of the wire; the text says which."""


class Opaque:
    """A value that does not cross: only the name of its type does."""

    def __init__(self, kind: str):
        self.kind = kind

    def __repr__(self) -> str:
        return f"<a {self.kind}>"


@dataclass(frozen=True)
class Callback:
    """A function of the judge's, by its number: what the worker makes of it asks the judge."""

    number: int


@dataclass(frozen=True)
class Handle:
    """An object that lives in the worker, by its number there."""

    number: int


class Limits:
    """Sizes in bytes that a reader accepts: of the JSON document and of the tensors.

    trusted: whether random generators, layers, callbacks and handles may come; only a judge sends such.
    """

    def __init__(self, document: int = 4 << 20, tensors: int = 256 << 20, trusted: bool = False):
        self.document, self.tensors, self.trusted = document, tensors, trusted


def send(channel: socket.socket, message: Mapping[str, Any], deadline: float | None = None) -> None:
    """Send one message, by `deadline` (in time.monotonic() seconds).

    Raises: Malformed for a value that cannot cross, Closed if the other side is gone or does not read.
    """
    tensors: dict[str, Tensor] = {}
    document = json.dumps(_encode(message, tensors, 0)).encode()
    blob = _saved(tensors) if tensors else b""
    try:
        channel.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
        channel.sendall(HEADER.pack(len(document), len(blob)) + document + blob)
    except TimeoutError as error:
        raise Closed("nobody reads in time") from error
    except OSError as error:
        raise Closed("the connection is closed") from error


def _saved(tensors: Mapping[str, Tensor]) -> bytes:
    """What safetensors.torch.save gives for dense tensors on the CPU, in a tenth of its time: nothing to find out first."""
    specs = {
        name: safetensors.TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tensor.shape,
            data_ptr=tensor.data_ptr(),
            data_len=tensor.nbytes,
        )
        for name, tensor in tensors.items()
    }
    return bytes(safetensors.serialize(specs))


def receive(channel: socket.socket, limits: Limits, deadline: float | None = None) -> dict[str, Any]:
    """The next message, by `deadline` (in time.monotonic() seconds).

    Raises: Closed if the other side is gone or late, Malformed if what it sent breaks the rules.
    """
    document_size, blob_size = HEADER.unpack(_exactly(channel, HEADER.size, deadline))
    if document_size > limits.document or blob_size > limits.tensors:
        raise Malformed(f"a reply of {document_size + blob_size:,} bytes, larger than allowed")
    try:
        document = json.loads(_exactly(channel, document_size, deadline))
    except (ValueError, RecursionError) as error:
        raise Malformed("a reply that is not JSON") from error
    blob = bytes(_exactly(channel, blob_size, deadline))
    message = _Reader(_tensors(blob), limits).value(document, 0)
    if not isinstance(message, dict):
        raise Malformed("a reply that is no object")
    return message


def numbers_in(value: Any) -> int:
    """How many numbers a value holds. An axis of no elements counts as one: the others may be of any length beside it."""
    if isinstance(value, Tensor):
        return math.prod(max(1, size) for size in value.shape)
    if isinstance(value, Mapping):
        return sum(map(numbers_in, value.values()))
    return sum(map(numbers_in, value)) if isinstance(value, (list, tuple)) else 1


def _tensors(blob: bytes) -> dict[str, Tensor]:
    if int.from_bytes(blob[:8], "little") > LONGEST_INDEX:
        raise Malformed("more tensors than anybody needs")
    try:
        tensors = safetensors.torch.load(blob) if blob else {}
    except Exception as error:  # whatever safetensors trips over, these are not its tensors
        raise Malformed("tensors that are not safetensors") from error
    if not all(tensor.dtype in KNOWN for tensor in tensors.values()):
        raise Malformed("tensors of an unknown dtype")
    return tensors


def _exactly(channel: socket.socket, count: int, deadline: float | None) -> bytearray:
    buffer = bytearray(count)
    view, filled = memoryview(buffer), 0
    while filled < count:
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            raise Closed("no answer in time")
        channel.settimeout(remaining)
        try:
            got = channel.recv_into(view[filled:])
        except TimeoutError as error:
            raise Closed("no answer in time") from error
        except OSError as error:
            raise Closed("the connection is closed") from error
        if not got:
            raise Closed("the connection is closed")
        filled += got
    return buffer


def _encode(value: Any, tensors: dict[str, Tensor], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Malformed("a value nested too deeply")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < LARGEST_INT else {"o": "very large int"}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"f": repr(float(value))}
    if isinstance(value, Tensor):
        return _encode_tensor(value, tensors)
    if isinstance(value, (list, tuple)):
        items = [_encode(item, tensors, depth + 1) for item in value]
        return {"u": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise Malformed("an object whose keys are not all strings")
        return {"d": {key: _encode(item, tensors, depth + 1) for key, item in value.items()}}
    if value is ...:
        return {"e": 0}
    if isinstance(value, torch.Generator):
        return {"r": _encode_tensor(value.get_state(), tensors)["t"]}
    if isinstance(value, torch.dtype):
        return {"y": str(value).removeprefix("torch.")}
    if isinstance(value, Opaque):
        return {"o": value.kind}
    if isinstance(value, Callback):
        return {"k": value.number}
    if isinstance(value, Handle):
        return {"h": value.number}
    if isinstance(value, Layer):
        held = [value.kind, list(value.args), value.kwargs, value.seed]
        return {"l": [_encode(item, tensors, depth + 1) for item in held]}
    raise Malformed(f"a {type(value).__name__} cannot cross")


def _encode_tensor(value: Tensor, tensors: dict[str, Tensor]) -> Any:
    if value.dtype not in KNOWN or value.layout != torch.strided:
        raise Malformed(f"a tensor of {value.dtype} and layout {value.layout} cannot cross")
    plain = value.detach().as_subclass(Tensor).cpu()
    place = str(len(tensors))
    tensors[place] = plain.resolve_neg().clone(memory_format=torch.contiguous_format)
    # An overlapping view, or a small part of something large, crosses as a dense copy.
    once = [1 if stride == 0 else size for size, stride in zip(plain.shape, plain.stride(), strict=True)]
    strides = list(plain.stride()) if not plain.is_contiguous() and _extent(once, plain.stride()) else None
    return {"t": place, "s": strides, "g": bool(value.requires_grad)}


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many elements a tensor is spread over; 0 if far too many, or if two of its own share a place."""
    last, count = 0, 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1 and stride <= last:
            return 0
        last, count = last + stride * max(0, size - 1), count * size
    return last + 1 if last < SPREAD * max(64, count) else 0


class _Reader:
    """Turns a document and the tensors that came with it into values.

    room: bytes that may be taken up by laying tensors out with strides; what a frame names may not grow without end.
    """

    def __init__(self, tensors: Mapping[str, Tensor], limits: Limits):
        self.tensors, self.room, self.trusted = tensors, limits.tensors, limits.trusted

    def value(self, given: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Malformed("a value nested too deeply")
        if isinstance(given, int) and abs(given) >= LARGEST_INT:
            raise Malformed("a number that is too large")
        if given is None or isinstance(given, (bool, str, int, float)):
            return given
        if isinstance(given, list):
            return self._items(given, depth)
        tag = next(iter(given), None)
        held = given.get(tag)
        if tag == "t":
            return self._tensor(given)
        if tag == "u" and isinstance(held, list):
            return tuple(self._items(held, depth))
        if tag == "d" and isinstance(held, dict) and len(held) <= MAX_ITEMS:
            return {key: self.value(item, depth + 1) for key, item in held.items()}
        if tag == "f" and held in ("nan", "inf", "-inf"):
            return float(held)
        if tag == "e":
            return ...
        if tag == "y" and isinstance(held, str) and held in DTYPES:
            return DTYPES[held]
        if tag == "o":
            return Opaque(str(held)[:80])
        if self.trusted:
            return self._from_the_judge(tag, held, depth)
        raise Malformed("an unknown tag")

    def _from_the_judge(self, tag: Any, held: Any, depth: int) -> Any:
        if tag == "r":
            return torch.Generator().set_state(self._tensor({"t": held}))
        if tag == "k":
            return Callback(held)
        if tag == "h":
            return Handle(held)
        if tag == "l":
            kind, args, kwargs, seed = self._items(held, depth)
            return Layer(kind, *args, seed=seed, **kwargs)
        raise Malformed("an unknown tag")

    def _items(self, given: list[Any], depth: int) -> list[Any]:
        if len(given) > MAX_ITEMS:
            raise Malformed("a list that is too long")
        return [self.value(item, depth + 1) for item in given]

    def _tensor(self, given: Mapping[str, Any]) -> Tensor:
        place, strides = given.get("t"), given.get("s")
        if not isinstance(place, str) or place not in self.tensors:
            raise Malformed("a tensor that was not sent")
        plain = self.tensors[place]
        if strides is not None:
            plain = self._strided(plain, strides)
        return plain.requires_grad_() if given.get("g") is True and plain.is_floating_point() else plain

    def _strided(self, plain: Tensor, strides: Any) -> Tensor:
        """The same numbers laid out with these strides. Raises: Malformed if they make no tensor of a modest size."""
        if (
            not isinstance(strides, list)
            or len(strides) != plain.dim()
            or not all(type(stride) is int and 0 <= stride < LARGEST_STRIDE for stride in strides)
        ):
            raise Malformed("strides that do not fit")
        repeated = [n for n, stride in enumerate(strides) if stride == 0 and plain.shape[n] > 1]
        if repeated:  # an expanded axis: its elements share their memory
            shape, once = plain.shape, plain
            for axis in repeated:
                once = once.narrow(axis, 0, 1)
            return self._strided(once, [max(1, stride) for stride in strides]).expand(shape)
        strides = [max(1, stride) for stride in strides]
        extent = _extent(plain.shape, strides)
        self.room -= extent * plain.element_size()
        if not extent or self.room < 0:
            raise Malformed("strides that are too far apart")
        view = plain.new_zeros(extent).as_strided(plain.shape, strides)
        return view.copy_(plain)
