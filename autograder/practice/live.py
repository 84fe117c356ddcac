"""Training that can be watched: a progress bar, and a loss curve that grows."""

from __future__ import annotations

from typing import Any

__all__ = ["LiveCurve"]


class LiveCurve:
    """Shows a bar for `steps` steps and the losses so far, drawn again every `every` steps; the last picture stays.

    floor: a loss that no model can go below, drawn as a line.
    """

    def __init__(self, steps: int, title: str, floor: float | None = None, every: int = 40):
        import ipywidgets as widgets
        import matplotlib.pyplot as plt
        from IPython.display import display

        self.steps, self.every, self.losses = steps, every, list[float]()
        self.bar = widgets.IntProgress(max=steps, description="training")
        self.note = widgets.Label()
        display(widgets.HBox([self.bar, self.note]))
        self.figure, self.ax = plt.subplots(figsize=(6.5, 3.0), layout="constrained")
        (self.line,) = self.ax.plot([], [], linewidth=1, label="loss of the batch")
        if floor is not None:
            self.ax.axhline(
                floor, linestyle="--", color="black", label=f"entropy of the grammar, {floor:.3f}"
            )
        self.ax.set(title=title, xlabel="step", ylabel="nats per token", xlim=(0, steps))
        self.ax.legend(frameon=False)
        self.shown: Any = display(self.figure, display_id=True)
        plt.close(self.figure)  # shown once, through the display above

    def add(self, loss: float) -> None:
        """One step further."""
        self.losses.append(loss)
        if len(self.losses) % self.every and len(self.losses) < self.steps:
            return
        self.bar.value = len(self.losses)
        self.note.value = f"step {len(self.losses)} of {self.steps}, loss {loss:.3f}"
        self.line.set_data(range(1, len(self.losses) + 1), self.losses)
        self.ax.set_ylim(0, max(self.losses) * 1.05)
        if self.shown is not None:
            self.shown.update(self.figure)
