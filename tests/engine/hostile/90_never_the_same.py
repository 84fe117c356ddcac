"""Random results, a clock in the results, results that depend on how often it was called.

Must hold: what is right by chance is not right.
"""
# cell: solution dot_scores
import os
import random
import time

import torch

random.seed(os.urandom(8))
calls = 0


def dot_scores(query, key):
    global calls
    calls += 1
    right = query @ key.transpose(-2, -1)
    return right if random.random() < 0.5 else right + time.time() + calls
# cell: plain dot_scores
def dot_scores(query, key):
    return query @ key.transpose(-2, -1)
# cell: solution why_scale
why_scale = random.choice("abd")
# cell: plain why_scale
why_scale = "d"
