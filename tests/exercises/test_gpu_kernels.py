"""The grader of `gpu_kernels` on right writings and on mutants: the questions, softmax and flash attention's forward."""

import pytest

pytest.importorskip("triton", reason="Triton exists for Linux only")

from autograder.exercises import in_assignment
from tests.exercises.promises import *  # noqa: F403

STEM = "gpu_kernels"
ELSEWHERE = {"flash_backward", "flash_attention", "decode_attention", "paged_attention"}
EXERCISES = {one.name for one in in_assignment(STEM)} - ELSEWHERE
