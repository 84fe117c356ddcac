"""A picture of what attention costs over the length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

__all__ = ["draw"]

COLORS = ("#9aa3ab", "#c8643c", "#2f6f9f", "#4f9d69", "#8d6cab", "#b08a3e")


def draw(measured: Mapping[str, Any], path: Path) -> None:
    """One panel for each head width and direction, full attention solid, causal dashed. measured: as the JSON holds it."""
    rows = [row for row in measured["rows"] if row["seconds"]]
    panels = list(dict.fromkeys((row["direction"], row["D"]) for row in rows))
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure = Figure(figsize=(4.6 * len(panels), 3.8), layout="constrained")
    on_gpu = measured["verified_on_gpu"]
    for axes, (direction, D) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, color in zip(names, COLORS * 2, strict=False):
            for is_causal, style in ((False, "o-"), (True, "s--")):
                line = [
                    (row["S"], row["tflops"] if on_gpu else row["seconds"])
                    for row in rows
                    if (row["direction"], row["D"], row["name"], row["is_causal"])
                    == (direction, D, name, is_causal)
                ]
                if line:
                    axes.plot(
                        *zip(*line, strict=True), style, color=color, label=name if not is_causal else None
                    )
        lengths = sorted({row["S"] for row in rows})
        axes.set(xscale="log", xlabel="length", title=f"{direction}, D = {D}")
        axes.set_xticks(lengths, [str(S) for S in lengths])
        axes.minorticks_off()
        axes.set_ylabel("TFLOP/s" if on_gpu else "seconds")
        if not on_gpu:
            axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"{measured['device']}, {measured['dtype']}, {measured['threads']} thread(s); dashed: causal",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)
