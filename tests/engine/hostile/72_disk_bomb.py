"""Fills its folder, writes one huge file, makes a hundred thousand small ones.

Must hold: the folder has a size, a file has a size, files have a number.
"""
# cell: added
import os

written = 0
try:
    for number in range(1000):
        with open(f"part{number}", "wb") as file:
            written += file.write(b"0" * (1 << 20))
except OSError:
    pass
if written > 8 << 20:
    print("GOT", written)
for name in os.listdir("."):
    if name.startswith("part"):
        os.unlink(name)
try:
    with open("huge", "wb") as file:
        file.write(b"0" * (5 << 20))
        print("GOT", file.tell())
except OSError:
    pass
try:
    for number in range(100_000):
        open(f"small{number}", "w").close()
    print("GOT", number)
except OSError:
    pass
