"""`attn bench kernels` on a CPU: what is measured, what is refused, and what its figures say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from autograder.cli.bench.kernels import run as command
from autograder.cli.bench.kernels.clock import seconds_of
from autograder.cli.bench.kernels.contenders import Contender, naive
from autograder.cli.bench.kernels.measure import Plan, measure
from autograder.cli.errors import UserError
from autograder.kernels.files import load
from autograder.weave import find_course

ROOT = Path(__file__).parents[2]


def chunked(query, key, value, is_causal):  # type: ignore[no-untyped-def]
    efficient = load(find_course().solution("efficient_attention"))
    return efficient.chunked_attention(query, key, value, 16, is_causal)[0]


def refusing(query, key, value, is_causal):  # type: ignore[no-untyped-def]
    raise RuntimeError("no kernel for this\nand more")


def test_each_case_has_seconds_and_the_counted_cost_of_every_way() -> None:
    plan = Plan("cpu", torch.float32, (32, 64), (16,), backward=True)
    rows = list(measure(plan, [Contender("naive", naive), Contender("chunked", chunked)]))
    assert len(rows) == 2 * 2 * 2 * 2  # directions, causal or not, lengths, ways
    assert all(row.seconds and row.seconds > 0 for row in rows)
    full = {(row.S, row.name): row for row in rows if row.direction == "forward" and not row.is_causal}
    for S in (32, 64):
        assert full[S, "naive"].counted == full[S, "chunked"].counted == full[S, "naive"].flops
        assert full[S, "naive"].largest == 8 * S * S  # heads, queries, keys
    assert full[64, "chunked"].largest < full[64, "naive"].largest


def test_a_way_that_refuses_a_case_is_a_line_and_not_the_end() -> None:
    plan = Plan("cpu", torch.float32, (32,), (16,), backward=True)
    rows = list(measure(plan, [Contender("naive", naive), Contender("refusing", refusing)]))
    assert {row.why_not for row in rows if row.name == "refusing"} == {"RuntimeError: no kernel for this"}
    assert all(row.seconds for row in rows if row.name == "naive")


def test_the_quickest_of_several_rounds_counts() -> None:
    calls: list[str] = []
    seconds, failed = seconds_of({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, "cpu")
    assert seconds.keys() == {"a", "b"}
    assert not failed
    assert calls == ["a", "b"] * 4  # once before


def test_the_command_writes_what_it_measured_and_says_that_no_gpu_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(command, "SHORTEST_ON_CPU", 16)
    monkeypatch.setattr(
        command, "contenders", lambda *_: iter([Contender("naive", naive), Contender("chunked", chunked)])
    )
    written, picture = tmp_path / "k.json", tmp_path / "k.png"
    assert command.run_bench_kernels([32], [16], None, False, False, written, picture) == 0
    found = json.loads(written.read_text())
    assert found["verified_on_gpu"] is False
    assert {row["name"] for row in found["rows"]} == {"naive", "chunked"}
    assert found["decode"] == []
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Not verified on a GPU" in capsys.readouterr().out


def test_no_gpu_and_lengths_that_are_noise_are_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="has no GPU"):
        command.run_bench_kernels([], [64], None, False, True, None, None)
    with pytest.raises(UserError, match="length 512: on a CPU times below 1024 are noise"):
        command.run_bench_kernels([512], [64], None, False, False, None, None)
