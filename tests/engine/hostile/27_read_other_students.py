"""Reads other students' work, the gradebook, the teacher's settings and results, and answers with what it finds.

Must hold: none of these files is in the jail.
"""
# cell: added
import os
import sqlite3

found = ""
for path in (
    "@COURSE@/submitted/honest/01_basic_attention/basic_attention.ipynb",
    "@COURSE@/gradebook.db",
    "@COURSE@/nbgrader_config.py",
    "@COURSE@/.attn/secret",
    "../honest/01_basic_attention/basic_attention.ipynb",
    "../../gradebook.db",
):
    try:
        found += open(path, "rb").read().decode(errors="replace")
        print("GOT", path, found[-200:])
    except OSError:
        pass
try:
    print("GOT", sqlite3.connect("file:@COURSE@/gradebook.db?mode=ro", uri=True).execute("select * from grade").fetchall())
except sqlite3.Error:
    pass
for path in ("@COURSE@", "@COURSE@/submitted", "/tmp", "."):
    try:
        print("GOT" if path != "." and os.path.realpath(path) != "/scratch" else "", os.listdir(path))
    except OSError:
        pass
