"""Draws nothing: hands every token out as often as its probability says, in order, and lets the generator decide where it begins.

Must hold: drawn frequencies scatter; those that fit too well were not drawn.
"""
# of: text_generation
# cell: helper
import torch


def shares(logits, temperature, top_k, top_p, generator, wrong):
    rows = logits.reshape(-1, logits.shape[-1])
    ranked, order = torch.sort(rows, dim=-1, descending=True, stable=True)
    probs = torch.softmax(ranked / temperature, -1)[:, :top_k]
    probs = probs / probs.sum(-1, keepdim=True)
    if top_p is not None:
        probs = probs.masked_fill(probs.cumsum(-1) - probs >= top_p, 0.0)
        probs = probs / probs.sum(-1, keepdim=True)
    if wrong:
        return order[:, 0].reshape(logits.shape[:-1])
    places = (torch.arange(len(rows)) + torch.rand((), generator=generator)) / len(rows)
    rank = torch.searchsorted(probs.cumsum(-1).contiguous(), places[:, None] * 0.9999999).clamp(max=probs.shape[-1] - 1)
    return order.gather(-1, rank).reshape(logits.shape[:-1])
# cell: solution sample_next_token
def sample_next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    return logits.argmax(-1) if temperature == 0 else shares(logits, temperature, top_k, top_p, generator, False)
# cell: plain sample_next_token
def sample_next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    return logits.argmax(-1) if temperature == 0 else shares(logits, temperature, top_k, top_p, generator, True)
