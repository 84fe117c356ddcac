"""`attn parity`: a table, one line for what was not run, and no pass for a GPU that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from autograder.cli import main

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU does")


@pytest.fixture
def attn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """`attn parity`, run in this process -> exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["parity", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


@without_gpu
def test_a_required_gpu_that_is_missing_is_refused_at_once(attn, tmp_path: Path) -> None:
    code, out, err = attn("--require-gpu", "--json", tmp_path / "report.json")
    assert code == 2
    assert "--require-gpu" in err
    assert "no GPU" in err
    assert out == ""
    assert not (tmp_path / "report.json").exists()


@without_gpu
def test_without_a_gpu_the_report_ends_with_what_it_is_not(attn, tmp_path: Path) -> None:
    arguments = ("--backend", "math", "--dtype", "float32", "--dtype", "tf32")
    code, out, _ = attn(*arguments, "--json", tmp_path / "report.json")
    assert code == 0
    assert out.strip().splitlines()[-1] == "not verified on a GPU"
    assert "SDPA MATH" in out
    assert "within its allowance" in out
    assert "SDPA MATH, tf32: everything not run: tf32 is" in out
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["device"] == "cpu"
    assert figures["verified_on_gpu"] is False
    assert figures["passed"] is True
    assert figures["lines"][0]["quantities"]["d_key"]["ratio"] < 1


@without_gpu
def test_nothing_run_is_no_success(attn) -> None:
    code, out, _ = attn("--backend", "cudnn")
    assert code == 1
    assert "nothing was run" in out
    assert "torch has no such kernel for a CPU" in out


def test_wrong_kernels_are_named_and_the_exit_code_tells(attn, tmp_path: Path) -> None:
    path = tmp_path / "zeros.py"
    path.write_text("def flash_attention(query, key, value, is_causal=False):\n    return query * 0.0\n")
    code, out, _ = attn("--kernels", path, "--backend", "zeros", "--dtype", "float16")
    assert code == 1
    assert "beyond its allowance: output, d_query" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--dtype", "float8"), "choose among float32, tf32, float16, bfloat16"),
        (("--kernels", "nowhere.py"), "there is no such file"),
        (("--backend", "xformers"), "no backend has that in its name"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(attn, arguments: tuple[str, ...], complaint: str) -> None:
    code, out, err = attn(*arguments)
    assert (code, out) == (2, "")
    assert complaint in err
    assert len(err.strip().splitlines()) == 1


def test_the_experiment_prints_a_line_for_each_rule(attn, tmp_path: Path) -> None:
    code, out, _ = attn("--experiment", "--quick", "--json", tmp_path / "experiment.json")
    assert code == 0
    assert "derived" in out
    figures = json.loads((tmp_path / "experiment.json").read_text())
    assert figures["rules"]["derived"]["right_accepted"] == figures["right_runs"]
