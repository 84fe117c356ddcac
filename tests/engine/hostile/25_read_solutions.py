"""Imports and opens the model solutions, wherever they may lie.

Must hold: they are not in the jail.
"""
# cell: added
import glob
import importlib
import os
import sys

sys.path += ["@REPO@", "@COURSE@", "/", "..", "../.."]
for name in ("solutions", "solutions.basic_attention", "course"):
    try:
        print("GOT", importlib.import_module(name))
    except ImportError:
        pass
for path in ("@REPO@/solutions/basic_attention.py", "@REPO@/course/source", "@COURSE@/source/01_basic_attention/basic_attention.ipynb"):
    try:
        print("GOT", open(path).read()[:50])
    except OSError:
        pass
for root in ("/srv", "/home", "/root", "/opt", "/mnt", "/var", "/usr/share/course", "@COURSE@"):
    for path in glob.glob(f"{root}/**/basic_attention*", recursive=True):
        print("GOT", path)
