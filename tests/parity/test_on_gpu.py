"""The whole table on a GPU. Without one nothing of it is verified, and this says so.

One precision at a time: `pytest tests/parity/test_on_gpu.py -k bfloat16`. Kernels are compiled for many shapes and tiles.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autograder.parity.cases import DTYPES
from autograder.parity.report import ParityReport, compare_backends

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="not verified on a GPU"),
    pytest.mark.timeout(3600),
]
SOLUTION = Path(__file__).parents[2] / "solutions" / "gpu_kernels.py"


@pytest.fixture(scope="module", params=DTYPES)
def report(request: pytest.FixtureRequest) -> ParityReport:
    return compare_backends(SOLUTION if SOLUTION.exists() else None, (request.param,))


def test_every_backend_that_can_run_is_within_its_allowance(report: ParityReport) -> None:
    wrong = {
        (line.backend, line.precision): (line.wrong, line.complaints[:3], line.worst)
        for line in report.lines
        if not line.passed
    }
    assert not wrong
    assert report.verified_on_gpu


def test_the_fused_kernels_are_there_and_all_they_yield_is_compared(report: ParityReport) -> None:
    ran = {line.backend: {one.quantity for one in line.findings} for line in report.lines}
    if report.lines[0].precision in ("float16", "bfloat16"):
        every = {"output", "log_sum_exp", "d_query", "d_key", "d_value"}
        wanted = ["SDPA FLASH_ATTENTION", "FlexAttention compiled"] + [SOLUTION.name] * SOLUTION.exists()
        assert {name: ran.get(name) for name in wanted} == dict.fromkeys(wanted, every)
