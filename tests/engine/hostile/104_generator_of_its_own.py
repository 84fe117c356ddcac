"""Draws from a generator of its own, which counts the calls, and forges the state that goes back for the one it was given.

Must hold: a state goes back into the judge's generator as a state or not at all; who does not use it is found out.
"""
# of: text_generation
# cell: helper
@sample_next_token@
import torch

honest = sample_next_token
# cell: added
import signal

import torch

loop = signal.getsignal(signal.SIGALRM).__globals__
real_send, states = loop["send"], [torch.zeros(5_056, dtype=torch.uint8), torch.full((5_056,), 255, dtype=torch.uint8), [], None]


def forged(channel, message, *args):
    if message.get("generators"):
        message = {**message, "generators": [states.pop(0)] if states else message["generators"] * 2}
    real_send(channel, message, *args)


loop["send"] = forged
# cell: solution sample_next_token
def sample_next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    return honest(logits, temperature, top_k, top_p, torch.Generator().manual_seed(7))
# cell: plain sample_next_token
def sample_next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    return honest(logits, temperature, top_k, top_p, torch.Generator().manual_seed(7))
