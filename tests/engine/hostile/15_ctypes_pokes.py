"""Writes into memory: turns cached small numbers into others, and inputs behind torch's back.

Must hold: the judge's memory is elsewhere; the inputs it compares with are its own copies.
"""
# cell: added
import ctypes

value = 3.0
ctypes.memmove(id(value) + 16, ctypes.byref(ctypes.c_double(100.0)), 8)
# cell: solution dot_scores
import ctypes

import torch


def dot_scores(query, key):
    for tensor in (query, key):
        ctypes.memset(tensor.data_ptr(), 0, tensor.element_size())
    return torch.zeros(*query.shape[:-1], key.shape[-2])
# cell: plain dot_scores
import torch


def dot_scores(query, key):
    return torch.zeros(*query.shape[:-1], key.shape[-2])
