"""Frees itself from its parent's death, goes to the background in a session of its own, and works on.

Must hold: the whole pid namespace dies with the worker.
"""
# ends: could not be interrupted
# cell: added
import ctypes
import os
import signal
import time

libc = ctypes.CDLL(None)
libc.prctl(1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG
libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                try:
                    time.sleep(1000)
                except BaseException:
                    pass
        os._exit(0)
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
while True:
    try:
        time.sleep(1000)
    except BaseException:
        pass
