"""A backend that computes or behaves wrongly is a failing line that says so; what cannot be run is named, with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from autograder.parity.backends import Result, torch_backends
from autograder.parity.cases import DTYPES, Inputs
from autograder.parity.comparison import QUANTITIES
from autograder.parity.conduct import Run, run_watched
from autograder.parity.report import Line, compare_backends, judge
from autograder.parity.tour import LARGE, TOUR, Stop

GROUPED, PLAIN, HUGE, DEAD = TOUR[0], TOUR[1], TOUR[6], TOUR[7]
Attend = Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor]]


def by_hand(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Right: what the planted ones change."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query.float() @ key.float().mT / query.shape[-1] ** 0.5
    if is_causal:
        scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
    output = scores.softmax(-1).to(value.dtype).float() @ value.float()
    return output.to(query.dtype), scores.logsumexp(-1)


class Planted:
    """A backend made of one function."""

    name, baseline, slow = "planted", "fused", False

    def __init__(self, attend: Attend):
        self.attend = attend

    def why_not(self, inputs: Inputs, precision: str) -> str | None:
        return None

    def why_no_gradients(self, inputs: Inputs) -> str | None:
        return None

    def run(self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Result:
        return Result(*self.attend(query, key, value, is_causal))

    def run_masked(self, inputs: Inputs) -> Result:
        return self.run(*inputs.tensors, inputs.is_causal)


def line_of(attend: Attend, *stops: Stop, precision: str = "float32") -> Line:
    line = Line("planted", precision)
    for stop in stops:
        judge(line, stop, run_watched(Planted(attend), stop.inputs(precision), precision))
    return line


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_right_backend_passes_with_all_five_quantities(precision: str) -> None:
    line = line_of(by_hand, GROUPED, PLAIN, HUGE, TOUR[-1], precision=precision)
    assert line.passed, (line.wrong, line.complaints)
    assert {one.quantity for one in line.findings} == set(QUANTITIES)
    assert line.cases == 4


def test_a_wrong_scale_is_beyond_every_allowance() -> None:
    line = line_of(lambda q, k, v, c: by_hand(q * 1.01, k, v, c), PLAIN, precision="float16")
    assert not line.passed
    assert "output" in line.wrong
    assert "log_sum_exp" in line.wrong
    assert line.worst is not None
    assert line.worst.comparison.ratio > 2


def test_a_log_sum_exp_of_another_base_is_the_only_thing_wrong() -> None:
    line = line_of(lambda q, k, v, c: (by_hand(q, k, v, c)[0], by_hand(q, k, v, c)[1] * 1.4427), PLAIN)
    assert line.wrong == ("log_sum_exp",)


def test_heads_in_the_wrong_order_show_where_heads_are_shared() -> None:
    def in_turn(q: Tensor, k: Tensor, v: Tensor, c: bool) -> tuple[Tensor, Tensor]:
        times = q.shape[1] // k.shape[1]
        return by_hand(q, k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1), c)

    assert line_of(in_turn, PLAIN).passed
    assert set(line_of(in_turn, GROUPED).wrong) == set(QUANTITIES)


def test_no_maximum_taken_off_shows_on_huge_scores() -> None:
    def without(q: Tensor, k: Tensor, v: Tensor, c: bool) -> tuple[Tensor, Tensor]:
        group = q.shape[1] // k.shape[1]
        keys, values = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        raised = (q @ keys.mT / q.shape[-1] ** 0.5).exp()
        raised = raised.tril() if c else raised
        return raised / raised.sum(-1, keepdim=True) @ values, raised.sum(-1).log()

    assert line_of(without, PLAIN).passed
    assert line_of(without, HUGE).worst.comparison.ratio == float("inf")  # type: ignore[union-attr]


def test_gradients_are_compared_too() -> None:
    def two_percent(q: Tensor, k: Tensor, v: Tensor, c: bool) -> tuple[Tensor, Tensor]:
        output, sums = by_hand(q, k, v, c)
        return output + 0.02 * (output - output.detach()), sums

    assert line_of(two_percent, PLAIN).wrong == ("d_query", "d_key", "d_value")


def writes_into_query(q: Tensor, k: Tensor, v: Tensor, c: bool) -> tuple[Tensor, Tensor]:
    output = by_hand(q, k, v, c)
    with torch.no_grad():
        q.data.mul_(1.5)
    return output


def leaves_a_row(q: Tensor, k: Tensor, v: Tensor, c: bool) -> tuple[Tensor, Tensor]:
    output, sums = by_hand(q, k, v, c)
    kept = torch.empty_like(sums)
    kept[..., :-1] = sums[..., :-1]
    # What was there before may happen to be right.
    return output, kept if bool(kept[..., -1].isnan().any()) else sums


def changes_its_mind() -> Attend:
    calls: list[int] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, c: bool) -> tuple[Tensor, Tensor]:
        calls.append(1)
        output, sums = by_hand(q, k, v, c)
        return output * (1 + 1e-7 * len(calls)), sums

    return attend


def raises(q: Tensor, k: Tensor, v: Tensor, c: bool) -> tuple[Tensor, Tensor]:
    raise RuntimeError("illegal memory access\nand more")


def widened(q: Tensor, k: Tensor, v: Tensor, c: bool) -> tuple[Tensor, Tensor]:
    output, sums = by_hand(q, k, v, c)
    return output.double(), sums


def turned(q: Tensor, k: Tensor, v: Tensor, c: bool) -> tuple[Tensor, Tensor]:
    output, sums = by_hand(q, k, v, c)
    return output, sums.mT


CONDUCT: dict[str, tuple[Attend, str]] = {
    "writes": (writes_into_query, "it writes into query"),
    "unwritten": (leaves_a_row, "log_sum_exp is not written everywhere"),
    "differs": (changes_its_mind(), "output differs on a second call"),
    "raises": (raises, "crashed: RuntimeError: illegal memory access ("),
    "dtype": (widened, "output is torch.float64, expected torch.float32"),
    "shape": (turned, "log_sum_exp has shape (2, 37, 3), expected (2, 3, 37)"),
    "unused": (lambda q, k, v, c: by_hand(q, k.detach(), v, c), "there is no d_key"),
    "detached": (lambda q, k, v, c: by_hand(q.detach(), k.detach(), v.detach(), c), "carries no gradient"),
}


@pytest.mark.parametrize("name", CONDUCT)
def test_misconduct_is_a_complaint(name: str) -> None:
    attend, complaint = CONDUCT[name]
    line = line_of(attend, PLAIN)
    assert not line.passed
    assert any(complaint in said for said in line.complaints), line.complaints


def test_reading_behind_the_end_shows_where_nan_lies_there() -> None:
    def tail(q: Tensor, k: Tensor, v: Tensor, c: bool) -> tuple[Tensor, Tensor]:
        # One value too many, with a weight of zero: 0 * nan is nan.
        B, H, S, D = v.shape
        longer = (
            v.as_strided((B, H, S + 1, D), v.stride())[:, :, S:] if v.stride(1) < v.stride(2) else v[:, :, :1]
        )
        group = q.shape[1] // v.shape[1]
        output, sums = by_hand(q, k, v, c)
        return output + 0.0 * longer.repeat_interleave(group, 1), sums

    strided = [stop for stop in TOUR if stop.strided][-1]
    assert line_of(tail, PLAIN).passed
    assert not line_of(tail, strided).passed


def test_strides_are_the_same_on_every_device() -> None:
    for stop in TOUR:
        here, there = stop.inputs("float16"), stop.inputs("float16", "meta")
        assert [x.stride() for x in here.tensors] == [x.stride() for x in there.tensors]
        assert here.key.is_contiguous() != stop.strided
    strided = next(stop for stop in TOUR if stop.strided).inputs("float32")
    assert not bool(strided.key.isnan().any())
    whole = torch.empty(0).set_(strided.key.untyped_storage())
    assert int((~whole.isnan()).sum()) == strided.key.numel() < whole.numel()


def test_a_matrix_of_scores_shows_as_the_largest_tensor() -> None:
    long = next(stop for stop in TOUR if stop.shape.S_q == 110)
    assert (line_of(by_hand, long).largest or 0.0) >= 1.0
    assert line_of(by_hand, PLAIN).largest is None  # its inputs are as large as its scores
    flash = next(one for one in torch_backends() if "FLASH" in one.name)
    line = Line(flash.name, "float32")
    judge(line, long, run_watched(flash, long.inputs("float32"), "float32"))
    assert 0.0 < (line.largest or 0.0) < 0.4


def test_a_line_without_any_result_has_not_passed() -> None:
    line = Line("planted", "float32")
    assert not line.passed
    judge(line, PLAIN, Run(crash="ended by SIGSEGV"))
    assert line.complaints == [f"crashed: ended by SIGSEGV ({PLAIN})"]
    assert line.to_dict()["worst"] is None


def test_the_tour_meets_everything_that_breaks_kernels() -> None:
    shapes = [stop.shape for stop in TOUR]
    assert {32, 64, 96, 128, 256} <= {shape.D for shape in shapes}
    assert any(shape.D & (shape.D - 1) for shape in shapes)
    assert any(shape.H_kv < shape.H_q for shape in shapes)
    assert any(shape.is_causal and shape.S_q > shape.S_k for shape in shapes)
    assert any(shape.is_causal and shape.S_q < shape.S_k for shape in shapes)
    assert any(shape.S_q == 1 for shape in shapes)
    assert any(shape.S_k == 1 for shape in shapes)
    assert any(shape.S_k > 500 for shape in shapes)
    assert {"dead rows", "huge", "heavy-tailed", "peaked", "cancelling"} <= {
        stop.distribution for stop in TOUR
    }
    assert sum(stop.strided for stop in TOUR) >= 2
    assert any(stop.core for stop in TOUR)
    assert len({str(stop) for stop in TOUR + LARGE}) == len(TOUR + LARGE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU does")
def test_every_backend_is_in_the_report_or_named_with_a_reason() -> None:
    report = compare_backends(precisions=("float32", "tf32"), wanted=lambda name: name.startswith("SDPA"))
    shown = {line.backend for line in report.lines} | {skip.backend for skip in report.skipped}
    assert shown == {one.name for one in torch_backends() if one.name.startswith("SDPA")}
    assert {(line.backend, line.passed) for line in report.lines} == {
        ("SDPA MATH", True),
        ("SDPA FLASH_ATTENTION", True),
    }
    assert all(line.cases == len(TOUR) for line in report.lines)
    reasons = {(skip.backend, skip.what): skip.reason for skip in report.skipped}
    assert "CPU" in reasons["SDPA CUDNN_ATTENTION", "everything"]
    assert not report.verified_on_gpu
    assert report.to_dict()["verified_on_gpu"] is False
    assert set(DTYPES) > {line.precision for line in report.lines}


@pytest.mark.skipif(torch.cuda.is_available(), reason="FlexAttention has gradients on a GPU")
def test_flex_attention_on_a_cpu_is_right_but_has_no_gradients() -> None:
    flex = next(one for one in torch_backends() if one.name == "FlexAttention eager")
    line = Line(flex.name, "float32")
    for stop in (GROUPED, HUGE, DEAD, next(stop for stop in TOUR if stop.shape.S_q == 110), TOUR[-1]):
        assert "no backward" in str(flex.why_no_gradients(stop.inputs("float32")))
        judge(line, stop, run_watched(flex, stop.inputs("float32"), "float32"), flex.baseline)
    assert line.passed, (line.wrong, line.complaints)
    assert {one.quantity for one in line.findings} == {"output", "log_sum_exp"}
