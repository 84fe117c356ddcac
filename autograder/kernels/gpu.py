"""Which GPU this machine has, if any."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["NOT_VERIFIED", "gpu_name", "triton_missing"]

NOT_VERIFIED = "Not verified on a GPU: the kernels ran in Triton's interpreter, which sees no races, no TF32 and no bfloat16."


def gpu_name() -> str:
    """The name of the GPU that torch uses, "" if there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def triton_missing() -> str:
    """Why Triton cannot be used here, "" if it can."""
    if importlib.util.find_spec("triton") is not None:
        return ""
    remedy = "pip install triton" if sys.platform == "linux" else "it exists for Linux only"
    return f"Triton is not installed ({remedy})"
