"""Raises the worker's own OutOfTime, and KeyboardInterrupt, in a cell and in a call.

Must hold: it scores as a call that takes too long: nothing.
"""
# cell: added
import signal

loop = signal.getsignal(signal.SIGALRM).__globals__

OutOfTime = loop["OutOfTime"]
# cell: added
raise OutOfTime
# cell: added
raise KeyboardInterrupt
# cell: solution dot_scores
def dot_scores(query, key):
    raise OutOfTime
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
