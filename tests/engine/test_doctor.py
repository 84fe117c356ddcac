"""`attn doctor` says what this machine offers, and what is missing; its exit code says whether a class can be graded."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import autograder.cli
from autograder.cli import main
from autograder.engine.cluster import ClusterError, run_on_cluster
from autograder.engine.extras import CLUSTER
from autograder.engine.isolation import Isolation
from autograder.engine.nursery import Limit
from autograder.engine.pool import Task

Attn = Callable[..., tuple[object, str]]


@pytest.fixture
def attn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Attn:
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        said = capsys.readouterr()
        assert said.err == ""
        return end.value.code, said.out

    return run


def machine(monkeypatch: pytest.MonkeyPatch, found: Isolation) -> None:
    monkeypatch.setattr("autograder.engine.isolation.isolation", lambda: found)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in names else find(name, *rest)
    )


def line(out: str, name: str) -> str:
    return next(each for each in out.splitlines() if name in each)


def test_a_machine_with_a_jail_can_grade(attn: Attn, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, Isolation("", landlock=4, seccomp=True, root=False))
    code, out = attn("doctor")
    assert code == 0
    assert line(out, "jail").startswith("ok")
    assert "user, mount, pid, network and ipc namespaces" in line(out, "jail")
    assert "version 4" in line(out, "Landlock")
    assert line(out, "seccomp").startswith("ok")
    for name in ("Python", "PyTorch", "nbgrader", "JupyterLab", "GPU", "Triton", "dask.distributed"):
        assert line(out, name)


def test_a_root_grader_is_told_that_workers_have_uids_of_their_own(
    attn: Attn, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Isolation("", landlock=4, seccomp=True, root=True))
    assert "own uid" in line(attn("doctor")[1], "jail")


def test_a_machine_without_a_jail_cannot_grade_and_is_told_the_way_out(
    attn: Attn, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Isolation("unshare: Operation not permitted"))
    code, out = attn("doctor")
    assert code == 1
    assert line(out, "jail").startswith("missing")
    assert "unshare: Operation not permitted; grading needs --no-sandbox here" in out
    assert "Landlock" not in out


def test_an_old_kernel_is_no_obstacle(attn: Attn, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, Isolation("", landlock=0, seccomp=False))
    code, out = attn("doctor")
    assert code == 0
    assert line(out, "Landlock").startswith("-")
    assert "the kernel has none" in line(out, "Landlock")


@pytest.mark.parametrize(("package", "name"), [("torch", "PyTorch"), ("nbgrader", "nbgrader")])
def test_what_grading_cannot_do_without_is_missing_and_how_to_get_it_is_said(
    attn: Attn, monkeypatch: pytest.MonkeyPatch, package: str, name: str
) -> None:
    machine(monkeypatch, Isolation(""))
    without(monkeypatch, package)
    code, out = attn("doctor")
    assert code == 1
    assert line(out, name).startswith("missing")
    assert f"pip install '{package}" in line(out, name)


def test_what_grading_can_do_without_is_no_obstacle(attn: Attn, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, Isolation(""))
    without(monkeypatch, "triton", "distributed")
    monkeypatch.setattr("shutil.which", lambda name: None)
    code, out = attn("doctor")
    assert code == 0
    assert "none: the browser tests are skipped" in out
    assert f"attn grade --scheduler needs it; install it in the clone: {CLUSTER}" in out
    assert "not installed" in line(out, "Triton")


def test_one_remedy_for_a_missing_cluster_is_told_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError) as refused:
        next(run_on_cluster([Task(0, "", Limit())], "tcp://127.0.0.1:1"))
    assert CLUSTER in str(refused.value)
    assert "[cluster]" in CLUSTER


def test_brackets_in_what_the_command_line_prints_are_no_markup() -> None:
    folder = Path(autograder.cli.__file__).parent
    made = [
        (path.name, call)
        for path in folder.rglob("*.py")
        for call in re.findall(r"\b(?:Console|TextColumn)\([^)]*\)", path.read_text(encoding="utf-8"))
    ]
    assert len(made) >= 6
    assert [each for each in made if "markup=False" not in each[1]] == []


def test_a_gpu_is_named_or_its_absence_said(attn: Attn, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, Isolation(""))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "H200")
    assert "H200" in line(attn("doctor")[1], "GPU")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "nothing is verified on a GPU" in line(attn("doctor")[1], "GPU")
