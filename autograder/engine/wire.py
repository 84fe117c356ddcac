"""What crosses between judge and worker: JSON and safetensors in length-prefixed frames, over a socket. Never pickle.

A frame is two big-endian 32-bit lengths, then a JSON document, then a safetensors blob. In the document a tensor stands
as {"t": place}, with its strides; other values as one-letter tagged objects. The reader checks lengths, depth and tags before it
builds anything, so a malformed frame is an error here and nothing else anywhere.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

__all__ = ["Closed", "Limits", "Malformed", "Opaque", "receive", "send"]

HEADER = struct.Struct(">II")
MAX_DEPTH = 12
MAX_ITEMS = 10_000
DTYPES = {str(d).removeprefix("torch."): d for d in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)}  # fmt: skip


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


class Limits:
    """Sizes in bytes that a reader accepts: of the JSON document and of the tensors."""

    def __init__(self, document: int = 4 << 20, tensors: int = 256 << 20):
        self.document, self.tensors = document, tensors


def send(channel: socket.socket, message: Mapping[str, Any]) -> None:
    """Send one message. Raises: Malformed for a value that cannot cross, Closed if the other side is gone."""
    tensors: dict[str, Tensor] = {}
    document = json.dumps(_encode(message, tensors, 0)).encode()
    blob = safetensors.torch.save(tensors) if tensors else b""
    try:
        channel.sendall(HEADER.pack(len(document), len(blob)) + document + blob)
    except OSError as error:
        raise Closed("the connection is closed") from error


def receive(channel: socket.socket, limits: Limits, deadline: float | None = None) -> dict[str, Any]:
    """The next message, by `deadline` (in time.monotonic() seconds).

    Raises: Closed if the other side is gone or late, Malformed if what it sent breaks the rules.
    """
    document_size, blob_size = HEADER.unpack(_exactly(channel, HEADER.size, deadline))
    if document_size > limits.document or blob_size > limits.tensors:
        raise Malformed(f"a reply of {document_size + blob_size:,} bytes is larger than allowed")
    try:
        document = json.loads(_exactly(channel, document_size, deadline))
    except (ValueError, RecursionError) as error:
        raise Malformed("a reply that is not JSON") from error
    blob = bytes(_exactly(channel, blob_size, deadline))
    try:
        tensors = safetensors.torch.load(blob) if blob else {}
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise Malformed("tensors that are not safetensors") from error
    message = _decode(document, tensors, 0)
    if not isinstance(message, dict):
        raise Malformed("a reply that is no object")
    return message


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
        return int(value) if abs(value) < 2**63 else {"o": "very large int"}
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
    if isinstance(value, torch.dtype):
        return {"y": str(value).removeprefix("torch.")}
    if isinstance(value, Opaque):
        return {"o": value.kind}
    raise Malformed(f"a {type(value).__name__} cannot cross")


def _encode_tensor(value: Tensor, tensors: dict[str, Tensor]) -> Any:
    plain = value.detach().as_subclass(Tensor).cpu()
    name = str(plain.dtype).removeprefix("torch.")
    if name not in DTYPES or plain.layout != torch.strided:
        raise Malformed(f"a tensor of {name} and layout {plain.layout} cannot cross")
    place = str(len(tensors))
    tensors[place] = plain.contiguous().clone()
    dense = plain.is_contiguous() or any(s == 0 for s in plain.stride())
    return {"t": place, "s": None if dense else list(plain.stride()), "g": bool(value.requires_grad)}


def _decode(value: Any, tensors: Mapping[str, Tensor], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Malformed("a value nested too deeply")
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if isinstance(value, list):
        return _items(value, tensors, depth)
    if not isinstance(value, dict):
        raise Malformed("an unknown value")
    tag = next(iter(value), None)
    held = value.get(tag) if tag is not None else None
    if tag == "t":
        return _decode_tensor(value, tensors)
    if tag == "u" and isinstance(held, list):
        return tuple(_items(held, tensors, depth))
    if tag == "d" and isinstance(held, dict) and len(held) <= MAX_ITEMS:
        return {key: _decode(item, tensors, depth + 1) for key, item in held.items()}
    if tag == "f" and held in ("nan", "inf", "-inf"):
        return float(held)
    if tag == "e":
        return ...
    if tag == "y" and held in DTYPES:
        return DTYPES[held]
    if tag == "o":
        return Opaque(str(held)[:80])
    raise Malformed("an unknown tag")


def _items(values: list[Any], tensors: Mapping[str, Tensor], depth: int) -> list[Any]:
    if len(values) > MAX_ITEMS:
        raise Malformed("a list that is too long")
    return [_decode(item, tensors, depth + 1) for item in values]


def _decode_tensor(value: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    place, strides = value.get("t"), value.get("s")
    if not isinstance(place, str) or place not in tensors:
        raise Malformed("a tensor that was not sent")
    plain = tensors[place]
    if strides is not None:
        plain = _strided(plain, strides)
    return plain.requires_grad_() if value.get("g") is True and plain.is_floating_point() else plain


def _strided(plain: Tensor, strides: Any) -> Tensor:
    """The same numbers laid out with these strides. Raises: Malformed if they make no tensor of a modest size."""
    if not isinstance(strides, list) or len(strides) != plain.dim() or not all(isinstance(s, int) and s > 0 for s in strides):
        raise Malformed("strides that do not fit")
    extent = 1 + sum(stride * (size - 1) for stride, size in zip(strides, plain.shape, strict=True) if size)
    if extent > 16 * max(64, plain.numel()):
        raise Malformed("strides that are too far apart")
    view = plain.new_zeros(extent).as_strided(plain.shape, strides)
    return view.copy_(plain)
