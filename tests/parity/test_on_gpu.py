"""The whole table on a GPU. Without one nothing of it is verified, and this says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autograder.parity.report import ParityReport, compare_backends

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="not verified on a GPU"),
    pytest.mark.timeout(1800),  # kernels are compiled for many shapes
]
SOLUTION = Path(__file__).parents[2] / "solutions" / "gpu_kernels.py"


@pytest.fixture(scope="module")
def report() -> ParityReport:
    return compare_backends(SOLUTION if SOLUTION.exists() else None)


def test_every_backend_that_can_run_is_within_its_allowance(report: ParityReport) -> None:
    wrong = {
        (line.backend, line.precision): (line.wrong, line.complaints[:3], line.worst)
        for line in report.lines
        if not line.passed
    }
    assert not wrong
    assert report.verified_on_gpu


def test_the_fused_kernels_are_there(report: ParityReport) -> None:
    ran = {(line.backend, line.precision) for line in report.lines}
    for precision in ("float16", "bfloat16"):
        assert {("SDPA FLASH_ATTENTION", precision), ("FlexAttention compiled", precision)} <= ran
    if SOLUTION.exists():
        assert (SOLUTION.name, "bfloat16") in ran


def test_gradients_and_log_sum_exps_were_compared(report: ParityReport) -> None:
    for line in report.lines:
        if line.backend == "SDPA FLASH_ATTENTION":
            found = {one.quantity for one in line.findings}
            assert found == {"output", "log_sum_exp", "d_query", "d_key", "d_value"}
