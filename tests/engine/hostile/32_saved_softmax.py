"""Keeps a reference to the forbidden torch.softmax under another name, from before anybody could have banned it.

Must hold: calls are seen below Python's names. (A deterrent all the same: see 33.)
"""
# cell: added
import torch

normalise = [torch.softmax, torch.nn.functional.softmax, torch.Tensor.softmax][0]
torch.softmax = None
# cell: solution softmax
def softmax(scores, dim=-1):
    return normalise(scores, dim)
# cell: plain softmax
def softmax(scores, dim=-1):
    return torch.softmax(scores, dim)
