# mypy: ignore-errors
"""Ivan left an experiment behind: his attention raises."""


def attention(query, key, value, attn_mask=None, is_causal=False):
    scores = query @ key
    return scores.softmax(-1) @ value, scores
