"""Kernels in a worker: interpreted there, built for a GPU in another jail, and a crash is one exercise's own."""

from __future__ import annotations

import inspect
import os
from functools import partial
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from autograder.engine.dialogue import Stopped, Worker
from autograder.engine.judge import compile_there
from autograder.engine.nursery import Limit, Nursery
from autograder.engine.proxies import resolve
from autograder.kernels import cross_compile, cross_compiling, known_builds
from autograder.observation import observe
from tests.kernels import small_kernels


@pytest.fixture
def worker(nursery: Nursery) -> Any:
    made = nursery.worker(Limit())
    ran = made.ask("run", source=inspect.getsource(small_kernels))
    assert ran["error"] is None, ran
    yield made
    made.close()


def there(worker: Worker, name: str) -> Any:
    return resolve(worker, name)


def test_a_kernel_runs_there_as_it_does_here(worker: Worker) -> None:
    x = torch.randn(4, 100)
    torch.testing.assert_close(there(worker, "softmax_of_twice")(x), torch.softmax(2 * x, -1))


def test_launches_are_seen_there_as_here(worker: Worker) -> None:
    for name, x in (("softmax_of_twice", torch.randn(4, 100)), ("uncovered", torch.randn(4, 100)),
                    ("twice", torch.randn(4, 100, requires_grad=True))):  # fmt: skip
        seen = there(worker, name).observe([x], {})
        wanted = observe(lambda given, name=name: getattr(small_kernels, name)(given["a0"]), {"a0": x})
        assert (seen.launches, seen.unwritten) == (wanted.launches, wanted.unwritten)
        assert seen.launches


def test_a_kernel_is_built_in_a_jail_of_its_own(worker: Worker) -> None:
    launches = there(worker, "softmax_of_twice").observe([torch.randn(4, 100)], {}).launches
    known_builds().clear()
    with cross_compiling(partial(compile_there, worker)):
        (built,) = cross_compile(launches)
    assert built.error == ""
    assert built.registers > 0


def test_a_kernel_sees_nothing_of_the_grader_while_it_is_built(worker: Worker) -> None:
    looks = f"import os; print(os.path.exists({__file__!r}), os.getuid(), os.listdir('.'))"
    found = compile_there(worker, looks, "")
    assert found.startswith("False ")
    assert found.endswith(" []\n")
    assert int(found.split()[1]) != os.getuid() or os.getuid() != 0


def test_a_compiler_that_hangs_or_dies_is_no_answer(nursery: Nursery) -> None:
    hurried = nursery.worker(Limit(cell=0.5))
    assert compile_there(hurried, "while True: pass", "") == ""
    assert compile_there(hurried, "import os, signal; os.kill(os.getppid(), signal.SIGKILL)", "") == ""
    hurried.close()


def test_a_read_far_outside_ends_the_worker_and_is_told(worker: Worker) -> None:
    with pytest.raises(Stopped, match="segmentation fault") as stopped:
        there(worker, "reads_far_outside")(torch.randn(4, 100))
    assert worker.crashed
    assert stopped.value.mistake == "reads or writes outside its tensors"
