"""Reads address 0, in a call.

Must hold: what remains scores nothing, with the reason.
"""
# ends: segmentation fault
# cell: solution dot_scores
import ctypes


def dot_scores(query, key):
    ctypes.string_at(0)
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
