"""Circumstances: each is what it says, right code does not notice, and wrong code does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autograder.circumstance import (
    ORDINARY,
    Circumstance,
    EarlierResultChanged,
    InputWrittenTo,
    MixedDevices,
    ModeLeft,
    performed,
    present,
    under,
)

APART = Circumstance(second_device=True)


def run(function: Callable[..., Any], circumstance: Circumstance, *given: Tensor) -> Any:
    return performed(lambda change: function(*map(change, given)), given, circumstance)


def square() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 4), torch.randn(4, 3)


RIGHT_ANYWHERE = {
    "a mask on the inputs' device": lambda a, b: (a @ b).masked_fill(torch.ones(3, 3, device=a.device).tril() > 0, 0.0),
    "made like the input": lambda a, b: a @ b + torch.zeros_like(a @ b),
    "new_ones": lambda a, b: a @ b * a.new_ones(3, 3),
    "moved over": lambda a, b: a @ b + torch.arange(3.0).to(a.device),
    "moved over to a tensor": lambda a, b: a @ b + torch.arange(3.0).to(a),
    "a number": lambda a, b: a @ b * torch.tensor(2.0) / math.sqrt(4),
    "an index": lambda a, b: (a @ b)[torch.tensor([0, 2])],
    "rows one by one": lambda a, b: torch.stack([row @ b for row in a]),
    "written into": lambda a, b: torch.empty(3, 3, device=a.device).copy_(a @ b),
    "looks at values": lambda a, b: a @ b if float(a.sum()) > 0 and a.max().item() > -1e9 else b.mT @ a.mT,
    "einsum": lambda a, b: torch.einsum("ij,jk->ik", a, b),
    "a layer": lambda a, b: nn.functional.layer_norm(a @ b, (3,)),
}  # fmt: skip

WRONG_ELSEWHERE = {
    "a mask without a device": lambda a, b: (a @ b).masked_fill(torch.ones(3, 3, dtype=torch.bool).tril(), 0.0),
    "positions without a device": lambda a, b: a @ b + torch.arange(3.0),
    "where": lambda a, b: torch.where(torch.eye(3) > 0, a @ b, 0.0),
    "cat": lambda a, b: torch.cat([a @ b, torch.zeros(3, 1)], -1),
    "in place": lambda a, b: (a @ b).add_(torch.ones(3)),
    "a view of a table": lambda a, b: a @ b + torch.zeros(2, 3)[:1],
    "out of place on the CPU": lambda a, b: torch.zeros(3, 3) + a.cpu() @ b,
    "by name": lambda a, b: a @ b + torch.ones(3, device="cpu"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT_ANYWHERE)
def test_code_that_asks_for_the_device_does_not_notice_a_second_one(name: str) -> None:
    a, b = square()
    torch.testing.assert_close(run(RIGHT_ANYWHERE[name], APART, a, b), RIGHT_ANYWHERE[name](a, b))


@pytest.mark.parametrize("name", WRONG_ELSEWHERE)
def test_a_tensor_of_the_default_device_is_refused_beside_the_inputs(name: str) -> None:
    with pytest.raises(MixedDevices, match="same device"):
        run(WRONG_ELSEWHERE[name], APART, *square())


def test_a_buffer_moves_with_its_module_and_a_plain_attribute_does_not() -> None:
    class Table(nn.Module):
        def __init__(self, registered: bool):
            super().__init__()
            if registered:
                self.register_buffer("table", torch.ones(3, 3))
            else:
                self.table = torch.ones(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.table

    x = torch.randn(3, 3)
    for registered in (True, False):
        module = Table(registered)

        def call(change: Callable[[Tensor], Tensor], module: nn.Module = module) -> Any:
            return module(change(x))

        if registered:
            torch.testing.assert_close(performed(call, [x], APART, module), x)
        else:
            with pytest.raises(MixedDevices):
                performed(call, [x], APART, module)


def test_modes_and_the_default_dtype_hold_during_the_call_and_no_longer() -> None:
    seen = {}

    def look(x: Tensor) -> Tensor:
        seen.update(
            grad=torch.is_grad_enabled(),
            inference=torch.is_inference_mode_enabled(),
            dtype=torch.get_default_dtype(),
        )
        return x

    before = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()
    for circumstance, wanted in {
        Circumstance(grad="no_grad"): {"grad": False, "inference": False},
        Circumstance(grad="inference_mode"): {"grad": False, "inference": True},
        Circumstance(default_dtype="float64"): {"dtype": torch.float64},
    }.items():
        run(look, circumstance, torch.ones(2))
        assert wanted.items() <= seen.items()
        assert before == (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
        )


@pytest.mark.parametrize("circumstance", [ORDINARY, APART, Circumstance(grad="no_grad")], ids=str)
def test_a_mode_that_a_call_leaves_changed_is_told_and_put_back(circumstance: Circumstance) -> None:
    def doubling(a: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return 2 * a

    with pytest.raises(ModeLeft, match="default dtype"):
        run(doubling, circumstance, torch.ones(2))
    assert torch.get_default_dtype() == torch.float32

    def silencing(a: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        return a

    if not circumstance.grad:
        with pytest.raises(ModeLeft, match="grad mode"):
            run(silencing, circumstance, torch.ones(2))
    assert torch.is_grad_enabled()


def test_memory_that_nobody_wrote_is_nan() -> None:
    found = run(lambda x: torch.empty(3) + torch.empty_like(x), Circumstance(poisoned=True), torch.ones(3))
    assert bool(found.isnan().all())


def test_checkpointing_computes_again_and_gives_the_same_gradient() -> None:
    calls = []

    def twice(x: Tensor) -> Tensor:
        calls.append(1)
        return (x * x).sin()

    x = torch.randn(4, requires_grad=True)
    run(twice, Circumstance(grad="checkpoint"), x).sum().backward()
    assert len(calls) == 2
    torch.testing.assert_close(x.grad, 2 * x.detach() * (x.detach() ** 2).cos())


def test_a_cache_by_object_is_caught_by_tensors_that_are_used_again() -> None:
    kept: dict[int, Tensor] = {}

    def remembers(x: Tensor) -> Tensor:
        return kept.setdefault(id(x), x * 2)

    x = torch.randn(3)
    right = x * 2
    assert not torch.allclose(run(remembers, Circumstance(before="other numbers"), x), right)
    torch.testing.assert_close(run(lambda x: x * 2, Circumstance(before="other numbers"), x), right)


def test_a_result_that_is_kept_by_its_input_is_caught_after_the_weights_have_changed() -> None:
    x, weight = square()
    stepped, kept = Circumstance(before="other weights"), dict[Any, Tensor]()

    def call(change: Callable[[Tensor], Tensor]) -> Tensor:
        return kept.setdefault(x.sum().item(), change(x) @ change(weight))

    before = weight.clone()
    assert not torch.equal(performed(call, [x, weight], stepped, weights=[weight]), x @ weight)
    assert torch.equal(weight, before)
    right = performed(lambda change: change(x) @ change(weight), [x, weight], stepped, weights=[weight])
    torch.testing.assert_close(right, x @ weight)


def test_a_result_that_is_kept_inside_is_caught_when_it_is_written_over() -> None:
    kept: list[Tensor] = []

    def hands_out_its_own(x: Tensor) -> Tensor:
        if not kept:
            kept.append(x * 2)
        return kept[0]

    x = torch.randn(3)
    assert bool(run(hands_out_its_own, Circumstance(before="results"), x).isnan().all())
    torch.testing.assert_close(
        run(lambda x: x.view(3), Circumstance(before="results"), x), x
    )  # a view may be handed out


def test_a_buffer_that_is_used_again_changes_an_earlier_result() -> None:
    room = torch.zeros(3)
    with pytest.raises(EarlierResultChanged):
        run(lambda x: room.copy_(x * 2), Circumstance(before="apart"), torch.randn(3))
    run(lambda x: x.view(3), Circumstance(before="apart"), torch.randn(3))


def test_an_input_that_is_written_to_is_told_if_it_is_watched() -> None:
    with pytest.raises(InputWrittenTo):
        run(lambda x: x.mul_(2), Circumstance(watched=True), torch.ones(3))
    run(lambda x: x.mul_(2), Circumstance(grad="no_grad"), torch.ones(3))
    run(lambda x: x.clone().mul_(2), Circumstance(watched=True), torch.tensor([1.0, math.nan]))


def test_a_circumstance_travels_as_plain_values() -> None:
    one = Circumstance(grad="checkpoint", second_device=True, before="apart")
    assert one.to_dict() == {"grad": "checkpoint", "second_device": True, "before": "apart"}
    assert Circumstance.from_dict(one.to_dict() | {"unknown": 1}) == one
    assert present() == ORDINARY
    with under(one):
        assert present() == one
    assert present() == ORDINARY
