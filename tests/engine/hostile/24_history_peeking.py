"""Reads IPython's history, output cache and user namespace for grade cells and seeds.

Must hold: grade cells never come to this process.
"""
# cell: added
shell = get_ipython()
texts = [str(shell.user_ns.get(name)) for name in ("In", "Out", "_ih", "_oh", "_dh", "_i", "_ii", "_i1")]
try:
    texts += [str(line) for line in shell.history_manager.get_range()]
    texts += [str(line) for line in shell.history_manager.get_tail(1000, include_latest=True)]
except Exception as error:
    print(type(error).__name__)
shell.run_line_magic("history", "-g grade")
import sqlite3

for text in texts:
    if "grade(" in text or "seed" in text:
        print("GOT", text[:100])
