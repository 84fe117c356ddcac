"""Answers the judge from a thread of its own and lets the loop hang, so that no request is ever read.

Must hold: the judge does not wait for ever to be read, either.
"""
# ends: could not be interrupted|not asked
# cell: added
import threading
import time

import sys

frame = sys._getframe()
while frame and frame.f_code.co_name != "serve":
    frame = frame.f_back
loop, channel = frame.f_globals, frame.f_locals["channel"]


def deaf(*args):
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass


loop["receive"] = deaf
# cell: added
# @BIG@
print("never")
