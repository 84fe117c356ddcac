"""Answers with tensors, tuples and numbers wherever the judge expects words.

Must hold: no answer makes the judge stumble; the honest cells stay ungraded by its own doing.
"""
# spoils
# cell: added
import torch
import signal

loop = signal.getsignal(signal.SIGALRM).__globals__
real_send = loop["send"]


def forged(channel, message, *args):
    many = torch.zeros(3)
    if "outputs" in message:
        message = {**message, "outputs": [{"kind": many, "text": many}, many, None, {"kind": "png", "text": 1}], "error": many}
    elif "flops" in message:
        message = {**message, "flops": many, "calls": [many], "after": [many]}
    elif "kind" in message:
        message = {**message, "kind": many, "object": many, "value": many}
    elif "call" in message:
        message = {**message, "call": many}
    real_send(channel, {**message, "raised": many if "raised" in message else None}, *args)


loop["send"] = forged
