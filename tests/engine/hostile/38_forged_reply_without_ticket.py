"""Finds the channel to the judge among its open files, and writes an answer before it is asked.

Must hold: an answer without the ticket of the question ends the worker.
"""
# ends: a question that was not asked
# cell: added
import json
import os
import socket
import stat
import struct

for number in range(3, 256):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            document = json.dumps({"d": {"ticket": "0" * 16, "kind": "value", "value": 100.0}}).encode()
            os.write(number, struct.pack(">II", len(document), 0) + document)
    except OSError:
        pass
