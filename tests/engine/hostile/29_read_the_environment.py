"""Reads the environment, also the block that the process was started with, its arguments and its home.

Must hold: nothing of the grader's is in it. (Where the interpreter lies is no secret.)
"""
# cell: added
import ctypes
import os
import sys

for name, value in os.environ.items():
    if name not in ("HOME", "TMPDIR", "PATH", "LANG", "OMP_NUM_THREADS", "TRITON_INTERPRET"):
        print("GOT", name, value)
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
place = 0
while environ and environ[place]:
    if b"CANARY" in environ[place]:
        print("GOT", environ[place])
    place += 1
print(sys.argv, sys.orig_argv, os.path.expanduser("~"))
for path in ("@HOME@/.netrc", "@HOME@/.ssh/id_rsa", "~root", os.path.expanduser("~/.bashrc")):
    try:
        print("GOT", open(path).read())
    except OSError:
        pass
import pwd

try:
    print("GOT", pwd.getpwuid(0), pwd.getpwuid(os.getuid()))
except KeyError:
    pass
