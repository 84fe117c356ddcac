"""Takes memory until there is none: bytes, a tensor of a terabyte, a list in a call.

Must hold: the address space has a limit; running into it is an error like any other.
"""
# cell: added
held = []
while True:
    held.append(bytearray(64 << 20))
# cell: added
del held
import torch

torch.empty(1 << 40)
# cell: solution dot_scores
def dot_scores(query, key):
    held = []
    while True:
        held.append(bytearray(64 << 20))
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
