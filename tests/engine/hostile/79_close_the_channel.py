"""Closes all its files, the channel to the judge among them, and works on.

Must hold: that ends the submission, with the reason; it is not the machine that has failed.
"""
# ends: closed its connection|ended itself
# cell: solution dot_scores
import os
import time


def dot_scores(query, key):
    os.closerange(0, 256)
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
