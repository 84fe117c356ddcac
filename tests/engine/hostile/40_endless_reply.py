"""Promises a long answer, and sends one byte of it now and then.

Must hold: the time of a request ends however much of the answer has come.
"""
# ends: did not finish within|submission took more
# cell: added
import signal
import struct
import time

loop = signal.getsignal(signal.SIGALRM).__globals__


def dripping(channel, message, *args):
    channel.sendall(struct.pack(">II", 1 << 20, 0))
    while True:
        try:
            channel.sendall(b" ")
            time.sleep(0.05)
        except OSError:
            return


loop["send"] = dripping
