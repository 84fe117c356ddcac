"""Calls the forbidden torch.softmax in another thread, where nobody watches.

Not promised to be found: a forbidden function is a deterrent, and a person should look. What must hold is the rest.
"""
# cell: added
import threading

import torch


def elsewhere(scores, dim):
    box = []
    thread = threading.Thread(target=lambda: box.append(torch.softmax(scores, dim)))
    thread.start(), thread.join()
    return box[0]
# cell: solution softmax
def softmax(scores, dim=-1):
    return elsewhere(scores, dim)
# cell: plain softmax
def softmax(scores, dim=-1):
    shifted = scores - scores.amax(dim, keepdim=True).detach()
    return shifted.exp() / shifted.exp().sum(dim, keepdim=True)
