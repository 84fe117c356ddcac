"""Leaves names, modules, files and patches behind for whoever is graded next.

Must hold: the next worker is another process, forked from before all this. (The honest submission after it tells.)
"""
# cell: added
import builtins
import sys

import torch

builtins.GOT = True
open("GOT", "w").write("x")
torch.GOT = sys.GOT = True
torch.Tensor.__matmul__ = torch.matmul = lambda *args: torch.zeros(1)
torch.nn.Linear.forward = None
# spoils
