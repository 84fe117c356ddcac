"""Promises a long answer, and sends one byte of it now and then.

Must hold: the time of a request ends however much of the answer has come.
"""
# ends: did not finish within|submission took more
# cell: added
import struct
import time
import sys

frame = sys._getframe()
while frame and frame.f_code.co_name != "serve":
    frame = frame.f_back
loop = frame.f_globals
real_send, channel = loop["send"], frame.f_locals["channel"]

channel.sendall(struct.pack(">II", 1 << 20, 0))
while True:
    try:
        channel.sendall(b" ")
        time.sleep(0.05)
    except OSError:
        break
    except BaseException:
        pass
