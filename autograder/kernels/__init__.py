"""GPU kernels: what a launch was, and whether its kernel fits a GPU that need not be there."""

from autograder.kernels.cross import H200, Built, cross_compile, cross_compiling, known_builds
from autograder.kernels.gpu import NOT_VERIFIED, device_note, gpu_name, interpreted, triton_missing
from autograder.kernels.interpreter import quick_interpreter
from autograder.kernels.launches import Launch, recording

__all__ = [
    "H200",
    "NOT_VERIFIED",
    "Built",
    "Launch",
    "cross_compile",
    "cross_compiling",
    "device_note",
    "gpu_name",
    "interpreted",
    "known_builds",
    "quick_interpreter",
    "recording",
    "triton_missing",
]
