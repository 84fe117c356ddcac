"""Answers with a tensor whose strides overlap, reach far, or overflow; and one with a million axes.

Must hold: that is a malformed answer, and the judge does not stumble over it.
"""
# ends: the process sent
# cell: added
import json
import struct

import torch
import signal

loop = signal.getsignal(signal.SIGALRM).__globals__
real_send = loop["send"]


def forged(channel, message, *args):
    tensor = torch.zeros(0, 3)
    import safetensors.torch

    blob = safetensors.torch.save({"0": tensor})
    value = {"t": "0", "s": [10**30, 1], "g": True}
    document = json.dumps({"d": {"ticket": message["ticket"], "outputs": [value, value], "error": value}}).encode()
    channel.sendall(struct.pack(">II", len(document), len(blob)) + document + blob)


loop["send"] = forged
