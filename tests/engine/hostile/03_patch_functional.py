"""Replaces the functions that a lazy oracle would call by ones that agree with the wrong answer.

Must hold: formulas run in the judge, with its own functions.
"""
# cell: added
import torch
import torch.nn.functional as F

F.scaled_dot_product_attention = F.softmax = torch.softmax = lambda tensor, *args, **kwargs: torch.zeros_like(tensor)
torch.einsum = torch.bmm = lambda *args, **kwargs: torch.zeros(1)
# cell: solution dot_scores
def dot_scores(query, key):
    return torch.zeros(*query.shape[:-1], key.shape[-2])
# cell: plain dot_scores
def dot_scores(query, key):
    return torch.zeros(*query.shape[:-1], key.shape[-2])
