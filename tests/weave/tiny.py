"""A course of one small assignment, to weave and to break."""

from __future__ import annotations

import shutil
from pathlib import Path

from autograder.weave.course import Course

ROOT = Path(__file__).parents[2]

SOLUTIONS = '''\
"""Reference solutions."""

import math

import torch
from torch import Tensor, nn


def halves(
    number: float,
    times: int = 1,
) -> float:
    """Halve a number.

    Units: none.
    """
    # the secret comment
    for _ in range(times):
        number = number / 2
    return number


class Twice(nn.Module):
    """Doubles, after a projection."""

    def __init__(self, width: int):
        super().__init__()
        self.secret_layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Double x."""
        return 2 * self.secret_layer(x) * math.pi / halves(2 * math.pi)


letter = "c"

count = 2 * 32
'''

LESSON = """\
---
jupytext:
  text_representation:
    format_name: myst
kernelspec:
  display_name: Python 3
  name: python3
---

# Halves

Some prose with $x^2$.

```{code-cell} ipython3
print("a demonstration")
```

```{code-cell} ipython3
from solutions.tiny import halves
```

## Questions

```{code-cell} ipython3
from solutions.tiny import letter
```

```{code-cell} ipython3
from solutions.tiny import count
```

```{code-cell} ipython3
from solutions.tiny import Twice
```

+++ {"attn": {"answer": "why_halves", "points": 3}}

The model answer is hidden.

**Rubric**

- 1 point: says the first hidden thing
- 2 points: says the second hidden thing

+++

Closing words.
"""

POINTS = {"halves": 4.0, "letter": 1.0, "count": 1.0, "Twice": 2.5}


def write_course(place: Path, lesson: str = LESSON, solutions: str = SOLUTIONS) -> Course:
    """The tiny course in `place`, with this project's nbgrader settings."""
    root = place / "course"
    (root / "lessons").mkdir(parents=True, exist_ok=True)
    (place / "solutions").mkdir(exist_ok=True)
    (root / "lessons" / "tiny.md").write_text(lesson, encoding="utf-8")
    (place / "solutions" / "tiny.py").write_text(solutions, encoding="utf-8")
    shutil.copyfile(ROOT / "course" / "nbgrader_config.py", root / "nbgrader_config.py")
    return Course(root, place / "solutions", {"tiny": POINTS})
