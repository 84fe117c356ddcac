"""Announces an answer of eight gigabytes.

Must hold: the judge looks at the size before it makes room.
"""
# ends: larger than allowed
# cell: added
import signal
import struct

loop = signal.getsignal(signal.SIGALRM).__globals__
loop["send"] = lambda channel, *args: channel.sendall(struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF) + b"x" * 1000)
