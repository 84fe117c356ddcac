"""Kernels from a file run in a process of their own: a crash there is a line of the report, not its end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from autograder.kernels import H200, Built, Launch
from autograder.parity import report as report_module
from autograder.parity.cases import Inputs
from autograder.parity.kernels import KernelFile, load_kernels, run_apart
from autograder.parity.report import Line, build, compare_backends, judge
from autograder.parity.tour import TOUR

SOLUTION = Path(__file__).parents[2] / "solutions" / "gpu_kernels.py"
RIGHT = """\
import os, sys, time
import torch


def flash_forward(query, key, value, is_causal=False):
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1).float(), value.repeat_interleave(group, 1)
    scores = query.float() @ key.mT / query.shape[-1] ** 0.5
    if is_causal:
        scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
    output = scores.softmax(-1).to(value.dtype).float() @ value.float()
    return output.to(query.dtype), scores.logsumexp(-1)


def flash_attention(query, key, value, is_causal=False):
    return flash_forward(query, key, value, is_causal)[0]
"""


@pytest.fixture
def kernels(tmp_path: Path):
    """Writes a file of kernels: the right ones, and what comes after them."""

    def write(more: str = "", source: str = RIGHT) -> Path:
        path = tmp_path / "my_kernels.py"
        path.write_text(source + textwrap.dedent(more), encoding="utf-8")
        return path

    return write


def line_of(path: Path, *places: int, deadline: float = 60.0) -> Line:
    line = Line(path.name, "float32")
    for place, run in run_apart(path, "float32", "cpu", places, deadline).items():
        judge(line, TOUR[place], run)
    return line


def test_right_kernels_pass(kernels) -> None:
    line = line_of(kernels(), 0, 1, 6)
    assert line.passed, (line.wrong, line.complaints)
    assert line.cases == 3
    assert len(line.findings) == 3 * 5


def test_wrong_kernels_do_not(kernels) -> None:
    path = kernels("""
        def flash_attention(query, key, value, is_causal=False):
            return flash_forward(query, key, value, False)[0]
        """)
    line = line_of(path, 0, 1)
    assert set(line.wrong) == {"output", "d_query", "d_key", "d_value"}
    assert all("causal" in one.case for one in line.findings if not one.comparison.close)


CRASHES = {
    "os.kill(os.getpid(), 11)": "SIGSEGV",
    "os._exit(3)": "exit code 3",
    "raise RuntimeError('out of shared memory')": "RuntimeError: out of shared memory",
    "time.sleep(600)": "no result within 6 s",
}


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_is_a_complaint_and_the_other_cases_run(kernels, crash: str) -> None:
    path = kernels(f"""
        right = flash_forward

        def flash_forward(query, key, value, is_causal=False):
            if query.shape[-1] == 40:
                {crash}
            return right(query, key, value, is_causal)
        """)
    line = line_of(path, 0, 1, 6, deadline=6.0 if "sleep" in crash else 60.0)
    assert line.cases == 3
    assert len(line.findings) == 2 * 5
    assert [said for said in line.complaints if CRASHES[crash] in said and str(TOUR[1]) in said]
    assert len(line.complaints) == 1
    assert not line.passed


UNLOADABLE = {
    "import no_such_module_at_all": "No module named 'no_such_module_at_all'",
    "answer = 42": "defines neither flash_attention nor flash_forward",
}


@pytest.mark.parametrize("source", UNLOADABLE)
def test_a_file_that_cannot_be_loaded_is_told_once_for_each_case(kernels, source: str) -> None:
    line = line_of(kernels(source=source), 0, 1)
    assert line.cases == 2
    assert all(UNLOADABLE[source] in said for said in line.complaints)
    assert not line.passed


def test_what_it_prints_and_leaves_lying_about_harms_nothing(kernels) -> None:
    path = kernels("""
        print('{"passed": true}')
        sys.stderr.write("noise")
        """)
    assert line_of(path, 1).passed


def test_results_that_are_no_results_are_a_crash(kernels) -> None:
    path = kernels("""
        from pathlib import Path

        def flash_attention(query, key, value, is_causal=False):
            folder = Path(sys.argv[4])
            (folder / "1.safetensors").write_text("forged")
            (folder / "1.json").write_text("{}")
            os._exit(0)
        """)
    line = line_of(path, 1)
    assert not line.passed
    assert "no readable results" in line.complaints[0]


def inputs(precision: str, place: int = 0) -> Inputs:
    return TOUR[place].inputs(precision)


def test_what_cannot_be_run_is_refused_with_the_reason(kernels) -> None:
    backend = KernelFile(kernels())
    assert backend.why_not(inputs("float32"), "float32") is None
    assert "whole numbers" in str(backend.why_not(inputs("bfloat16"), "bfloat16"))
    assert "CPU" in str(backend.why_not(inputs("float32"), "tf32"))
    assert "mask" in str(backend.why_not(inputs("float32", 7), "float32"))


def test_kernels_are_in_the_table_beside_the_backends(kernels) -> None:
    path = kernels()
    report = compare_backends(path, ("float16", "bfloat16"), lambda name: name == path.name)
    assert [(line.backend, line.precision, line.cases) for line in report.lines] == [
        (path.name, "float16", len(TOUR) - 1)
    ]
    assert report.passed, report.lines[0].complaints
    assert [skip.reason for skip in report.skipped if "bfloat16" in skip.precisions]


def test_loading_in_this_process_sets_triton_up_first(kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setitem(sys.modules, "my_kernels", None)  # type: ignore[arg-type]
    backend = load_kernels(kernels("assert 'TRITON_INTERPRET' in os.environ"))
    assert os.environ["TRITON_INTERPRET"] == ("0" if torch.cuda.is_available() else "1")
    case = inputs("float32", 1)
    result = backend.run(*case.tensors, case.is_causal)
    assert result.log_sum_exp is not None
    assert result.output.shape == case.query.shape


COPIED = """\
import torch
import triton
import triton.language as tl


@triton.jit
def copy_kernel(x, y, count, N: tl.constexpr):
    place = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(y + place, tl.load(x + place, mask=place < count), mask=place < count)


def flash_forward(query, key, value, is_causal=False):
    group = query.shape[1] // key.shape[1]
    keys, values = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ keys.mT / query.shape[-1] ** 0.5
    if is_causal:
        scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
    output = (scores.softmax(-1) @ values).contiguous()
    copy = torch.empty_like(output)
    copy_kernel[(triton.cdiv(output.numel(), 64),)](output, copy, output.numel(), N=64)
    return copy, scores.logsumexp(-1)
"""


def test_triton_kernels_are_interpreted_and_built_for_a_gpu_that_is_not_here(kernels) -> None:
    pytest.importorskip("triton")
    path = kernels(source=COPIED)
    report = compare_backends(path, ("float32",), lambda name: name == path.name)
    (line,) = report.lines
    if not torch.cuda.is_available():
        assert {name for name, _ in line.built} == {"copy_kernel"}
        assert all(built.registers > 0 and not built.error for _, built in line.built)
        assert line.to_dict()["built_for"] == H200.name
    assert line.passed, (line.wrong, line.complaints)
    assert {one.quantity for one in line.findings} == {"output", "log_sum_exp"}
    assert any(skip.what == "gradients" and "none" in skip.reason for skip in report.skipped)


@pytest.mark.parametrize(
    ("built", "complaint"),
    [
        (
            Built(shared=300_000, registers=40),
            "needs 300000 bytes of shared memory; sm_90 (H100, H200) has 232448",
        ),
        (Built(error="CompilationError: K must be at least 16"), "cannot be built for sm_90"),
        (subprocess.TimeoutExpired("build", 60), "not built for sm_90 (H100, H200): TimeoutExpired"),
    ],
)
def test_a_kernel_that_does_not_fit_is_a_complaint(
    built: Built | Exception, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(launches: Sequence[Launch]) -> list[Built]:
        if isinstance(built, Exception):
            raise built
        return [built]

    monkeypatch.setattr(report_module, "cross_compile", compiled)
    line = Line("kernels", "float16")
    build(line, [Launch("forward_kernel")])
    assert complaint in line.complaints[0]
    assert not line.passed


@pytest.mark.skipif(not SOLUTION.exists(), reason="the reference kernels are not in this checkout")
def test_the_reference_kernels_are_right_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    long = next(place for place, stop in enumerate(TOUR) if stop.shape.S_q == 110)
    line = line_of(SOLUTION, 0, 6, long, len(TOUR) - 1)
    assert line.passed, (line.wrong, line.complaints)
    assert len(line.findings) == 4 * 5
    assert (line.largest or 1.0) < 0.5
