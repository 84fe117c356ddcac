"""What the interpreter leaves out while checks run, and only then."""

from __future__ import annotations

import pytest
import torch

interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton exists for Linux only")

from autograder import check  # noqa: E402
from autograder.kernels import quick_interpreter  # noqa: E402
from tests.kernels.small_kernels import softmax_of_twice  # noqa: E402

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here")


def searches() -> bool:
    return bool(interpreter.interpreter_builder.options.sanitize_overflow)


def test_it_is_off_within_the_block_and_as_before_after_it() -> None:
    with quick_interpreter():
        assert not searches()
    assert searches()


def leave_by_an_error() -> None:
    with quick_interpreter():
        raise KeyError


def test_it_is_as_before_after_an_error() -> None:
    with pytest.raises(KeyError):
        leave_by_an_error()
    assert searches()


def test_checks_run_without_it() -> None:
    def softmax_rows(x: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"searches: {searches()}")

    assert "searches: False" in str(check("softmax_rows", softmax_rows, seed=1))


def test_a_device_function_does_not_replace_the_language_again_and_all_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times: list[str] = []
    replace = interpreter._patch_builtin

    def _patch_builtin(part, *rest):
        times.append(part.__name__)
        return replace(part, *rest)

    monkeypatch.setattr(interpreter, "_patch_builtin", _patch_builtin)
    x = torch.randn(3, 16)
    softmax_of_twice(x)
    usual, place = len(times), len(times)
    with quick_interpreter():
        found = softmax_of_twice(x)
    assert 0 < len(times) - place < usual
    torch.testing.assert_close(found, torch.softmax(2 * x, -1))
    assert interpreter._patch_builtin is _patch_builtin
