"""The interpreter's search for overflow is off while checks run, and only then."""

from __future__ import annotations

import pytest
import torch

interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton exists for Linux only")

from autograder import check  # noqa: E402
from autograder.kernels import without_overflow_checks  # noqa: E402

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here")


def searches() -> bool:
    return bool(interpreter.interpreter_builder.options.sanitize_overflow)


def test_it_is_off_within_the_block_and_as_before_after_it() -> None:
    with without_overflow_checks():
        assert not searches()
    assert searches()


def leave_by_an_error() -> None:
    with without_overflow_checks():
        raise KeyError


def test_it_is_as_before_after_an_error() -> None:
    with pytest.raises(KeyError):
        leave_by_an_error()
    assert searches()


def test_checks_run_without_it() -> None:
    def softmax_rows(x: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"searches: {searches()}")

    assert "searches: False" in str(check("softmax_rows", softmax_rows, seed=1))
