"""Backends by precision: how far off, how far they may be, and what was not run, with the reason."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from autograder.kernels import H200, Built, Launch, cross_compile
from autograder.oracle import Comparison
from autograder.parity.backends import Backend, torch_backends
from autograder.parity.cases import DTYPES, dtype_of
from autograder.parity.comparison import QUANTITIES, Oracle
from autograder.parity.conduct import Run, run_watched
from autograder.parity.kernels import KernelFile, run_apart
from autograder.parity.tour import Stop, stops

__all__ = ["Finding", "Line", "ParityReport", "Skip", "build", "compare_backends", "judge"]


@dataclass(frozen=True)
class Finding:
    """One quantity of one case."""

    case: str
    quantity: str
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        c = self.comparison
        return {
            "case": self.case,
            "quantity": self.quantity,
            "measure": c.measure,
            "error": _number(c.error),
            "allowance": _number(c.allowance),
            "ratio": _number(c.ratio),
        }


@dataclass
class Line:
    """One backend in one precision.

    largest: the largest tensor of a forward pass, as a multiple of the scores. built: what the kernels of the core cases
    need on a GPU that is not here, by name; empty where they ran on one, or are no Triton kernels.
    """

    backend: str
    precision: str
    cases: int = 0
    findings: list[Finding] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    largest: float | None = None
    built: list[tuple[str, Built]] = field(default_factory=list)

    @property
    def worst(self) -> Finding | None:
        """The finding nearest to its limit, or farthest beyond."""
        return max(self.findings, key=lambda one: one.comparison.ratio, default=None)

    @property
    def wrong(self) -> tuple[str, ...]:
        """The quantities that are beyond their allowance in some case."""
        beyond = {one.quantity for one in self.findings if not one.comparison.close}
        return tuple(name for name in QUANTITIES if name in beyond)

    @property
    def passed(self) -> bool:
        """Whether all is within the allowance, and there is nothing to complain of."""
        return bool(self.findings) and not self.wrong and not self.complaints

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "backend": self.backend,
            "dtype": self.precision,
            "cases": self.cases,
            "passed": self.passed,
            "wrong": self.wrong,
            "complaints": self.complaints,
            "largest_tensor_over_scores": self.largest,
            "built_for": H200.name if self.built else None,
            "built": [{"kernel": name, **asdict(built)} for name, built in self.built],
            "worst": self.worst.to_dict() if self.worst else None,
            "quantities": {
                name: max(found, key=lambda one: one.comparison.ratio).to_dict()
                for name in QUANTITIES
                if (found := [one for one in self.findings if one.quantity == name])
            },
        }


@dataclass(frozen=True)
class Skip:
    """What was not run, and why."""

    backend: str
    precisions: tuple[str, ...]
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend}, {', '.join(self.precisions)}: {self.what} not run: {self.reason}"


@dataclass
class ParityReport:
    """All lines, and all that was not run."""

    device: str
    lines: list[Line]
    skipped: list[Skip]

    @property
    def verified_on_gpu(self) -> bool:
        """Whether anything ran on a GPU, and all that ran passed."""
        return self.device != "cpu" and self.passed

    @property
    def passed(self) -> bool:
        """Whether every line did."""
        return bool(self.lines) and all(line.passed for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "device": self.device,
            "verified_on_gpu": self.verified_on_gpu,
            "passed": self.passed,
            "torch": torch.__version__,
            "lines": [line.to_dict() for line in self.lines],
            "not_run": [
                {"backend": one.backend, "dtypes": one.precisions, "what": one.what, "reason": one.reason}
                for one in self.skipped
            ],
        }


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else "inf"


@cache
def _oracle(stop: Stop, precision: str) -> Oracle:
    return Oracle(stop.inputs(precision), precision)


def compare_backends(
    kernels: Path | None = None,
    precisions: Sequence[str] = DTYPES,
    wanted: Callable[[str], bool] = lambda name: True,
    tell: Callable[[str], None] = lambda line: None,
) -> ParityReport:
    """Every wanted backend in every precision on the GPU, or on the CPU where there is none.

    kernels: a file with kernels. wanted: by name. tell: hears of each line before it is run.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backends: list[Backend] = [*torch_backends(), *([KernelFile(kernels)] if kernels else [])]
    report = ParityReport(torch.cuda.get_device_name() if device == "cuda" else "cpu", [], [])
    refused: dict[tuple[str, str], dict[str, list[str]]] = {}
    for backend in filter(lambda one: wanted(one.name), backends):
        for precision in precisions:
            tell(f"{backend.name}, {precision}")
            line = Line(backend.name, precision)
            for what, reason in _filled(line, backend, precision, device):
                refused.setdefault((backend.name, reason), {}).setdefault(precision, []).append(what)
            if line.cases:
                report.lines.append(line)
    report.skipped = list(_skips(refused, len(stops(device))))
    return report


def _filled(line: Line, backend: Backend, precision: str, device: str) -> Iterator[tuple[str, str]]:
    """Run the line's cases -> what was not run, and why."""
    places: list[int] = []
    for place, stop in enumerate(stops(device)):
        inputs = stop.inputs(precision, device)
        reason = backend.why_not(inputs, precision)
        if reason is None and backend.slow and not stop.core:
            reason = "slow to compile: a few cases only"
        if reason is not None:
            yield str(stop), reason
            continue
        if no_gradients := backend.why_no_gradients(inputs):
            yield f"the gradients of {stop}", no_gradients
        places.append(place)
    for place, run in _runs(backend, precision, device, places):
        judge(line, stops(device)[place], run, backend.baseline)
        if isinstance(backend, KernelFile) and run.results and "d_query" not in run.results:
            yield (
                f"the gradients of {stops(device)[place]}",
                "there are none; flash_attention is to have them",
            )
        if device == "cpu" and stops(device)[place].core:
            build(line, run.launches)


def _runs(backend: Backend, precision: str, device: str, places: Sequence[int]) -> Iterator[tuple[int, Run]]:
    if isinstance(backend, KernelFile):
        yield from run_apart(backend.path, precision, device, places).items() if places else ()
        return
    for place in places:
        yield place, run_watched(backend, stops(device)[place].inputs(precision, device), precision)


def build(line: Line, launches: Sequence[Launch]) -> None:
    """Enter what the kernels need on a GPU that this machine need not have; that they do not fit is a complaint."""
    try:
        built = cross_compile(launches)
    except subprocess.SubprocessError as error:
        line.complaints.append(f"not built for {H200.name}: {type(error).__name__}")
        return
    for launch, found in zip(launches, built, strict=True):
        line.built.append((launch.kernel, found))
        if found.error:
            line.complaints.append(f"{launch.kernel} cannot be built for {H200.name}: {found.error[:200]}")
        if found.shared > H200.shared:
            line.complaints.append(
                f"{launch.kernel} needs {found.shared} bytes of shared memory; {H200.name} has {H200.shared}"
            )


def judge(line: Line, stop: Stop, run: Run, baseline: str = "fused") -> None:
    """Enter a run into its line: quantities compared with the oracle, complaints, a crash."""
    oracle = _oracle(stop, line.precision)
    line.cases += 1
    line.complaints += [f"{one} ({stop})" for one in run.complaints]
    if run.largest is not None:
        line.largest = max(line.largest or 0.0, run.largest)
    if run.crash is not None:
        line.complaints.append(f"crashed: {run.crash} ({stop})")
    for name, actual in run.results.items():
        right = oracle.exact[name].value
        dtype = torch.float32 if name == "log_sum_exp" else dtype_of(line.precision)
        if actual.shape != right.shape:
            line.complaints.append(
                f"{name} has shape {tuple(actual.shape)}, expected {tuple(right.shape)} ({stop})"
            )
        elif actual.dtype != dtype:
            line.complaints.append(f"{name} is {actual.dtype}, expected {dtype} ({stop})")
        else:
            line.findings.append(Finding(str(stop), name, oracle.compare(name, actual, baseline)))


def _skips(refused: dict[tuple[str, str], dict[str, list[str]]], cases: int) -> Iterator[Skip]:
    """One line for each backend and reason; precisions that miss the same share it."""
    for (backend, reason), by_precision in refused.items():
        same: dict[tuple[str, ...], list[str]] = {}
        for precision, cases_of_it in by_precision.items():
            same.setdefault(tuple(cases_of_it), []).append(precision)
        for what, sharing in same.items():
            gradients = all(one.startswith("the gradients of") for one in what)
            all_or_some = "everything" if len(what) == cases else f"{len(what)} of {cases} cases"
            shown = what[0] if len(what) == 1 else "gradients" if gradients else all_or_some
            yield Skip(backend, tuple(sharing), shown, reason)
