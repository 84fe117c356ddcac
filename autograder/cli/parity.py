"""`attn parity`: attention kernels against the float64 oracle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autograder.cli.errors import UserError, require_gpu, require_torch

if TYPE_CHECKING:
    from autograder.parity.experiment import Experiment
    from autograder.parity.report import Line, ParityReport

NOT_VERIFIED = "not verified on a GPU"
SYMBOLS = {"output": "O", "log_sum_exp": "LSE", "d_query": "dQ", "d_key": "dK", "d_value": "dV"}
SHOWN = 3  # complaints of one line; the JSON has all of them


@dataclass(frozen=True)
class Options:
    """What to compare; empty tuples mean everything."""

    kernels: Path | None = None
    dtypes: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    require_gpu: bool = False
    experiment: bool = False
    quick: bool = False
    json: Path | None = None


def run_parity(options: Options) -> int:
    """Print the table; 0 if all that ran is within its allowance, 1 if not, or if nothing ran.

    Raises: UserError for an unknown name, a missing file, or a missing GPU that is required.
    """
    require_torch()
    _refuse(options)
    console = Console(markup=False)
    if options.experiment:
        from autograder.parity.experiment import run_experiment

        with console.status("experiment") as status:
            found = run_experiment(options.quick, tell=status.update)
        _write(options.json, found.to_dict())
        _print_experiment(console, found, options.quick)
        return 0 if not found.outcomes["derived"].refused else 1
    from autograder.parity.cases import DTYPES
    from autograder.parity.report import compare_backends

    wanted = tuple(name.lower() for name in options.backends)
    with console.status("parity") as status:
        report = compare_backends(
            options.kernels,
            options.dtypes or DTYPES,
            lambda name: not wanted or any(part in name.lower() for part in wanted),
            status.update,
        )
    _write(options.json, report.to_dict())
    _print_report(console, report)
    return 0 if report.passed else 1


def _refuse(options: Options) -> None:
    """Raises: UserError for what cannot be asked for."""
    from autograder.parity.backends import torch_backends
    from autograder.parity.cases import DTYPES

    if options.require_gpu:
        require_gpu()
    if unknown := [name for name in options.dtypes if name not in DTYPES]:
        raise UserError(f"--dtype {unknown[0]}: choose among {', '.join(DTYPES)}.")
    if options.kernels is not None and not options.kernels.is_file():
        raise UserError(f"--kernels {options.kernels}: there is no such file.")
    names = [one.name for one in torch_backends()] + ([options.kernels.name] if options.kernels else [])
    for wanted in options.backends:
        if not any(wanted.lower() in name.lower() for name in names):
            raise UserError(
                f"--backend {wanted}: no backend has that in its name; there are {', '.join(names)}."
            )


def _write(path: Path | None, figures: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _print_report(console: Console, report: ParityReport) -> None:
    table = Table(title=f"Attention against float64, on {report.device}", show_lines=True)
    table.add_column("backend")
    table.add_column("dtype")
    table.add_column("cases", justify="right")
    table.add_column("compared")
    for heading in ("error", "allowance", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("worst: quantity, measure, case", ratio=2)
    table.add_column("largest tensor", justify="right")
    table.add_column("verdict", ratio=2)
    for line in report.lines:
        table.add_row(*(Text(cell) for cell in _cells(line)))
    console.print(table)
    for line in report.lines:
        if line.built:
            console.print(Text(_built(line)))
    if not report.lines:
        console.print(Text("nothing was run"))
    for skip in report.skipped:
        console.print(Text(str(skip)))
    if report.device == "cpu":
        console.print(Text(NOT_VERIFIED))


def _cells(line: Line) -> tuple[str, ...]:
    numbers, where = ("", "", ""), ""
    if worst := line.worst:
        found = worst.comparison
        numbers = f"{found.error:.2g}", f"{found.allowance:.2g}", f"{found.ratio:.3g}"
        where = f"{worst.quantity}, {found.measure}, {worst.case}"
    found_in = {one.quantity for one in line.findings}
    compared = " ".join(short for name, short in SYMBOLS.items() if name in found_in)
    memory = "-" if line.largest is None else f"{line.largest:.2f} x scores"
    return line.backend, line.precision, str(line.cases), compared, *numbers, where, memory, _verdict(line)


def _built(line: Line) -> str:
    """The most that any kernel of a line needs."""
    from autograder.kernels import H200

    every = [built for _, built in line.built]
    shared, registers, spilled = (
        max(getattr(one, name) for one in every) for name in ("shared", "registers", "spilled")
    )
    return (
        f"{line.backend}, {line.precision}: {len(every)} kernels built for {H200.name}, not run: at most {shared} bytes "
        f"of shared memory of {H200.shared}, {registers} registers of {H200.registers}, {spilled} bytes spilled"
    )


def _verdict(line: Line) -> str:
    if line.passed:
        return "within its allowance"
    said = [f"beyond its allowance: {', '.join(line.wrong)}"] if line.wrong else []
    said += line.complaints[:SHOWN]
    if len(line.complaints) > SHOWN:
        said.append(f"and {len(line.complaints) - SHOWN} more like this, in the JSON")
    return "\n".join(said)


def _print_experiment(console: Console, found: Experiment, quick: bool) -> None:
    table = Table(
        title=f"{found.cases} cases, {found.right_runs} runs of right implementations, {found.planted} bugs planted by dtype",
        show_lines=True,
    )
    table.add_column("rule")
    for heading in (
        "right accepted",
        "worst right ratio",
        "cases where all right ones pass",
        "bugs caught there",
        "by N(0, 1) alone",
    ):
        table.add_column(heading, justify="right")
    table.add_column("escapes", ratio=2)
    for rule, outcome in found.outcomes.items():
        escapes = [f"{bug} ({', '.join(dtypes)})" for bug, dtypes in found.escapes(rule).items()]
        table.add_row(
            rule,
            f"{outcome.accepted} / {found.right_runs}",
            f"{outcome.worst:.3g}",
            f"{outcome.usable} / {found.cases}",
            f"{found.caught(rule)} / {found.planted}",
            "-" if quick else str(found.caught(rule, normal=True)),
            Text(
                "; ".join(escapes[:SHOWN])
                + (f"; {len(escapes) - SHOWN} more" if len(escapes) > SHOWN else "")
            ),
        )
    console.print(table)
