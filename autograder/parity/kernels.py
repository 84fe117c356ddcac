"""Kernels handed in as a file, and the process that they run in: a crash there is a line of the report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autograder.kernels.files import load
from autograder.parity.backends import TF32_NEEDS_GPU, Result
from autograder.parity.cases import Inputs
from autograder.parity.conduct import Run

__all__ = ["KernelFile", "load_kernels", "run_apart"]

DEADLINES = {"cpu": 120.0, "cuda": 600.0}
"""Seconds that one case may take, the start of the process included: on a GPU, where every tile size is compiled and timed."""


class KernelFile:
    """A file of functions with the names and arguments of the assignment `gpu_kernels`.

    flash_attention(query, key, value, is_causal) -> output, with gradients; flash_forward(query, key, value, is_causal)
    -> output, log_sum_exp. Either may be missing, and flash_attention may return the pair.
    """

    slow = False
    baseline = "fused"

    def __init__(self, path: Path, functions: Mapping[str, Callable[..., Any]] | None = None):
        """functions: what the file defines, where it is loaded in this process; without them nothing can be run."""
        self.path, self.name, self.functions = path, path.name, functions or {}

    def why_not(self, inputs: Inputs, precision: str) -> str | None:
        """What its signature, or the interpreter, cannot do."""
        on_cpu = inputs.query.device.type == "cpu"
        if precision == "tf32":
            return TF32_NEEDS_GPU if on_cpu else "a kernel file chooses the precision of its products itself"
        if precision == "bfloat16" and on_cpu:
            return "Triton's interpreter takes bfloat16 for whole numbers"
        return None if inputs.attn_mask is None else "flash_attention takes no mask"

    def why_no_gradients(self, inputs: Inputs) -> str | None:
        """None where flash_attention is defined."""
        if self.functions and "flash_attention" not in self.functions:
            return "the file defines no flash_attention"
        return None

    def run(self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Result:
        """Output with gradients where there are some; the log-sum-exp of flash_forward."""
        log_sum_exp = None
        if forward := self.functions.get("flash_forward"):
            with torch.no_grad():
                output, log_sum_exp = forward(query, key, value, is_causal)
        if attend := self.functions.get("flash_attention"):
            result = attend(query, key, value, is_causal)
            output, log_sum_exp = result if isinstance(result, tuple) else (result, log_sum_exp)
        return Result(output, log_sum_exp)

    def run_masked(self, inputs: Inputs) -> Result:
        """As `run`: there is no mask."""
        return self.run(*inputs.tensors, inputs.is_causal)


def load_kernels(path: Path) -> KernelFile:
    """Run the file in this process. Raises: whatever it raises; ValueError if neither function is there."""
    module = load(path)
    names = ("flash_attention", "flash_forward")
    functions = {name: getattr(module, name) for name in names if hasattr(module, name)}
    if not functions:
        raise ValueError(f"{path} defines neither {' nor '.join(names)}")
    return KernelFile(path, functions)


def run_apart(
    path: Path, precision: str, device: str, places: Sequence[int], deadline: float | None = None
) -> dict[int, Run]:
    """The kernels on the cases at those places of the tour, in a process of their own; another one after each crash."""
    from autograder.parity.child import read

    runs: dict[int, Run] = {}
    left = list(places)
    with tempfile.TemporaryDirectory(prefix="attn-parity-") as folder:
        while left:
            ended = _process(path, precision, device, left, Path(folder), deadline or DEADLINES[device])
            runs |= {place: run for place in left if (run := read(Path(folder), place)) is not None}
            missing = [place for place in left if place not in runs]
            if not missing:
                break
            started = (Path(folder) / "loaded").exists()
            # The first without a result is where it died; a file that cannot be loaded dies on all.
            runs |= dict.fromkeys(missing[:1] if started else missing, Run(crash=ended))
            left = missing[1:] if started else []
    return runs


def _process(
    path: Path, precision: str, device: str, places: Sequence[int], folder: Path, deadline: float
) -> str:
    """Run the child until it ends or finishes no case within the deadline -> how it ended, in words."""
    command = [
        sys.executable,
        "-m",
        "autograder.parity.child",
        str(path.resolve()),
        precision,
        device,
        str(folder),
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "0" if device == "cuda" else "1"}
    with (folder / "stderr").open("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*command, *map(str, places)], stdout=subprocess.DEVNULL, stderr=errors, env=environment
        )
        done, since = -1, time.monotonic()
        try:
            while (code := process.poll()) is None:
                time.sleep(0.05)
                finished = len(list(folder.iterdir()))
                if finished != done:
                    done, since = finished, time.monotonic()
                if time.monotonic() - since > deadline:
                    return f"no result within {deadline:g} s"
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        said = [line.strip() for line in errors.read()[-4000:].splitlines() if line.strip()]
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return said[-1][:200] if said else f"the process ended with exit code {code}"
