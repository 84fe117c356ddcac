"""Answers with JSON that is nested ten thousand times, in a frame of its own.

Must hold: that is a malformed answer, and nothing worse.
"""
# ends: the process sent
# cell: added
import signal
import struct

document = b"[" * 10_000 + b"]" * 10_000
loop = signal.getsignal(signal.SIGALRM).__globals__
loop["send"] = lambda channel, *args: channel.sendall(struct.pack(">II", len(document), 0) + document)
