"""Many processes, each of which takes almost as much memory as one may.

Must hold: together they may not take more than one.
"""
# ends: took too much memory
# cell: added
import mmap
import os
import time

for _ in range(20):
    if os.fork() == 0:
        shared, own = mmap.mmap(-1, 200 << 20), bytearray(200 << 20)
        for place in range(0, 200 << 20, 4096):
            shared[place] = own[place] = 1
        time.sleep(1000)
time.sleep(1000)
