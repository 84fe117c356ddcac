"""Starts threads until there are no more, and leaves them running.

Must hold: their number has a limit; the worker still answers, and they die with it.
"""
# cell: added
import threading
import time

try:
    while True:
        threading.Thread(target=time.sleep, args=(1000,)).start()
except RuntimeError:
    pass
