"""The process that kernels run in: `python -m autograder.parity.child FILE PRECISION DEVICE FOLDER PLACE...`

Each case leaves two files in FOLDER: tensors, and what else there is to say. Data only: what a kernel file does to this
process cannot reach the one that judges it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from autograder.kernels import Launch, recording
from autograder.parity.conduct import Run, run_watched
from autograder.parity.kernels import load_kernels
from autograder.parity.tour import stops

__all__ = ["read"]


def write(folder: Path, place: int, run: Run) -> None:
    """Leave a run's results; the file that comes last tells that they are whole."""
    save_file({name: x.contiguous() for name, x in run.results.items()}, folder / f"{place}.safetensors")
    said = {
        "complaints": run.complaints,
        "crash": run.crash,
        "largest": run.largest,
        "launches": [one.to_dict() for one in run.launches],
    }
    (folder / f"{place}.part").write_text(json.dumps(said), encoding="utf-8")
    (folder / f"{place}.part").rename(folder / f"{place}.json")


def read(folder: Path, place: int) -> Run | None:
    """What `write` left; None if there is nothing. Files that are no results are a crash."""
    if not (folder / f"{place}.json").exists():
        return None
    try:
        said = json.loads((folder / f"{place}.json").read_text(encoding="utf-8"))
        results = load_file(folder / f"{place}.safetensors")
        return Run(
            results,
            tuple(map(str, said["complaints"])),
            said["crash"],
            said["largest"],
            tuple(map(Launch.from_dict, said["launches"])),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        return Run(crash=f"it left no readable results ({type(error).__name__})")


def main(file: str, precision: str, device: str, folder: str, *places: str) -> None:
    """Run the cases in turn."""
    backend, cases = load_kernels(Path(file)), stops(device)
    (Path(folder) / "loaded").touch()
    for place in map(int, places):
        inputs = cases[place].inputs(precision, device)
        with recording(contextlib.nullcontext) as launches:
            run = run_watched(backend, inputs, precision)
        write(Path(folder), place, replace(run, launches=tuple(launches)))


if __name__ == "__main__":
    main(*sys.argv[1:])
