"""What is seen of a kernel launch, and whether its kernel builds for a GPU that is not there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from autograder.kernels import Built, Launch, cross_compile, cross_compiling
from autograder.observation import Observation, observe
from tests.kernels import small_kernels


def watched(function: Callable[..., Any], *tensors: torch.Tensor) -> Observation:
    inputs = {f"x{n}": tensor for n, tensor in enumerate(tensors)}
    return observe(lambda given: function(*given.values()), inputs)


def test_a_launch_is_recorded_with_all_that_its_kernel_needs() -> None:
    (launch,) = watched(small_kernels.softmax_of_twice, torch.randn(4, 100)).launches
    assert (launch.kernel, launch.grid, launch.num_warps, launch.problem) == ("softmax_kernel", (4,), 8, "")
    assert launch.signature == {
        "source": "*fp32", "target": "*fp32", "width": "i32", "BLOCK": "constexpr", "DTYPE": "constexpr"
    }  # fmt: skip
    assert launch.constants == {"BLOCK": 128, "DTYPE": {"dtype": "fp32"}}
    assert "def scaled(" in launch.source
    assert "FACTOR = " in launch.source


def test_what_the_interpreter_does_inside_a_launch_is_not_the_callers_work() -> None:
    seen = watched(small_kernels.softmax_of_twice, torch.randn(4, 100))
    assert seen.largest == 400
    assert not seen.calls & {"copy_", "set_", "matmul"}


def test_a_backward_pass_is_watched_where_an_input_wants_a_gradient() -> None:
    x = torch.randn(4, 100)
    assert not watched(small_kernels.twice, x).launches
    assert [one.kernel for one in watched(small_kernels.twice, x.requires_grad_()).launches] == [
        "softmax_kernel"
    ]


def test_nothing_is_watched_after_an_observation() -> None:
    seen = watched(small_kernels.softmax_of_twice, torch.randn(4, 100))
    small_kernels.softmax_of_twice(torch.randn(4, 100))
    assert len(seen.launches) == 1


def test_results_that_nobody_wrote_are_counted() -> None:
    x = torch.randn(4, 100)
    assert watched(small_kernels.softmax_of_twice, x).unwritten == 0
    assert watched(small_kernels.uncovered, x).unwritten == 100
    assert watched(torch.empty_like, x).unwritten == 400
    assert watched(lambda x: x / 0 - x / 0, x).unwritten == 0  # its own nan, in memory that was never empty


def test_a_kernel_is_built_for_a_gpu_that_is_not_there() -> None:
    (built,) = cross_compile(watched(small_kernels.softmax_of_twice, torch.randn(4, 100)).launches)
    assert built.error == ""
    assert 8 <= built.registers <= 255
    assert 0 < built.shared <= 1024
    assert built.spilled == 0


def test_a_tile_takes_as_much_shared_memory_as_it_has_numbers() -> None:
    a = torch.randn(64, 64, dtype=torch.float16)
    (small,) = cross_compile(watched(small_kernels.product, a, a).launches)
    wide = torch.randn(256, 256, dtype=torch.float16)
    (large,) = cross_compile(watched(small_kernels.product, wide, wide).launches)
    assert small.shared >= 2 * 64 * 64 * 2
    assert large.shared >= 2 * 256 * 256 * 2
    assert large.spilled > 0 == small.spilled


def test_the_block_of_a_descriptor_is_part_of_its_type_and_builds() -> None:
    (launch,) = watched(small_kernels.copied_by_descriptors, torch.randn(10, 16).half()).launches
    assert (launch.problem, launch.signature["source"]) == ("", "tensordesc<fp16[4, 16]>")
    assert launch.signature["target"] == launch.signature["source"]
    assert "source" not in launch.aligned
    (built,) = cross_compile([launch])
    assert built.error == ""
    assert built.shared >= 4 * 16 * 2  # a block passes through shared memory


def test_descriptors_made_in_a_kernel_build() -> None:
    seen = watched(lambda x: small_kernels.copied_by_descriptors(x, how="made inside"), torch.randn(10, 16))
    (built,) = cross_compile(seen.launches)
    assert built.error == ""


def test_a_block_beyond_shared_memory_is_not_built_to_see_that() -> None:
    def refuse(program: str, asked: str) -> str:
        raise AssertionError("built")

    large = Launch("large", source="nothing", signature={"x": "tensordesc<bf16[1, 4096, 64]>"})
    with cross_compiling(refuse):
        (built,) = cross_compile([large])
    assert built == Built(shared=4096 * 64 * 2)


@pytest.mark.parametrize(
    "kind", ["tensordesc<fp32[]>", "tensordesc<fp32[9999999999]>", "tensordesc<[16, ]>", "*fp32"]
)
def test_what_is_no_descriptor_has_no_block(kind: str) -> None:
    launch = Launch("other", source="nothing", signature={"x": kind})
    with cross_compiling(lambda program, asked: "[]"):
        (built,) = cross_compile([launch])
    assert built.error


def test_what_only_the_interpreter_accepts_does_not_build() -> None:
    seen = watched(small_kernels.with_a_plain_global, torch.randn(100))
    assert seen.unwritten == 0
    (built,) = cross_compile(seen.launches)
    assert "PLAIN" in built.error


def test_the_same_kernel_is_built_once() -> None:
    launches = watched(small_kernels.softmax_of_twice, torch.randn(4, 100)).launches
    (before,) = cross_compile(launches)

    def refuse(program: str, asked: str) -> str:
        raise AssertionError("built again")

    with cross_compiling(refuse):
        assert cross_compile(launches) == [before]


@pytest.mark.parametrize(
    "answer", ["", "nonsense", "[]", "[1]", '[{"shared": "all", "registers": 1, "spilled": 0}]', '{"a": 1}']
)
def test_a_compiler_that_answers_nonsense_is_an_error_and_no_pass(answer: str) -> None:
    launch = Launch(f"kernel of {answer!r}", source="nothing")
    with cross_compiling(lambda program, asked: answer):
        (built,) = cross_compile([launch])
    assert built != Built()
    assert built.error


GOOD = Launch("k", (1,), "def k(): pass", {"x": "*fp32"}, {"B": 1}, ("x",)).to_dict()


def test_a_launch_crosses_as_plain_data() -> None:
    assert Launch.from_dict(copy.deepcopy(GOOD)).to_dict() == GOOD


@pytest.mark.parametrize(
    ("name", "value"),
    [("kernel", 1), ("source", None), ("grid", [1.5]), ("grid", 3), ("signature", {"x": 1}), ("constants", [1]),
     ("constants", {"x": [1]}), ("aligned", [1]), ("num_warps", "8"), ("problem", 0)],
)  # fmt: skip
def test_what_is_no_launch_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="not a kernel launch"):
        Launch.from_dict({**GOOD, name: value})
    with pytest.raises(ValueError, match="not a kernel launch"):
        Launch.from_dict({key: value for key, value in GOOD.items() if key != name})
