"""Asks the model without end, whatever it answers, in every call.

Must hold: it is told so, then stopped when its time is up; the model works for it a bounded number of times.
"""
# of: text_generation
# cell: helper
import torch
# cell: solution generate
def generate(model, prompt, *args, **kwargs):
    while True:
        try:
            model(torch.zeros(2, 1_000, dtype=torch.int64))
        except Exception:
            pass
# cell: plain generate
def generate(model, prompt, *args, **kwargs):
    raise ValueError
