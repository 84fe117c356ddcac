"""What a check hands to student code and what it gets to keep: functions of the judge's, layers of torch.nn, objects."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograder.case import Layer
from autograder.checks.deadline import OutOfTime
from autograder.checks.objects import attribute, construct, invoke
from autograder.engine import dialogue
from autograder.engine.dialogue import Stopped, Worker, _Handed
from autograder.engine.nursery import Limit, Nursery
from autograder.engine.proxies import resolve
from autograder.engine.wire import MOST_GIVEN, Handle, Limits, Malformed
from autograder.observation import apart, observe
from tests.engine.test_wire import there_and_back

DEFINITIONS = """
import threading
import time

import torch
from torch import nn

kept = []


def repeat(model, tokens, steps=1):
    for _ in range(steps):
        tokens = model(tokens)
    return tokens


def keep(model):
    kept.append(model)


def call_what_was_kept(x):
    return kept[0](x)


def in_a_thread(model, x):
    said = []

    def run():
        try:
            model(x)
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return said


def catching(model, x):
    try:
        return model(x)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def catching_all(model):
    for each in ([1] * 200, torch.ones(2).numpy(), Cache(1), torch.int64):
        model(each)


def ask_for_ever(model, x):
    while True:
        model(x)


def ask_whatever_it_says(model, x):
    while True:
        try:
            model(x)
        except Exception:
            pass


def product_and_model(model, x):
    return model(x @ x.T)


class Cache:
    def __init__(self, width):
        self.width, self.keys = width, []

    def append(self, key):
        self.keys.append(key)
        return torch.cat(self.keys)

    def __len__(self):
        return len(self.keys)


class Holder(nn.Module):
    def __init__(self, layer, depth):
        super().__init__()
        self.layer, self.depth = layer, depth

    def forward(self, x):
        for _ in range(self.depth):
            x = self.layer(x)
        return x


class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, x, cache):
        return cache.append(x * self.gain)


class CacheModule(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width, self.keys = width, []

    append = Cache.append
    __len__ = Cache.__len__


class WithModel:
    def __init__(self, model):
        self.model = model

    def __call__(self, x):
        return self.model(x)
"""

HERE: dict[str, Any] = {"__builtins__": __builtins__}
exec(DEFINITIONS, HERE)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(jail=False) as nursery:
        yield nursery


@pytest.fixture
def worker(nursery: Nursery) -> Iterator[Worker]:
    worker = nursery.worker(Limit(request=1.0))
    assert worker.ask("run", source=DEFINITIONS)["error"] is None
    yield worker
    worker.close()


@pytest.fixture(params=["here", "there"])
def student(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """A name of DEFINITIONS: itself, and as a proxy."""
    if request.param == "here":
        return HERE.__getitem__
    worker = request.getfixturevalue("worker")
    return lambda name: resolve(worker, name)


@pytest.fixture
def there(worker: Worker) -> Callable[[str], Any]:
    return lambda name: resolve(worker, name)


def doubling(calls: list[Any]) -> Callable[[Tensor], Tensor]:
    def model(tokens: Tensor) -> Tensor:
        calls.append(tokens)
        return tokens * 2

    return apart(model)


def test_a_function_that_is_handed_over_is_called_here(student: Callable[[str], Any]) -> None:
    calls: list[Any] = []
    found = student("repeat")(doubling(calls), torch.tensor([1, 5]), steps=3)
    assert found.tolist() == [8, 40]
    assert [call.tolist() for call in calls] == [[1, 5], [2, 10], [4, 20]]


def test_its_error_is_raised_in_the_student_code(student: Callable[[str], Any]) -> None:
    def model(x: Any) -> Any:
        raise IndexError(f"token {int(x)} does not exist")

    assert student("catching")(model, torch.tensor(7)) == "IndexError: token 7 does not exist"


def test_what_student_code_sends_it_is_plain(there: Callable[[str], Any]) -> None:
    got: list[Any] = []
    there("catching")(lambda x: got.append(x), {"x": 1})
    assert got == [{"x": 1}]


def test_what_cannot_cross_arrives_as_an_object_of_that_name(there: Callable[[str], Any]) -> None:
    names: list[str] = []
    there("catching_all")(lambda x: names.append(type(x).__name__))
    assert names == ["list", "ndarray", "Cache", "dtype"]


def test_a_function_kept_by_an_object_can_be_called_later(student: Callable[[str], Any]) -> None:
    calls: list[Any] = []
    made = construct(student("WithModel"), doubling(calls))
    assert invoke(made, "__call__", torch.tensor(4)).item() == 8
    assert len(calls) == 1


def test_a_function_that_is_kept_answers_only_while_a_request_is_answered(worker: Worker) -> None:
    calls: list[Any] = []
    resolve(worker, "keep")(doubling(calls))
    answer = worker.ask("run", source="kept[0](torch.tensor(3))", seconds=1.0)
    assert answer["error"] is None
    assert len(calls) == 1  # while a cell runs: the judge is listening
    assert resolve(worker, "call_what_was_kept")(torch.tensor(3)).item() == 6


def test_another_thread_may_not_call_it(there: Callable[[str], Any]) -> None:
    calls: list[Any] = []
    (said,) = there("in_a_thread")(doubling(calls), torch.tensor(3))
    assert "only during a check" in said
    assert calls == []


def test_asking_for_ever_is_stopped_and_the_next_request_is_answered(there: Callable[[str], Any]) -> None:
    def slow(x: Tensor) -> Tensor:
        time.sleep(0.01)
        return x

    for name in ("ask_for_ever", "ask_whatever_it_says"):
        with pytest.raises(OutOfTime):
            there(name)(slow, torch.tensor(3))
    assert there("repeat")(doubling([]), torch.tensor(3)).item() == 6


def test_who_asks_too_often_or_hands_over_too_much_is_told_so_and_nothing_is_called(
    there: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogue, "MOST_CALLS", 60)
    calls: list[Any] = []
    with pytest.raises(RuntimeError, match="called more than 60 times"):
        there("ask_for_ever")(doubling(calls), torch.tensor(3))
    assert len(calls) == 60
    del calls[:]
    for much in (torch.zeros(MOST_GIVEN + 1), torch.zeros(MOST_GIVEN + 1, 0), [torch.zeros(MOST_GIVEN)] * 2):
        assert "numbers were handed" in there("catching")(doubling(calls), much)
    assert calls == []


def test_what_a_function_does_counts_in_the_time_of_the_call(worker: Worker) -> None:
    def model(x: Tensor) -> Tensor:
        while True:
            pass

    since = time.monotonic()
    with pytest.raises(Stopped, match="more than the function that it was handed could do in time"):
        resolve(worker, "catching")(model, torch.tensor(3))
    assert time.monotonic() - since < 5
    assert worker.gone


def test_what_a_function_returns_and_cannot_cross_is_an_error_in_the_student_code(
    there: Callable[[str], Any],
) -> None:
    assert "cannot cross" in there("catching")(lambda x: object(), torch.tensor(3))


def test_an_error_tells_its_first_line_and_not_for_ever(there: Callable[[str], Any]) -> None:
    def model(x: Tensor) -> Tensor:
        raise ValueError("x" * 1000 + "\nsecond line")

    assert there("catching")(model, torch.tensor(3)) == "ValueError: " + "x" * 300


def test_a_function_is_let_go_when_its_check_is_over(worker: Worker) -> None:
    calls: list[Any] = []
    resolve(worker, "keep")(doubling(calls))
    worker.retire()
    assert worker.callbacks == {}
    with pytest.raises(RuntimeError, match="only during the check that it was made for"):
        resolve(worker, "call_what_was_kept")(torch.tensor(3))
    assert calls == []
    assert resolve(worker, "repeat")(doubling(calls), torch.tensor(3)).item() == 6


FORGED = [
    {"callback": 99, "args": [], "kwargs": {}},
    {"callback": -1, "args": [], "kwargs": {}},
    {"callback": "0", "args": [], "kwargs": {}},
    {"callback": 0, "args": [], "kwargs": {}},
    {"callback": True, "args": [], "kwargs": {}},
    {"callback": 1, "args": 5, "kwargs": {}},
    {"callback": 1, "args": [], "kwargs": None},
]


@pytest.mark.parametrize("forged", FORGED)
def test_a_call_that_makes_no_sense_stops_the_worker(worker: Worker, forged: dict[str, Any]) -> None:
    worker.register(lambda: 1)
    with pytest.raises(Stopped, match="makes no sense"):
        worker._call_back(forged, _Handed(), math.inf)
    assert worker.gone


def test_only_a_judge_may_send_handles_and_layers() -> None:
    for value in (Handle(1), Layer("Tanh")):
        with pytest.raises(Malformed, match="unknown tag"):
            there_and_back(value)
    assert there_and_back(Handle(3), Limits(trusted=True)) == Handle(3)


def test_the_work_of_a_function_that_is_handed_over_counts_for_nobody(worker: Worker) -> None:
    big = torch.ones(50, 50)
    model = apart(lambda x: (big @ big)[:2, :2] + x)
    x = torch.ones(2, 3)
    here = observe(lambda given: HERE["product_and_model"](model, given["a1"]), {"a1": x})
    there = resolve(worker, "product_and_model").observe([model, x], {})
    assert here.flops == there.flops == 2 * 2 * 3 * 2
    assert max(here.largest, there.largest) < 50


def test_a_layer_arrives_as_the_module_that_it_describes(student: Callable[[str], Any]) -> None:
    layer = Layer("Sequential", Layer("Linear", 4, 4, bias=False), Layer("Tanh"), seed=3)
    built = layer.build()
    module = construct(student("Holder"), layer, 3)
    assert {n: tuple(p.shape) for n, p in module.named_parameters()} == {"layer.0.weight": (4, 4)}
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(x), built(built(built(x))))
    assert repr(layer) == "Sequential(Linear(4, 4, bias=False), Tanh())"


def test_a_layer_has_the_same_weights_each_time_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second, other = (Layer("Linear", 3, 2, seed=seed).build() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(first, nn.Linear)
    assert torch.equal(first.weight, second.weight)  # type: ignore[arg-type]
    assert not torch.equal(first.weight, other.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["functional", "Nothing", "Parameter"])
def test_a_layer_that_torch_does_not_have_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"torch\.nn has no module class"):
        Layer(kind, 2).build()


@pytest.mark.parametrize("name", ["Cache", "CacheModule"])
def test_an_object_has_methods_and_attributes(student: Callable[[str], Any], name: str) -> None:
    cache = construct(student(name), 6)
    key = torch.arange(2.0, requires_grad=True)
    assert invoke(cache, "__len__") == 0
    found = invoke(cache, "append", key)
    found.sum().backward()
    assert found.tolist() == [0.0, 1.0]
    assert key.grad is not None
    assert key.grad.tolist() == [1.0, 1.0]
    assert invoke(cache, "__len__") == 1
    assert attribute(cache, "width") == 6
    assert type(cache).__name__ in (name, "_ModuleProxy")
    with pytest.raises(AttributeError):
        invoke(cache, "nothing")


def test_an_object_can_be_handed_back(student: Callable[[str], Any]) -> None:
    cache, module = construct(student("Cache"), 6), construct(student("Cached"))
    assert module(torch.ones(1), cache).tolist() == [2.0]
    assert module(torch.ones(1) * 3, cache).tolist() == [2.0, 6.0]
    assert invoke(cache, "__len__") == 2


def test_objects_and_modules_can_be_handed_to_functions(student: Callable[[str], Any]) -> None:
    module = construct(student("Holder"), Layer("Flatten"), 1)
    assert student("repeat")(module, torch.ones(2, 3, 4)).shape == (2, 12)


def test_what_is_handed_back_must_be_the_workers_own(worker: Worker) -> None:
    stray = SimpleNamespace(worker=worker)
    with pytest.raises(Malformed, match="SimpleNamespace cannot cross"):
        resolve(worker, "catching")(stray, torch.ones(1))
