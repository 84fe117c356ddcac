"""The derived tolerance lets right computations through, in every precision, and no planted bug."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from autograder.case import Draw
from autograder.oracle import Quantity, compare, rounder, within_rounding
from autograder.oracle.attention import attention as formula
from autograder.oracle.quantity import Dithered
from autograder.oracle.tolerance import unit_roundoff

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SCALES = (0.1, 1.0, 4.0)


def inputs(seed: int, dtype: torch.dtype, size: float) -> tuple[Tensor, Tensor, Tensor]:
    draw = Draw(seed)
    return (
        draw.normal(2, 17, 8, dtype=dtype) * size,
        draw.normal(2, 23, 8, dtype=dtype),
        draw.normal(2, 23, 6, dtype=dtype),
    )


def ratio(output: Tensor, q: Tensor, k: Tensor, v: Tensor) -> float:
    exact = [x.double() for x in (q, k, v)]
    truth = formula(*exact)["output"]
    dithers = (None, 1, 2, 3, 4) if q.dtype in (torch.float16, torch.bfloat16) else (None,)
    baselines = [formula(*exact, round=rounder(q.dtype, dither))["output"].value for dither in dithers]
    return compare(output, truth, baselines, q.dtype).ratio


def by_matmul(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q / math.sqrt(q.shape[-1])) @ k.mT
    numerator = (scores - scores.amax(-1, keepdim=True)).exp()
    return (numerator / numerator.sum(-1, keepdim=True)) @ v


def by_broadcasting(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1) * q.shape[-1] ** -0.5
    return (scores.softmax(-1).unsqueeze(-1) * v.unsqueeze(-3)).sum(-2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SCALES)
@pytest.mark.parametrize("writing", [by_matmul, by_hand, by_broadcasting])
def test_right_computations_stay_within_the_allowance(writing, dtype: torch.dtype, size: float) -> None:
    worst = max(ratio(writing(*inputs(seed, dtype, size)), *inputs(seed, dtype, size)) for seed in range(12))
    assert worst <= 1.0, worst


BUGS = {
    "sqrt of another width": lambda q, k, v: torch.softmax(q @ k.mT / math.sqrt(v.shape[-1]), -1) @ v,
    "last key dropped": lambda q, k, v: by_matmul(q, k[..., :-1, :], v[..., :-1, :]),
    "a thousandth too large": lambda q, k, v: by_matmul(q, k, v) * 1.001,
    "one element off by a thousandth of its row": lambda q, k, v: by_matmul(q, k, v).index_put(
        (torch.tensor(0), torch.tensor(0), torch.tensor(0)), v.abs().amax() * 1e-3, accumulate=True
    ),
    "computed in half precision": lambda q, k, v: by_matmul(q.half(), k.half(), v.half()).to(q.dtype),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_exceed_the_allowance_in_float32(bug: str) -> None:
    for seed in range(12):
        drawn = inputs(seed, torch.float32, 1.0)
        assert ratio(BUGS[bug](*drawn), *drawn) > 3.0


def test_nan_is_never_close() -> None:
    drawn = inputs(0, torch.float32, 1.0)
    output = by_matmul(*drawn)
    output[0, 0, 0] = math.nan
    assert ratio(output, *drawn) == math.inf


def test_what_must_be_zero_must_be_exactly_zero() -> None:
    zero = torch.zeros(2, 3, dtype=torch.float64)
    truth = Quantity(zero, zero)
    assert compare(zero.float(), truth, [zero], torch.float32).close
    assert not compare((zero + 1e-30).float(), truth, [zero], torch.float32).close


def test_an_empty_result_is_close() -> None:
    empty = torch.zeros(0, 3, dtype=torch.float64)
    assert compare(empty, Quantity(empty, empty), [empty], torch.float32).close


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_what_is_within_rounding_is_close_by_every_measure(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    within = 0
    for number in range(400):
        terms = torch.randn(4, 5, 6, generator=generator, dtype=torch.float64) * 10.0 ** (number % 7 - 3)
        result = Quantity(terms.sum(-1), terms.abs().sum(-1), growth=float(number % 3))
        steps = 2.0 ** (number % 13 - 3) * torch.randn(4, 5, generator=generator, dtype=torch.float64)
        unit = min(unit_roundoff(dtype), unit_roundoff(torch.float32))
        actual = result.value + steps * unit * result.magnitude
        if number % 5 == 0:
            actual[0, 0] = torch.tensor([torch.nan, torch.inf])[number % 2]
        if within_rounding(actual, result, dtype):
            within += 1
            assert compare(actual, result, (), dtype).close
    assert 20 < within < 380


def test_a_comparison_says_which_measure_is_worst_and_by_how_much() -> None:
    value = torch.ones(4, 6, dtype=torch.float64)
    actual = value.clone()
    actual[2, 3] += 0.1
    found = compare(actual, Quantity(value, value), (), torch.float32)
    assert (found.measure, found.where) == ("element", (2, 3))
    assert math.isclose(found.ratio, found.error / found.allowance)
    assert math.isclose(found.error, 0.1)


def test_the_unit_roundoff_can_be_that_of_another_precision() -> None:
    value = torch.ones(4, 6, dtype=torch.float64)
    shifted = Quantity(value, value), (), torch.float32
    assert not compare(value * (1 + 2.0**-12), *shifted).close
    assert compare(value * (1 + 2.0**-12), *shifted, roundoff=2.0**-11).close


@pytest.mark.parametrize("wanted", [math.inf, -math.inf])
def test_what_is_infinite_is_met_by_nothing_else(wanted: float) -> None:
    result = Quantity(torch.tensor([1.0, wanted]).double(), torch.tensor([1.0, math.inf]).double())
    for got in (wanted, -wanted, 0.0, 1e30, math.nan):
        actual = torch.tensor([1.0, got])
        close = (
            within_rounding(actual, result, torch.float32) or compare(actual, result, [], torch.float32).close
        )
        assert close == (got == wanted)


def test_what_cancels_is_moved_by_dithering_far_more_than_what_does_not() -> None:
    share = 2.0**-40
    a, b = torch.tensor([3.0, 3.0]).double(), torch.tensor([1e6, 0.0]).double()
    with Dithered(torch.Generator().manual_seed(1), share):
        moved = ((a + b) - b - a).abs() / a
    assert float(moved[0]) > 1e3 * share
    assert float(moved[1]) < 20 * share


def test_dithering_reaches_the_backward_pass() -> None:
    x = torch.linspace(0.1, 1.0, 9, dtype=torch.float64, requires_grad=True)
    y = x.softmax(0) @ torch.arange(9.0).double()
    with Dithered(torch.Generator().manual_seed(1), 2.0**-30):
        (moved,) = torch.autograd.grad(y, x, retain_graph=True)
    (plain,) = torch.autograd.grad(y, x)
    assert 0 < float((moved - plain).abs().max()) < 1e-6
