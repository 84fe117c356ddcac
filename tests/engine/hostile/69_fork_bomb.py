"""Forks until there are no more processes, and each child forks on.

Must hold: their number has a limit, and all of them die with the worker.
"""
# ends: .
# cell: added
import os
import time

if os.getpid() != 1:
    raise SystemExit("not in a pid namespace: nobody would clean up")
ends = time.monotonic() + 30
while time.monotonic() < ends:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
