"""Every lesson runs from top to bottom with its solutions in place, each in a process of its own, on one thread."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from autograder.exercises import ASSIGNMENTS
from autograder.weave import find_course
from autograder.weave.lesson import read_lesson

ROOT = Path(__file__).parents[2]
ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1", "MPLBACKEND": "agg"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh process, with less time than a test has."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | ALONE, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.parametrize("stem", ASSIGNMENTS)
def test_a_lesson_runs_from_top_to_bottom(stem: str) -> None:
    if stem == "gpu_kernels" and find_spec("triton") is None:
        pytest.skip("Triton exists for Linux only")
    ended = python("-m", "tests.lessons.run", stem)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]


@pytest.mark.parametrize("stem", ASSIGNMENTS)
def test_no_cell_of_a_lesson_is_longer_than_15_lines(stem: str) -> None:
    cells = read_lesson(find_course().lesson(stem))
    assert not [one.source for one in cells if one.kind == "code" and one.source.count("\n") >= 15]


@pytest.mark.parametrize("stem", ASSIGNMENTS)
def test_a_lesson_computes_on_one_thread(stem: str) -> None:
    """With one for each core, a lesson beside another busy process takes many times as long."""
    first = [cell.source for cell in read_lesson(find_course().lesson(stem)) if cell.kind == "code"][:2]
    assert any(line.startswith("torch.set_num_threads(1)") for line in "\n".join(first).split("\n"))


SLIDER = "import ipywidgets\nipywidgets.interact(lambda x: 1 / (x - 3), x=(0, 6))"


@pytest.mark.parametrize("cell", ["1 / 0", "f(", SLIDER])
def test_a_cell_that_raises_is_found_and_shown_also_where_a_slider_hides_it(cell: str) -> None:
    code = "import sys; from tests.lessons.run import run; sys.exit(run(sys.argv[1:]))"
    ended = python("-c", code, "x = 1", cell, "x")
    assert ended.returncode == 1
    assert ended.stderr.strip().endswith(cell)
