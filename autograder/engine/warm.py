"""All that a judge needs, imported by the process that judges are forked from, once for all of them."""

import importlib

from autograder.engine.startup import spare_grammar

spare_grammar()
importlib.import_module(
    "torch.fx.experimental.symbolic_shapes"
)  # gradcheck asks for it, and for sympy with it

import autograder.engine.judge  # noqa: E402
from autograder.exercises import ASSIGNMENTS, in_assignment  # noqa: E402

for stem in ASSIGNMENTS:
    in_assignment(stem)

__all__ = ["autograder"]
