"""Recursion in C, deeper than the stack.

Must hold: an overflow of the stack ends the process; what remains scores nothing, with the reason.
"""
# ends: the process ended
# cell: added
import sys

sys.setrecursionlimit(10**9)
nested = ()
for _ in range(500_000):
    nested = (nested,)
hash(nested)
