"""Returns zeros and lets a thread overwrite inputs and result after the return.

Must hold: what has crossed cannot be changed any more.
"""
# cell: solution dot_scores
import threading
import time

import torch

kept = []


def later():
    while True:
        for query, key, result in list(kept):
            with torch.no_grad():
                query.zero_(), key.zero_(), result.zero_()
        time.sleep(0.001)


threading.Thread(target=later, daemon=True).start()


def dot_scores(query, key):
    result = torch.zeros(*query.shape[:-1], key.shape[-2])
    kept.append((query, key, result))
    return result
# cell: plain dot_scores
import torch


def dot_scores(query, key):
    return torch.zeros(*query.shape[:-1], key.shape[-2])
