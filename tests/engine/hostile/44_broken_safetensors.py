"""Answers with a tensor blob that is none: garbage, an index of millions of empty tensors, offsets beyond the end.

Must hold: that is a malformed answer, refused before much is made of it.
"""
# ends: the process sent
# cell: added
import json
import signal
import struct

index = json.dumps({str(n): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(100_000)}).encode()
blob = struct.pack("<Q", len(index)) + index


def forged(channel, message, *args):
    document = json.dumps({"d": {"ticket": message["ticket"], "outputs": {"t": "0"}}}).encode()
    channel.sendall(struct.pack(">II", len(document), len(blob)) + document + blob)


signal.getsignal(signal.SIGALRM).__globals__["send"] = forged
