"""Hands the model a text of millions, a start of a hundred millions, rows without tokens, thousands of axes, and no tokens at all.

What the judge does for a student's code it does in its own time and memory.
Must hold: what is too much is refused in words, at once; the answer keeps its points, and so does everybody else.
"""
# of: text_generation
# cell: helper
@sample_next_token@
@generate@
honest = generate
# cell: solution generate
import torch

BURDENS = (
    (torch.zeros(4_000_000, dtype=torch.int64),),
    (torch.zeros(20_000, dtype=torch.int64),),
    (torch.zeros(2_000, 2_000, dtype=torch.int64),),
    (torch.zeros(30_000_000, 0, dtype=torch.int64),),
    (torch.zeros(0, 30_000_000, dtype=torch.int64),),
    (torch.zeros((1,) * 3_000, dtype=torch.int64),),
    (torch.zeros(1, dtype=torch.int64), 10**8),
    (torch.zeros(1, dtype=torch.int64), 2**62),
    (torch.zeros(1, dtype=torch.int64), "9" * 9_999),
    (torch.zeros(1, dtype=torch.int64), float("inf")),
    (torch.zeros(1, dtype=torch.int64), torch.zeros(3_000_000)),
)


def generate(model, prompt, *args, **kwargs):
    for burden in BURDENS:
        try:
            model(*burden)
        except Exception:
            pass
    return honest(model, prompt, *args, **kwargs)
# cell: plain generate
@generate@
