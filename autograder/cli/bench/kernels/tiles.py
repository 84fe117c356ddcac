"""What every tile size that the kernels may choose needs on a GPU that this machine need not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autograder.kernels import Built, Launch, cross_compile

__all__ = ["Tile", "tiles"]

LAUNCHES = """
import contextlib, json, sys, torch
from autograder.kernels.files import load
from autograder.kernels import recording

torch.set_num_threads(1)
kernels, D = load(__import__("pathlib").Path(sys.argv[1])), int(sys.argv[2])
query, key, value = (torch.randn(1, 2, 16, D, dtype=torch.float16, requires_grad=True) for _ in range(3))
with recording(contextlib.nullcontext) as launches:
    kernels.flash_attention(query, key, value, True).sum().backward()
json.dump([launch.to_dict() for launch in launches], sys.stdout)
"""

CONFIGS = """
import json, sys
from autograder.kernels.files import load

kernels = load(__import__("pathlib").Path(sys.argv[1]))
json.dump({name: [{"constants": one.kwargs, "num_warps": one.num_warps, "num_stages": one.num_stages}
                  for one in kernel.configs]
           for name, kernel in vars(kernels).items() if hasattr(kernel, "configs")}, sys.stdout)
"""


@dataclass(frozen=True)
class Tile:
    """One kernel with one choice of tile: the head width, the choice, and what it needs."""

    kernel: str
    D: int
    constants: dict[str, Any]
    num_warps: int
    num_stages: int
    built: Built

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def tiles(path: Path, D: int) -> Iterator[Tile]:
    """Build the kernels of flash_attention in `path`, float16 and causal, in every tile that they may choose on a GPU.

    D: the head width. The kernels run once, interpreted, for their arguments' types. Raises: RuntimeError if they cannot.
    """
    launches = [Launch.from_dict(one) for one in _asked(LAUNCHES, "1", path, str(D))]
    configs = _asked(CONFIGS, "0", path)
    for launch in launches:
        chosen = configs.get(launch.kernel, [])
        variants = [
            replace(launch, **{**one, "constants": {**launch.constants, **one["constants"]}})
            for one in chosen
        ]
        for one, variant, built in zip(chosen, variants, cross_compile(variants), strict=True):
            yield Tile(launch.kernel, D, one["constants"], variant.num_warps, variant.num_stages, built)


def _asked(program: str, interpret: str, *arguments: str | Path) -> Any:
    """What a program prints as JSON. Whether Triton interprets is decided once in a process, so it takes two."""
    run = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": interpret, "PYTHONPATH": str(Path(__file__).parents[4])},
    )
    if run.returncode:
        raise RuntimeError(f"{arguments[0]}: {run.stderr.strip().splitlines()[-1:]}")
    return json.loads(run.stdout)
