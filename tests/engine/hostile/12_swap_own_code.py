"""A function that answers from the code object of a library function that was swapped under a trusted name.

Must hold: whatever code runs, its numbers are compared.
"""
# cell: solution dot_scores
import torch


def zeros_of_the_right_shape(query, key):
    return torch.zeros(*query.shape[:-1], key.shape[-2])


def dot_scores(query, key):
    return query @ key.transpose(-2, -1)


dot_scores.__code__ = zeros_of_the_right_shape.__code__
# cell: plain dot_scores
import torch


def dot_scores(query, key):
    return torch.zeros(*query.shape[:-1], key.shape[-2])
