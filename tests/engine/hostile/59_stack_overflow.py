"""Recursion without a limit, in Python and in C.

Must hold: RecursionError is an error like any other; an overflow of the real stack ends the process, with the reason.
"""
# ends: the process ended
# cell: added
def down(depth):
    return down(depth + 1)


down(0)
# cell: added
import sys

sys.setrecursionlimit(10**9)
nested = ()
for _ in range(500_000):
    nested = (nested,)
hash(nested)
repr(nested)
