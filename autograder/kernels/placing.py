"""Moving tensors to the GPU for a call, and back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from autograder.kernels.gpu import interpreted
from autograder.trees import mapped

__all__ = ["beside_the_gpu"]


def beside_the_gpu(function: Callable[..., Any], device: str | None = None) -> Callable[..., Any]:
    """`function` with its tensors moved to the GPU for the call and its results moved back; gradients follow.

    device: where to. By default "cuda", unless kernels are interpreted: then `function` itself comes back.
    What the function writes into its arguments does not come back.
    """
    if device is None:
        if interpreted():
            return function
        device = "cuda"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _moved(function(*_moved(args, device), **_moved(kwargs, device)), "cpu")

    return call


def _moved(tree: Any, device: str) -> Any:
    return mapped(tree, lambda value: value.to(device) if isinstance(value, Tensor) else value)
