"""sys.exit, quit and their like, in a cell and in a function.

Must hold: a cell or a call that leaves has failed; the process goes on.
"""
# cell: added
import sys

sys.exit(0)
# cell: added
quit()
# cell: added
raise SystemExit("100.0")
# cell: solution dot_scores
import sys


def dot_scores(query, key):
    sys.exit(0)
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
