"""Writes marks into the gradebook, with SQLite and with bytes, and deletes it.

Must hold: it is not in the jail.
"""
# cell: added
import os
import shutil
import sqlite3

for path in ("@COURSE@/gradebook.db", "gradebook.db", "../gradebook.db", "../../../gradebook.db"):
    try:
        with sqlite3.connect(path) as book:
            book.execute("update grade set auto_score = 100, manual_score = 100")
    except sqlite3.Error:
        pass
    for mode in ("ab", "wb"):
        try:
            with open(path, mode) as file:
                file.write(b"100")
        except OSError:
            pass
    try:
        os.unlink(path)
        os.rename("/scratch", path)
    except OSError:
        pass
shutil.rmtree("@COURSE@", ignore_errors=True)
