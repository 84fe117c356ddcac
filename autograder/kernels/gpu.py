"""Which GPU this machine has, if any."""

from __future__ import annotations

import importlib.util
import os
import sys

__all__ = ["NOT_VERIFIED", "choose_mode", "device_note", "gpu_name", "interpreted", "triton_missing"]

NOT_VERIFIED = (
    "Not verified on a GPU: the kernels ran in Triton's interpreter, which sees no TF32 and no bfloat16."
)


def gpu_name() -> str:
    """The name of the GPU that torch uses, "" if there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU: unless TRITON_INTERPRET is 0, as it is to be for a GPU."""
    return os.environ.get("TRITON_INTERPRET", "1") != "0"


def choose_mode() -> None:
    """Let Triton interpret where there is no GPU. It decides when it is imported, and torch's flop counter imports it."""
    import torch

    os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")


def device_note() -> str:
    """What a report on kernels says of the machine that they ran on."""
    return NOT_VERIFIED if interpreted() or not gpu_name() else f"Ran on a GPU: {gpu_name()}."


def triton_missing() -> str:
    """Why Triton cannot be used here, "" if it can."""
    if importlib.util.find_spec("triton") is not None:
        return ""
    remedy = "pip install triton" if sys.platform == "linux" else "it exists for Linux only"
    return f"Triton is not installed ({remedy})"
