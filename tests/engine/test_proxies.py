"""A student's function or module through a proxy: numbers, gradients, errors and costs as without one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograder.checks.objects import Remote
from autograder.engine.dialogue import Stopped, Worker
from autograder.engine.nursery import Limit, Nursery
from autograder.engine.proxies import ClassProxy, FunctionProxy, resolve
from autograder.observation import observe

DEFINITIONS = """
import builtins

import torch
from torch import nn

import collections
import decimal
import fractions

import numpy

Pair = collections.namedtuple("Pair", "first second")

limit = 3.5
counts = [numpy.float32(1.5), numpy.longdouble(64), fractions.Fraction(1, 4), decimal.Decimal(8)]
letter = "c"
nothing = None
unanswered = ...
pair = (1, torch.arange(3.0))
thing = object()
sizes = {1, 2}


def scaled(query, key, *, scale=2.0):
    return query @ key.transpose(-2, -1) * scale


def several(x, y=None):
    return x.exp(), {"sum": x.sum(), "half": [x / 2, "text", 7]}, y


def named(x):
    return Pair(x.exp(), Pair(x, 2 * x))


def cut(x):
    return (x * 2).detach(), x * 3


def in_place(query, key, *, scale=2.0):
    query *= scale
    return query @ key.transpose(-2, -1)


def takes_first(xs):
    return xs[0] * xs[1]


def draw(shape, *, generator=None):
    return torch.rand(shape, generator=generator)


def chain(x, steps):
    for _ in range(steps):
        x = x.sin()
    return x


def failing(kind):
    if kind == "own":
        class ShapeError(ValueError):
            pass
        raise ShapeError("sizes 3 and 4 differ")
    raise getattr(builtins, kind)("told so")


class Module(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        self.proj = nn.Linear(d_in, d_out)
        self.inner = nn.Sequential(nn.Linear(d_out, d_out, bias=False), nn.Dropout(0.5))
        self.gain = nn.Parameter(torch.full((d_out,), 2.0))
        self.frozen = nn.Parameter(torch.ones(d_out), requires_grad=False)
        self.register_buffer("shift", torch.full((d_out,), 0.25))

    def forward(self, x, attn_mask=None):
        y = self.inner(self.proj(x)) * self.gain * self.frozen + self.shift
        return y if attn_mask is None else y.masked_fill(~attn_mask, 0.0)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.alias = self.one

    def forward(self, x):
        return self.one(x) + self.alias(x)


class AwkwardNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.worker = nn.Parameter(torch.ones(2))
        self.number = nn.Linear(2, 2)

    def forward(self, x):
        return self.number(x) * self.worker


class NotAModule:
    def __init__(self, *args):
        self.args = args
"""

HERE: dict[str, Any] = {"__builtins__": __builtins__}
exec(DEFINITIONS, HERE)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(jail=False) as nursery:
        yield nursery


@pytest.fixture
def worker(nursery: Nursery) -> Iterator[Worker]:
    worker = nursery.worker(Limit())
    answer = worker.ask("run", source=DEFINITIONS)
    assert answer["error"] is None
    yield worker
    worker.close()


@pytest.fixture
def there(worker: Worker) -> Callable[[str], Any]:
    """A name of DEFINITIONS, as a proxy."""
    return lambda name: resolve(worker, name)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, grad: bool = False) -> Tensor:
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return numbers.to(dtype).requires_grad_(grad)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor) and torch.equal(one, other) and one.requires_grad == other.requires_grad
        )
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[k], other[k]) for k in one)
        )
    return bool(one == other)


def test_names_stand_for_functions_classes_and_plain_values(there: Callable[[str], Any]) -> None:
    assert isinstance(there("scaled"), FunctionProxy)
    assert isinstance(there("Module"), ClassProxy)
    assert isinstance(there("scaled"), Remote)
    assert (there("limit"), there("letter"), there("nothing"), there("unanswered")) == (3.5, "c", None, ...)
    assert same(there("pair"), (1, torch.arange(3.0)))


def test_an_unknown_object_is_good_for_its_name_and_nothing_else(there: Callable[[str], Any]) -> None:
    thing = there("thing")
    assert type(thing).__name__ == "object"
    assert type(there("sizes")).__name__ == "set"
    assert not callable(thing)


def test_a_name_that_the_student_did_not_define_is_a_name_error(there: Callable[[str], Any]) -> None:
    with pytest.raises(NameError, match="name 'attention' is not defined"):
        there("attention")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_function_gives_the_same_numbers_as_here(there: Callable[[str], Any], dtype: torch.dtype) -> None:
    query, key = normal(2, 3, 5, 8, dtype=dtype), normal(2, 3, 7, 8, seed=1, dtype=dtype)
    result = there("scaled")(query, key, scale=0.5)
    assert result.dtype == dtype
    assert torch.equal(result, HERE["scaled"](query, key, scale=0.5))


def test_results_of_any_shape_come_back_as_they_are(there: Callable[[str], Any]) -> None:
    x = normal(4)
    assert same(there("several")(x, y=x + 1), HERE["several"](x, y=x + 1))


def test_a_named_tuple_comes_back_as_a_tuple(there: Callable[[str], Any]) -> None:
    x = normal(4, grad=True)
    first, (second, third) = there("named")(x)
    assert torch.equal(first, x.exp())
    assert torch.autograd.grad((second + third).sum(), x)[0].tolist() == [3.0] * 4


def test_numbers_of_any_kind_are_numbers(there: Callable[[str], Any]) -> None:
    assert there("counts") == [1.5, 64.0, 0.25, 8.0]


def test_tensors_inside_lists_are_arguments_like_others(there: Callable[[str], Any]) -> None:
    xs = [normal(3, grad=True), normal(3, seed=1, grad=True)]
    there("takes_first")(xs).sum().backward()
    assert torch.equal(xs[0].grad, xs[1].detach())
    assert torch.equal(xs[1].grad, xs[0].detach())


def test_gradients_equal_those_of_a_local_call(there: Callable[[str], Any]) -> None:
    found = []
    for function in (there("scaled"), HERE["scaled"]):
        query, key = normal(2, 5, 8, grad=True), normal(2, 7, 8, seed=1, grad=True)
        output = function(query, key)
        assert output.requires_grad
        output.backward(normal(2, 5, 7, seed=2))
        found.append((query.grad, key.grad))
    assert same(found[0], found[1])


def test_a_detached_result_has_no_gradient_and_the_other_one_has(there: Callable[[str], Any]) -> None:
    x = normal(3, grad=True)
    stopped, flowing = there("cut")(x)
    assert not stopped.requires_grad
    assert flowing.requires_grad
    flowing.sum().backward()
    assert x.grad.tolist() == [3.0] * 3


def test_only_inputs_that_want_a_gradient_get_one(there: Callable[[str], Any]) -> None:
    query, key = normal(5, 8), normal(7, 8, seed=1, grad=True)
    there("scaled")(query, key).sum().backward()
    assert query.grad is None
    assert key.grad is not None


def test_nothing_is_differentiated_under_no_grad(there: Callable[[str], Any]) -> None:
    with torch.no_grad():
        assert not there("scaled")(normal(5, 8, grad=True), normal(7, 8)).requires_grad


def test_backward_may_be_called_twice_on_a_retained_graph(there: Callable[[str], Any]) -> None:
    x = normal(4, grad=True)
    output = there("chain")(x, 2).sum()
    output.backward(retain_graph=True)
    once = x.grad.clone()
    output.backward()
    assert torch.allclose(x.grad, 2 * once)


def test_a_proxy_in_the_middle_of_a_graph_passes_gradients_on(there: Callable[[str], Any]) -> None:
    found = []
    for function in (there("chain"), HERE["chain"]):
        x = normal(4, grad=True)
        (function(x * 2, 2).exp() * x).sum().backward()
        found.append(x.grad)
    assert torch.equal(found[0], found[1])


def test_gradcheck_passes_through_a_function(there: Callable[[str], Any]) -> None:
    query, key = (
        normal(2, 3, 4, dtype=torch.float64, grad=True),
        normal(2, 5, 4, seed=1, dtype=torch.float64, grad=True),
    )
    assert torch.autograd.gradcheck(there("scaled"), (query, key))


def test_gradcheck_fails_for_a_gradient_that_is_cut(there: Callable[[str], Any]) -> None:
    x = normal(3, dtype=torch.float64, grad=True)
    cut = there("cut")
    with pytest.raises(torch.autograd.gradcheck.__globals__["GradcheckError"]):
        torch.autograd.gradcheck(lambda x: cut(x)[0] + 0 * x, (x,))


def test_gradcheck_passes_through_a_modules_input_and_weights(there: Callable[[str], Any]) -> None:
    module = there("Module")(3, 2).eval().double()
    state = {
        name: p.detach().clone().requires_grad_() for name, p in module.named_parameters() if p.requires_grad
    }
    names = list(state)

    def call(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x,))

    x = normal(4, 3, dtype=torch.float64, grad=True)
    assert torch.autograd.gradcheck(call, (x, *state.values()))


def test_a_graph_is_kept_as_long_as_somebody_may_ask_for_gradients_and_no_longer(
    worker: Worker, there: Callable[[str], Any]
) -> None:
    x, chain = normal(3, grad=True), there("chain")
    outputs = [chain(x, 1) for _ in range(100)]
    torch.stack(outputs).sum().backward()
    assert torch.allclose(x.grad, 100 * x.detach().cos())
    assert graphs_kept(worker) == 100
    del outputs
    assert graphs_kept(worker) == 0


def graphs_kept(worker: Worker) -> int:
    source = (
        "import gc\nkept = len(next(o for o in gc.get_objects() if type(o).__name__ == '_Worker').graphs)\n"
    )
    assert worker.ask("run", source=source)["error"] is None
    return int(resolve(worker, "kept"))


ERRORS = [
    ("own", "ShapeError", ValueError),
    ("ValueError", "ValueError", ValueError),
    ("NotImplementedError", "NotImplementedError", NotImplementedError),
    ("ZeroDivisionError", "ZeroDivisionError", ZeroDivisionError),
    ("MemoryError", "MemoryError", MemoryError),
    ("SystemExit", "SystemExit", Exception),
    ("KeyboardInterrupt", "KeyboardInterrupt", Exception),
]


@pytest.mark.parametrize(("kind", "name", "base"), ERRORS)
def test_an_exception_keeps_its_name_its_text_and_its_kind(
    there: Callable[[str], Any], kind: str, name: str, base: type[Exception]
) -> None:
    with pytest.raises(base) as caught:
        there("failing")(kind)
    assert type(caught.value).__name__ == name
    assert str(caught.value) == ("sizes 3 and 4 differ" if kind == "own" else "told so")
    assert isinstance(caught.value, Exception), "not even a sys.exit of the student's may end the judge"


def test_torchs_own_errors_come_through(there: Callable[[str], Any]) -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        there("scaled")(normal(5, 8), normal(7, 6))


def test_a_failed_call_does_no_harm_to_the_next(there: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="differ"):
        there("failing")("own")
    assert there("chain")(torch.zeros(1), 1).item() == 0.0


QUESTIONS: list[tuple[str, Callable[[Any], object]]] = [
    ("bool", bool),
    ("==", lambda proxy: proxy == 1),
    ("!=", lambda proxy: proxy != 1),
    ("<", lambda proxy: proxy < 1),
    ("len", len),
    ("iter", iter),
    ("in", lambda proxy: 1 in proxy),
    ("[]", operator.itemgetter(0)),
    ("hash", hash),
]


@pytest.mark.parametrize("name", ["scaled", "Module"])
@pytest.mark.parametrize(("what", "ask"), QUESTIONS, ids=[what for what, _ in QUESTIONS])
def test_a_proxy_answers_no_question_that_a_student_could_lie_about(
    there: Callable[[str], Any], name: str, what: str, ask: Callable[[Any], object]
) -> None:
    with pytest.raises(TypeError):
        ask(there(name))


def test_what_a_function_does_is_observed_as_here(there: Callable[[str], Any]) -> None:
    query, key = normal(2, 5, 8), normal(2, 7, 8, seed=1)
    for name in ("scaled", "in_place"):
        seen = there(name).observe([query, key], {"scale": 0.5})
        wanted = observe(
            lambda given, name=name: HERE[name](given["a0"], given["a1"], scale=0.5), {"a0": query, "a1": key}
        )
        assert seen == wanted
    assert there("in_place").observe([query, key], {}).modified == ("a0",)
    assert there("scaled").observe([query, key], {}).flops == 2 * 2 * 5 * 7 * 8


def test_what_a_module_does_is_observed_as_here(there: Callable[[str], Any]) -> None:
    x, proxy, module = normal(4, 3), there("Module")(3, 2), HERE["Module"](3, 2)
    state = dict(module.state_dict())
    seen = proxy.observe([x], {}, state)
    wanted = observe(lambda given: torch.func.functional_call(module, state, (given["a0"],)), {"a0": x})
    assert (seen.flops, seen.largest, seen.modified) == (wanted.flops, wanted.largest, wanted.modified)
    assert "linear" in seen.calls


def test_a_modules_weights_have_the_same_names_shapes_and_flags(there: Callable[[str], Any]) -> None:
    proxy, module = there("Module")(3, 2), HERE["Module"](3, 2)
    assert {n: v.shape for n, v in proxy.state_dict().items()} == {
        n: v.shape for n, v in module.state_dict().items()
    }
    assert {n: p.requires_grad for n, p in proxy.named_parameters()} == {
        n: p.requires_grad for n, p in module.named_parameters()
    }
    assert dict(proxy.named_buffers()).keys() == dict(module.named_buffers()).keys()
    assert torch.equal(proxy.gain, torch.full((2,), 2.0))
    assert isinstance(proxy, nn.Module)


def test_a_module_computes_with_the_weights_that_lie_here(there: Callable[[str], Any]) -> None:
    proxy, module = there("Module")(3, 2).eval(), HERE["Module"](3, 2).eval()
    x = normal(4, 3)
    proxy.load_state_dict(module.state_dict())
    assert torch.equal(proxy(x), module(x))
    proxy.gain.data.fill_(0.0)
    assert torch.equal(proxy(x), torch.full((4, 2), 0.25))


def test_functional_call_puts_other_weights_in_their_place_for_one_call(there: Callable[[str], Any]) -> None:
    proxy, module = there("Module")(3, 2).eval(), HERE["Module"](3, 2).eval()
    state = {name: torch.randn_like(value) for name, value in module.state_dict().items()}
    x, mask = normal(4, 3), torch.tensor([[True, False]] * 4)
    before = proxy(x)
    given = torch.func.functional_call(proxy, state, (x,), {"attn_mask": mask})
    assert torch.equal(given, torch.func.functional_call(module, state, (x,), {"attn_mask": mask}))
    assert torch.equal(proxy(x), before)


def test_gradients_of_input_and_weights_equal_the_local_ones(there: Callable[[str], Any]) -> None:
    module = HERE["Module"](3, 2).eval()
    found = []
    for one in (there("Module")(3, 2).eval(), module):
        one.load_state_dict(module.state_dict())
        x = normal(4, 3, grad=True)
        one(x).square().sum().backward()
        found.append({"x": x.grad, **{name: p.grad for name, p in one.named_parameters()}})
        one.zero_grad()
    assert found[0]["frozen"] is None
    assert found[0].keys() == found[1].keys()
    assert all(same(found[0][name], found[1][name]) for name in found[0])


def test_train_and_eval_reach_the_students_module(there: Callable[[str], Any]) -> None:
    proxy, x = there("Module")(3, 2), torch.ones(400, 3)
    kept = torch.full((2,), 0.25)
    assert (proxy.train()(x) == kept).any(), "dropout sets about half of the elements to the shift"
    assert not (proxy.eval()(x) == kept).any()


def test_a_tied_weight_is_one_weight_here_too(there: Callable[[str], Any]) -> None:
    proxy, module = there("Tied")(), HERE["Tied"]()
    assert [name for name, _ in proxy.named_parameters()] == [name for name, _ in module.named_parameters()]
    assert proxy.alias.weight is proxy.one.weight
    x, state = normal(2, 3), {"one.weight": torch.eye(3), "one.bias": torch.zeros(3)}
    assert torch.equal(torch.func.functional_call(proxy, state, (x,)), 2 * x)


def test_no_name_of_a_students_weight_is_taken(there: Callable[[str], Any]) -> None:
    proxy = there("AwkwardNames")()
    state = {"worker": torch.full((2,), 3.0), "number.weight": torch.eye(2), "number.bias": torch.zeros(2)}
    assert torch.equal(torch.func.functional_call(proxy, state, (torch.ones(2),)), torch.full((2,), 3.0))


def test_an_object_that_is_no_module_can_only_be_named(there: Callable[[str], Any]) -> None:
    made = there("NotAModule")(3)
    assert type(made).__name__ == "NotAModule"
    assert not callable(made)
    assert not hasattr(made, "args")


def test_a_sampling_function_draws_from_the_generator_that_it_is_given(there: Callable[[str], Any]) -> None:
    ours, theirs = (torch.Generator().manual_seed(11) for _ in range(2))
    for _ in range(2):  # the second draw goes on where the first one stopped
        assert torch.equal(there("draw")((2, 3), generator=theirs), HERE["draw"]((2, 3), generator=ours))


LIES = [
    ("shape", "gradients that do not fit", "[torch.zeros(2) for _ in found]"),
    ("number", "gradients that do not fit", "list(found) * 2"),
    ("kind", "gradients that do not fit", "['zero' for _ in found]"),
]


@pytest.mark.parametrize(("what", "reason", "lie"), LIES, ids=[lie[0] for lie in LIES])
def test_gradients_that_do_not_fit_are_refused(worker: Worker, what: str, reason: str, lie: str) -> None:
    patch = f"grad = torch.autograd.grad\ndef lying(*a, **k):\n    found = grad(*a, **k)\n    return {lie}\n"
    worker.ask("run", source=f"{patch}torch.autograd.grad = lying")
    x = normal(3, grad=True)
    with pytest.raises(Stopped, match=reason):
        resolve(worker, "chain")(x, 1).sum().backward()


def test_an_observation_that_makes_no_sense_is_refused(worker: Worker) -> None:
    source = (
        "import gc\n"
        "loop = next(o for o in gc.get_objects() if type(o).__name__ == '_Worker')\n"
        "lie = {'flops': 'none', 'largest': 0, 'calls': [], 'modified': []}\n"
        "type(loop).observe = lambda self, **k: lie\n"
    )
    assert worker.ask("run", source=source)["error"] is None
    with pytest.raises(Stopped, match="makes no sense"):
        resolve(worker, "chain").observe([torch.zeros(1), 1], {})
