"""Announces an answer of eight gigabytes.

Must hold: the judge looks at the size before it makes room.
"""
# ends: larger than allowed
# cell: added
import struct
import sys

frame = sys._getframe()
while frame and frame.f_code.co_name != "serve":
    frame = frame.f_back
loop = frame.f_globals
real_send, channel = loop["send"], frame.f_locals["channel"]

channel.sendall(struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF) + b"x" * 1000)
