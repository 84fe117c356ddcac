"""Answers with a tensor blob that is none: garbage, an index of millions of empty tensors, offsets beyond the end.

Must hold: that is a malformed answer, refused before much is made of it.
"""
# ends: the process sent
# cell: added
import json
import struct
import sys

frame = sys._getframe()
while frame and frame.f_code.co_name != "serve":
    frame = frame.f_back
loop = frame.f_globals
real_send, channel = loop["send"], frame.f_locals["channel"]

ticket = frame.f_locals["ticket"]
document = json.dumps({"d": {"ticket": ticket, "outputs": {"t": "0"}}}).encode()
index = json.dumps({str(n): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(100_000)}).encode()
blob = struct.pack("<Q", len(index)) + index
channel.sendall(struct.pack(">II", len(document), len(blob)) + document + blob)
