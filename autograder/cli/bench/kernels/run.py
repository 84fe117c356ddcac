"""The command: measure, print tables, write JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from autograder.cli.bench.kernels.contenders import OURS, contenders
from autograder.cli.bench.kernels.measure import Decoded, Measured, Plan, copy_bandwidth, decoding, measure
from autograder.cli.bench.kernels.tiles import Tile, tiles
from autograder.cli.bench.machine import machine
from autograder.cli.errors import UserError, require_gpu
from autograder.engine.store import write_whole
from autograder.kernels import H200, gpu_name, interpreted, triton_missing
from autograder.kernels.files import load
from autograder.weave import find_course

__all__ = ["run_bench_kernels"]

GPU_LENGTHS, CPU_LENGTHS = (512, 1024, 2048, 4096, 8192, 16_384), (1024, 2048, 4096)
SHORTEST_ON_CPU = 1024
"""Below it a CPU's seconds are noise."""


def run_bench_kernels(
    lengths: Sequence[int],
    widths: Sequence[int],
    kernels: Path | None,
    backward: bool,
    must_have_gpu: bool,
    target: Path | None,
    picture: Path | None,
) -> int:
    """Measure on the GPU where there is one, else on the CPU. Raises: UserError if a GPU is required, and is not there."""
    gpu = gpu_name()
    if must_have_gpu:
        require_gpu()
    device = "cuda" if gpu else "cpu"
    chosen = tuple(lengths) or (GPU_LENGTHS if gpu else CPU_LENGTHS)
    if not gpu and (short := [n for n in chosen if n < SHORTEST_ON_CPU]):
        raise UserError(
            f"length {short[0]}: on a CPU times below {SHORTEST_ON_CPU} are noise; expected longer ones"
        )
    if gpu and interpreted():
        raise UserError("TRITON_INTERPRET is not 0: kernels would be interpreted. Set TRITON_INTERPRET=0")
    plan = Plan(device, torch.bfloat16 if gpu else torch.float32, chosen, tuple(widths), backward)
    found = find_course()
    ours = kernels or found.solution("gpu_kernels")
    module = load(ours) if gpu else None
    console = Console(markup=False)
    ways = list(contenders(device, load(found.solution("efficient_attention")), module))
    rows: list[Measured] = []
    decoded: list[Decoded] = []
    built: list[Tile] = []
    copied = copy_bandwidth(device)

    def save() -> dict[str, Any]:
        """Write what there is so far, so that a run that is cut short leaves it."""
        figures = _figures(plan, gpu, rows, decoded, copied) | {"tiles": [tile.to_dict() for tile in built]}
        if target is not None:
            write_whole(target, json.dumps(figures, indent=1) + "\n")
        return figures

    for row in measure(plan, ways):
        rows.append(row)
        console.print(_line(row), highlight=False)
        save()
    if module is not None:
        decoded += decoding(plan, module)
    unbuilt = triton_missing()
    if not gpu and not unbuilt:
        try:
            built += [tile for D in plan.widths for tile in tiles(ours, D)]
        except RuntimeError as error:
            unbuilt = str(error)
    for table in (*_tables(rows, device), *([_decode_table(decoded, copied)] if decoded else [])):
        console.print(table)
    if built:
        console.print(_tile_table(built))
    for name, why in dict.fromkeys((row.name, row.why_not) for row in rows if row.why_not):
        console.print(f"not run: {name}: {why}", highlight=False)
    if unbuilt:
        console.print(f"kernels not built for a GPU: {unbuilt}", highlight=False)
    if not gpu:
        console.print(
            "Not verified on a GPU: there is none here. Kernels are built, and not timed by interpreting them."
        )
    figures = save()
    if picture is not None:
        from autograder.cli.bench.kernels.picture import draw

        draw(figures, picture)
    return 0


def _figures(
    plan: Plan, gpu: str, rows: list[Measured], decoded: list[Decoded], copied: float
) -> dict[str, Any]:
    return {
        "device": gpu or "cpu",
        "verified_on_gpu": bool(gpu),
        "machine": machine(),
        "dtype": str(plan.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "copy_bytes_per_second": copied,
        "rows": [asdict(row) | {"tflops": row.tflops} for row in rows],
        "decode": [asdict(one) | {"bytes_per_second": one.bandwidth} for one in decoded],
    }


def _line(row: Measured) -> str:
    causal = "causal" if row.is_causal else "full"
    told = f"{row.seconds * 1e3:.3f} ms, {row.tflops:.3g} TFLOP/s" if row.seconds else row.why_not
    return f"{row.direction} D={row.D} {causal} S={row.S} {row.name}: {told}"


def _tables(rows: list[Measured], device: str) -> list[Table]:
    """One for each direction: lengths down, contenders across."""
    tables = []
    for direction in dict.fromkeys(row.direction for row in rows):
        those = [row for row in rows if row.direction == direction]
        names = list(dict.fromkeys(row.name for row in those))
        base = OURS if device == "cuda" else "naive"
        unit = "TFLOP/s, and ours over it" if device == "cuda" else "ms, and times faster than naive"
        table = Table(title=f"{direction}: {unit}")
        for heading in ("D", "causal", "S", *names):
            table.add_column(heading, justify="right")
        for D, is_causal, S in dict.fromkeys((row.D, row.is_causal, row.S) for row in those):
            cells = {row.name: row for row in those if (row.D, row.is_causal, row.S) == (D, is_causal, S)}
            line = [_cell(cells.get(name), cells.get(base), device) for name in names]
            table.add_row(str(D), "yes" if is_causal else "no", str(S), *line)
        tables.append(table)
        if device == "cpu" and direction == "forward":
            tables.append(_cost_table(those))
    return tables


def _cell(row: Measured | None, base: Measured | None, device: str) -> str:
    if row is None or not row.seconds or row.tflops is None:
        return "-"
    told = f"{row.tflops:.0f}" if device == "cuda" else f"{row.seconds * 1e3:.0f}"
    if base is None or not base.seconds:
        return told
    ratio = row.seconds / base.seconds if device == "cuda" else base.seconds / row.seconds
    return f"{told} ({ratio:.2f})"


def _cost_table(rows: list[Measured]) -> Table:
    """What the calls do, which no clock can blur."""
    table = Table(title="counted: operations over the formula's, largest tensor over an input's")
    names = list(dict.fromkeys(row.name for row in rows if row.counted is not None))
    for heading in ("D", "causal", "S", *names):
        table.add_column(heading, justify="right")
    for D, is_causal, S in dict.fromkeys((row.D, row.is_causal, row.S) for row in rows):
        cells = {row.name: row for row in rows if (row.D, row.is_causal, row.S) == (D, is_causal, S)}
        line = []
        for name in names:
            row = cells[name]
            line.append(f"{(row.counted or 0) / row.flops:.2f}, {(row.largest or 0) / row.elements:.0f}")
        table.add_row(str(D), "yes" if is_causal else "no", str(S), *line)
    return table


def _tile_table(built: Sequence[Tile]) -> Table:
    """What each tile needs. A tile that spills is slow; one that needs too much shared memory is not run at all."""
    table = Table(title=f"built for {H200.name}, {H200.shared:,} bytes of shared memory for a program")
    for heading in ("kernel", "D", "tile", "warps", "stages", "shared bytes", "registers", "spilled bytes"):
        table.add_column(heading, justify="left" if heading == "kernel" else "right")
    for tile in built:
        size = " x ".join(str(value) for value in tile.constants.values())
        needs = tile.built
        told = [f"{needs.shared:,}", str(needs.registers), str(needs.spilled)]
        table.add_row(
            tile.kernel,
            str(tile.D),
            size,
            str(tile.num_warps),
            str(tile.num_stages),
            *(told if not needs.error else [needs.error.splitlines()[-1][:60], "-", "-"]),
        )
    return table


def _decode_table(decoded: list[Decoded], copied: float) -> Table:
    table = Table(title=f"decoding: GB/s of cache read, and its share of a copy's {copied / 1e9:.0f} GB/s")
    for heading in ("S", *dict.fromkeys(one.name for one in decoded)):
        table.add_column(heading, justify="right")
    for S in dict.fromkeys(one.S for one in decoded):
        line = []
        for one in (each for each in decoded if each.S == S):
            told = (
                f"{one.bandwidth / 1e9:.0f} ({one.bandwidth / copied:.0%}) {one.note}"
                if one.bandwidth
                else one.why_not
            )
            line.append(told)
        table.add_row(str(S), *line)
    return table
