"""Looks for files that were left open in the worker: the zygote's socket, /proc, the terminal, another worker's channel.

Must hold: there are stdin, stdout and stderr on /dev/null, and one socket.
"""
# cell: added
import os
import stat

sockets = 0
for number in range(256):
    try:
        kind = os.fstat(number)
    except OSError:
        continue
    if stat.S_ISSOCK(kind.st_mode):
        sockets += 1
    elif (number > 2 or os.isatty(number) or kind.st_rdev != os.makedev(1, 3)) and os.readlink is not None:
        print("GOT", number, oct(kind.st_mode))
    for path in ("1/environ", "self/maps", "../etc/passwd"):
        try:
            print("GOT", os.open(path, os.O_RDONLY, dir_fd=number))
        except OSError:
            pass
if sockets != 1:
    print("GOT", sockets)
