"""Lets the loop that answers the judge hang, so that no request is ever read, and makes the next one a long one.

Must hold: the judge does not wait for ever to be read, either.
"""
# ends: could not be interrupted|not asked
# cell: added
import signal
import time

loop = signal.getsignal(signal.SIGALRM).__globals__


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
