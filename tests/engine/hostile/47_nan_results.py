"""Returns nan, inf and the largest numbers, in every place or in one.

Must hold: nan is close to nothing.
"""
# cell: solution dot_scores
import torch

count = 0


def dot_scores(query, key):
    global count
    count += 1
    value = (torch.nan, torch.inf, -torch.inf)[count % 3]
    return (query @ key.transpose(-2, -1)) * value
# cell: plain dot_scores
def dot_scores(query, key):
    return None
