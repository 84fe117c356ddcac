"""Raises the worker's own OutOfTime, and KeyboardInterrupt, in a cell and in a call.

Must hold: it scores as a call that takes too long: nothing.
"""
# cell: added
import sys

frame = sys._getframe()
while frame and frame.f_code.co_name != "serve":
    frame = frame.f_back
loop = frame.f_globals
real_send, channel = loop["send"], frame.f_locals["channel"]

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
