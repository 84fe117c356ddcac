"""The grader of `gpu_kernels` on right writings and on mutants: decoding."""

import pytest

pytest.importorskip("triton", reason="Triton exists for Linux only")

from tests.exercises.promises import (  # noqa: F401
    test_a_mistake_of_the_catalogue_is_rejected_and_named,
    test_a_mutant_is_rejected_and_named,
    test_a_right_writing_earns_full_marks,
    test_a_spoilt_reference_is_rejected,
    test_the_reference_solution_earns_full_marks,
)

STEM = "gpu_kernels"
EXERCISES = {"decode_attention", "paged_attention"}
