"""Memory in files without a name, in System V segments and in the buffers of sockets.

Must hold: the first two cannot be had, the last ends with the number of open files.
"""
# cell: added
import ctypes
import os
import socket

try:
    print("GOT", os.memfd_create("x"))
except OSError:
    pass
libc = ctypes.CDLL(None)
for call in (libc.shmget(0, 1 << 30, 0o1600), libc.msgget(0, 0o1600)):
    if call >= 0:
        print("GOT", call)
kept = []
try:
    while True:
        one, other = socket.socketpair()
        kept += [one, other]
        one.setblocking(False)
        one.send(b"0" * 100_000)
except OSError:
    kept.clear()
