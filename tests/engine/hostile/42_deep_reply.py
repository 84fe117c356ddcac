"""Answers with JSON that is nested ten thousand times, in a frame of its own.

Must hold: that is a malformed answer, and nothing worse.
"""
# ends: the process sent
# cell: added
import struct
import sys

frame = sys._getframe()
while frame and frame.f_code.co_name != "serve":
    frame = frame.f_back
loop = frame.f_globals
real_send, channel = loop["send"], frame.f_locals["channel"]

document = b"[" * 10_000 + b"]" * 10_000
channel.sendall(struct.pack(">II", len(document), 0) + document)
