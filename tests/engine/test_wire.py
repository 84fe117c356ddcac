"""The wire: what is sent comes back as it was; what breaks the rules is refused, and nothing else happens."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from autograder.engine.wire import HEADER, Closed, Limits, Malformed, Opaque, receive, send

SMALL = Limits(document=4096, tensors=4096)
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    try:
        yield ours, theirs
    finally:
        ours.close()
        theirs.close()


def there_and_back(value: Any, limits: Limits | None = None) -> Any:
    """`value` as the other side gets it."""
    with pair() as (ours, theirs):
        sender = threading.Thread(target=send, args=(ours, {"value": value}))
        sender.start()
        got = receive(theirs, limits or Limits(), time.monotonic() + 60)
        sender.join()
    return got["value"]


def receive_bytes(data: bytes, limits: Limits = SMALL, hang_up: bool = True) -> dict[str, Any]:
    """What a reader makes of raw bytes, after which the sender hangs up or falls silent."""
    with pair() as (ours, theirs):
        ours.sendall(data)
        if hang_up:
            ours.close()
        return receive(theirs, limits, time.monotonic() + (60 if hang_up else 0.05))


def frame(document: Any, blob: bytes = b"") -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return HEADER.pack(len(text), len(blob)) + text + blob


def alike(one: Any, other: Any) -> bool:
    """Equal, with nan equal to nan, and a tensor like one of the same dtype, shape, numbers and flag."""
    if isinstance(one, Tensor):
        return (
            type(other) is Tensor
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.requires_grad == other.requires_grad
            and torch.equal(one.nan_to_num(nan=7.0), other.nan_to_num(nan=7.0))
        )
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(alike(one[k], other[k]) for k in one)
        )
    return type(one) is type(other) and one == other


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Tensors of every dtype, of 0 to 4 axes, some empty, with strides of many kinds."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    seed = draw(st.integers(0, 2**31))
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10
    value = numbers.to(dtype) if dtype != torch.bool else numbers > 0
    if value.dim():
        layout = draw(st.sampled_from(["dense", "back to front", "every second", "one of many", "expanded"]))
        if layout == "back to front":
            value = value.permute(*reversed(range(value.dim())))
        elif layout == "every second":
            value = value[..., ::2]
        elif layout == "one of many":
            value = value.unsqueeze(-1).repeat(*[1] * value.dim(), 40)[..., 3]
        elif layout == "expanded":
            value = value.sum(-1, keepdim=True, dtype=dtype).expand(*value.shape[:-1], 3)
    if value.is_floating_point() and draw(st.booleans()):
        value = value.detach().requires_grad_()
    return value


plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.just(...)
    | st.sampled_from(DTYPES)
)
values = st.recursive(
    plain | tensors(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@quick
@given(values)
def test_what_is_sent_comes_back_as_it_was(value: Any) -> None:
    assert alike(value, there_and_back(value))


@quick
@given(tensors())
def test_strides_survive_where_they_are_those_of_a_modest_layout(value: Tensor) -> None:
    back = there_and_back(value)
    if value.is_contiguous():
        assert back.is_contiguous()
    elif min(value.stride()) > 0 and value.numel() and back.stride() != value.stride():
        spread = 1 + sum(s * (n - 1) for s, n in zip(value.stride(), value.shape, strict=True))
        assert spread > 16 * max(64, value.numel()) or any(n == 1 for n in value.shape)


@pytest.mark.parametrize(
    "view",
    [lambda x: x.transpose(-2, -1), lambda x: x[..., ::2], lambda x: x[:, 1:], lambda x: x.permute(2, 0, 1)],
    ids=["transposed", "every second", "a slice", "permuted"],
)
def test_a_view_that_a_check_hands_over_arrives_with_its_strides(view: Callable[[Tensor], Tensor]) -> None:
    value = view(torch.arange(2.0 * 5 * 8).reshape(2, 5, 8))
    back = there_and_back(value)
    assert not value.is_contiguous()
    assert back.stride() == value.stride()
    assert torch.equal(back, value)


@pytest.mark.parametrize(
    "view",
    [lambda x: x.unfold(-1, 3, 1), lambda x: x.repeat(1, 1, 50)[..., 7]],
    ids=["sliding windows", "one of many"],
)
def test_a_view_of_a_sprawling_layout_arrives_as_a_dense_copy(view: Callable[[Tensor], Tensor]) -> None:
    value = view(torch.randn(3, 4, 5))
    back = there_and_back(value)
    assert back.is_contiguous()
    assert torch.equal(back, value)


def test_an_expanded_tensor_arrives_expanded() -> None:
    """Its elements share their memory there, too, so that a view of it fails there as it would here."""
    value = torch.randn(3, 1, 5).expand(3, 4, 5)
    back = there_and_back(value)
    assert back.stride() == (5, 0, 1)
    assert torch.equal(back, value)


def test_a_tensor_on_the_way_shares_memory_with_nobody() -> None:
    row = torch.zeros(4)
    first, second = there_and_back([row, row])
    first += 1
    assert second.tolist() == row.tolist() == [0.0] * 4


def test_a_subclass_and_its_graph_stay_behind() -> None:
    class Mine(Tensor):
        pass

    leaf = torch.ones(3, requires_grad=True)
    back = there_and_back((leaf * 2).as_subclass(Mine))
    assert type(back) is Tensor
    assert back.grad_fn is None
    assert back.requires_grad


def test_a_negated_view_keeps_its_sign() -> None:
    value = torch._neg_view(torch.tensor([1.0, -2.0]))
    assert there_and_back(value).tolist() == [-1.0, 2.0]


def test_numbers_too_large_for_the_wire_become_opaque() -> None:
    assert isinstance(there_and_back(2**80), Opaque)
    assert repr(there_and_back(Opaque("Thing"))) == "<a Thing>"


def test_a_generator_crosses_to_a_reader_that_takes_them_and_draws_the_same() -> None:
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, generator=generator)
    twin = there_and_back(generator, Limits(trusted=True))
    assert torch.equal(torch.rand(4, generator=twin), torch.rand(4, generator=generator))
    with pytest.raises(Malformed, match="unknown tag"):
        there_and_back(generator)


UNSENDABLE = [
    (lambda: {1: 2}, "keys are not all strings"),
    (lambda: object(), "a object cannot cross"),
    (lambda: lambda: 0, "a function cannot cross"),
    (lambda: {1, 2}, "a set cannot cross"),
    (lambda: torch.zeros(2, dtype=torch.complex64), "complex64"),
    (lambda: torch.eye(3).to_sparse(), "layout"),
    (lambda: _deep(20), "nested too deeply"),
]


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(("make", "reason"), UNSENDABLE)
def test_what_cannot_cross_is_refused_before_anything_is_sent(make: Callable[[], Any], reason: str) -> None:
    with pair() as (ours, theirs):
        with pytest.raises(Malformed, match=reason):
            send(ours, {"value": make()})
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def blob(**tensors_by_place: Tensor) -> bytes:
    return safetensors.torch.save(tensors_by_place)


ROW = blob(**{"0": torch.zeros(3, 4)})
MALFORMED = [
    (HEADER.pack(5000, 0), "larger than allowed"),
    (HEADER.pack(2, 5000) + b"{}", "larger than allowed"),
    (HEADER.pack(2**32 - 1, 2**32 - 1), "larger than allowed"),
    (frame(b"{"), "not JSON"),
    (frame(b"\xff\xfe\x00"), "not JSON"),
    (frame(b'{"d": {"a": ' + b"9" * 4000 + b"}}"), "too large"),
    (frame(b"[" * 2000), "not JSON"),
    (frame(b"[" * 2000 + b"]" * 2000), "not JSON|too deeply"),
    (frame([1, 2]), "no object"),
    (frame("text"), "no object"),
    (frame({"u": [1]}), "no object"),
    (frame({}), "unknown tag"),
    (frame({"x": 1}), "unknown tag"),
    (frame({"d": [1]}), "unknown tag"),
    (frame({"u": {}}), "unknown tag"),
    (frame({"d": {"a": {"f": "1.5"}}}), "unknown tag"),
    (frame({"d": {"a": {"f": ["nan"]}}}), "unknown tag"),
    (frame({"d": {"a": {"y": "float33"}}}), "unknown tag"),
    (frame({"d": {"a": {"y": ["float32"]}}}), "unknown tag"),
    (frame({"d": {"a": {"y": {}}}}), "unknown tag"),
    (frame({"d": {"a": {"r": "0"}}}, ROW), "unknown tag"),
    (frame({"d": {"a": {"t": "0"}}}), "not sent"),
    (frame({"d": {"a": {"t": "1"}}}, ROW), "not sent"),
    (frame({"d": {"a": {"t": ["0"]}}}, ROW), "not sent"),
    (frame({"d": {"a": {"t": "0", "s": [1]}}}, ROW), "do not fit"),
    (frame({"d": {"a": {"t": "0", "s": 3}}}, ROW), "do not fit"),
    (frame({"d": {"a": {"t": "0", "s": [-4, 1]}}}, ROW), "do not fit"),
    (frame({"d": {"a": {"t": "0", "s": [-1, 1]}}}, ROW), "do not fit"),
    (frame({"d": {"a": {"t": "0", "s": [4.0, 1]}}}, ROW), "do not fit"),
    (frame({"d": {"a": {"t": "0", "s": [True, 1]}}}, ROW), "do not fit"),
    (frame({"d": {"a": {"t": "0", "s": [1, 1]}}}, ROW), "too far apart"),
    (frame({"d": {"a": {"t": "0", "s": [10**9, 1]}}}, ROW), "too far apart"),
    (frame({"d": {"a": {"t": "0", "s": [10**30, 1]}}}, ROW), "do not fit"),
    (frame({"d": {"a": [{"t": "0", "s": [200, 50]}] * 40}}, ROW), "too far apart"),
    (frame({"d": {"a": 0}}, b"no tensors"), "not safetensors|more tensors"),
    (frame({"d": {"a": 0}}, ROW[:-5]), "not safetensors"),
    (frame({"d": {"a": 0}}, blob(**{"0": torch.zeros(2, dtype=torch.complex64)})), "unknown dtype"),
    (frame({"d": {"a": 0}}, blob(**{"0": torch.zeros(2, dtype=torch.float8_e5m2)})), "unknown dtype"),
    (frame({"d": {"a": [[[[[[[[[[[[[[1]]]]]]]]]]]]]]}}), "too deeply"),
]


@pytest.mark.parametrize(("data", "reason"), MALFORMED, ids=range(len(MALFORMED)))
def test_a_frame_that_breaks_the_rules_is_malformed(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        receive_bytes(data)


def test_a_list_that_is_too_long_is_malformed() -> None:
    data = frame({"d": {"a": [0] * 10_001}})
    with pytest.raises(Malformed, match="too long"):
        receive_bytes(data, Limits())


def test_strides_that_only_an_axis_of_one_has_are_harmless() -> None:
    data = frame({"d": {"a": {"t": "0", "s": [12, 2**39]}}}, blob(**{"0": torch.ones(3, 1)}))
    assert receive_bytes(data, Limits())["a"].tolist() == [[1.0]] * 3


@pytest.mark.parametrize("size", [0, 3, 8, 20, 50])
def test_a_frame_that_ends_early_is_a_closed_connection(size: int) -> None:
    data = frame({"d": {"a": {"t": "0"}}}, ROW)
    with pytest.raises(Closed, match="closed"):
        receive_bytes(data[:size])


@pytest.mark.parametrize("size", [0, 3, 8, 20])
def test_a_frame_that_never_ends_is_given_up_at_the_deadline(size: int) -> None:
    data = frame({"d": {"a": {"t": "0"}}}, ROW)
    with pytest.raises(Closed, match="in time"):
        receive_bytes(data[:size], hang_up=False)


def test_an_endless_stream_is_read_no_further_than_its_header_allows() -> None:
    with pair() as (ours, theirs):
        ours.setblocking(False)
        ours.send(b"\x7f" * 10_000)
        with pytest.raises(Malformed, match="larger than allowed"):
            receive(theirs, SMALL, time.monotonic() + 60)


def test_a_reader_that_does_not_read_is_given_up_at_the_deadline() -> None:
    with pair() as (ours, _), pytest.raises(Closed, match="in time"):
        send(ours, {"value": torch.zeros(1 << 20)}, time.monotonic() + 0.05)


def test_a_reader_that_is_gone_is_a_closed_connection() -> None:
    with pair() as (ours, theirs):
        theirs.close()
        with pytest.raises(Closed, match="closed"):
            send(ours, {"value": 1})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from("tsgudfeyor"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*"tsgudfeyor", "x"]), inner, max_size=3)
    ),
    max_leaves=15,
)


@quick
@given(
    st.one_of(json_values, json_values.map(lambda value: {"d": {"a": value}})), st.sampled_from([b"", ROW])
)
def test_no_document_raises_anything_but_malformed(document: Any, blob: bytes) -> None:
    try:
        message = receive_bytes(frame(document, blob), Limits())
    except Malformed:
        return
    assert isinstance(message, dict)


@quick
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_raise_anything_but_malformed(document: bytes, tail: bytes) -> None:
    with pytest.raises((Malformed, Closed)):
        receive_bytes(frame(document, tail), Limits())


@quick
@given(st.data())
def test_no_damage_to_the_tensors_raises_anything_but_malformed(data: st.DataObject) -> None:
    damaged = bytearray(ROW)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = receive_bytes(frame({"d": {"a": {"t": "0", "s": [8, 2]}}}, bytes(damaged)), Limits())
    except Malformed:
        return
    assert isinstance(message["a"], Tensor)
