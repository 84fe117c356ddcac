"""GPU kernels: what a launch was, and whether its kernel fits a GPU that need not be there."""

from autograder.kernels.cross import H200, Built, cross_compile, cross_compiling, known_builds
from autograder.kernels.gpu import NOT_VERIFIED, gpu_name, triton_missing
from autograder.kernels.launches import Launch, recording

__all__ = [
    "H200",
    "NOT_VERIFIED",
    "Built",
    "Launch",
    "cross_compile",
    "cross_compiling",
    "gpu_name",
    "known_builds",
    "recording",
    "triton_missing",
]
