"""A picture of what grading costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

__all__ = ["draw"]

BLUE, GREY, ORANGE = "#2f6f9f", "#9aa3ab", "#c8643c"


def draw(measured: Mapping[str, Any], path: Path) -> None:
    """Draw one benchmark, as its JSON holds it: who takes how long for a submission, and how that grows with the class."""
    growth = measured["growth"]
    figure = Figure(figsize=(9.5 if growth else 5.5, 3.4), layout="constrained")
    bars, *lines = figure.subplots(1, 2 if growth else 1, squeeze=False)[0]
    counts = {
        "stock": measured["stock_students"],
        "front": measured["students"],
        "attn": measured["students"],
    }
    names = {
        "stock": "stock nbgrader\nautograde",
        "front": "nbgrader autograde\nwith this engine",
        "attn": "attn grade",
    }
    seconds = [measured["seconds"][who] / counts[who] for who in names]
    drawn = bars.barh(list(names.values()), seconds, color=[GREY, BLUE, ORANGE], log=True)
    bars.bar_label(drawn, [f"{value:.2f} s" for value in seconds], padding=3)
    bars.set_xlim(min(seconds) / 2, max(seconds) * 4)
    bars.invert_yaxis()
    bars.set_xlabel("seconds a submission, start-up included")
    ticks = [
        tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if bars.get_xlim()[0] <= tick <= bars.get_xlim()[1]
    ]
    bars.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    bars.set_xticks([], minor=True)
    bars.set_title(f"{measured['students']} submissions, {measured['machine']['cores']} cores", fontsize=10)
    if lines:
        sizes = [one["students"] for one in growth]
        lines[0].plot(sizes, [one["seconds_per_submission"] for one in growth], "o-", color=ORANGE)
        lines[0].set(
            xscale="log", xlabel="submissions in the class", ylabel="seconds a submission", ylim=(0, None)
        )
        lines[0].set_xticks(sizes, [f"{size:g}" for size in sizes])
        lines[0].set_title("attn grade, once it has begun", fontsize=10)
    for axes in (bars, *lines):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
