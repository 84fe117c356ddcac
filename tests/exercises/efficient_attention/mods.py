"""`sliding_window_mask` and `alibi_score`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.lazy import register

MASK, SCORE = "sliding_window_mask", "alibi_score"


@right(MASK)
def two_comparisons(batch, head, query_index, key_index):
    return (key_index <= query_index) & (key_index > query_index - 16)


@right(MASK)
def by_logical_and(batch, head, query_index, key_index):
    behind = torch.sub(query_index, key_index)
    return torch.logical_and(behind.ge(0), behind.lt(16))


@right(MASK)
def by_clamp(batch, head, query_index, key_index):
    behind = query_index - key_index
    return behind == behind.clamp(0, 15)


def mask(name, named, near, only=None):
    register(MASK, name, named, lambda batch, head, q, k: near(q - k), only)


mask("one_too_long", "window one too long", lambda d: (d >= 0) & (d <= 16), only="every pair")
mask("one_too_short", "window one too short", lambda d: (d >= 0) & (d < 15))
mask("both_sides", "window is not causal", lambda d: d.abs() < 16)
mask("all_the_past", "no window", lambda d: d >= 0)
mask("future_seen", "the future is not hidden", lambda d: d < 16)
mask("present_hidden", "window hides the present", lambda d: (d > 0) & (d < 16))
mask("the_next_ones", "window turned round", lambda d: (d <= 0) & (d > -16))
mask("hidden_where_true", "mask turned round", lambda d: ~((d >= 0) & (d < 16)))
mask("either", "either condition is enough", lambda d: (d >= 0) | (d < 16))
mask("nothing_allowed", "nothing is allowed", lambda d: d != d)
mask("an_integer", "result of another dtype", lambda d: ((d >= 0) & (d < 16)).long(), only="dtype")
mask("a_float", "result of another dtype", lambda d: ((d >= 0) & (d < 16)).float())
mask("nothing_returned", "does not return what is asked for", lambda d: None)
mask("a_word", "does not return what is asked for", lambda d: "causal")


@mutant(MASK, "a Python if on tensors")
def with_if(batch, head, query_index, key_index):
    if query_index < key_index:
        return torch.tensor(False)
    return query_index - key_index < 16


@mutant(MASK, "a Python if on tensors")
def with_and(batch, head, query_index, key_index):
    return query_index >= key_index and query_index - key_index < 16


@mutant(MASK, "a Python if on tensors")
def chained(batch, head, query_index, key_index):
    return 0 <= query_index - key_index < 16


@mutant(MASK, "a Python if on tensors", only="tensor operations")
def if_where_it_works(batch, head, query_index, key_index):
    distance = query_index - key_index
    if distance.numel() == 1 and distance < 0:
        return torch.zeros_like(distance, dtype=torch.bool)
    return (distance >= 0) & (distance < 16)


@mutant(MASK, "a Python if on tensors")
def numbers_where_they_are(batch, head, query_index, key_index):
    distance = query_index - key_index
    if distance.numel() == 1:
        return torch.full_like(distance, 0 <= distance.item() < 16, dtype=torch.bool)
    return (distance >= 0) & (distance < 16)


@mutant(MASK, "indexing by a mask")
def picked_by_a_mask(batch, head, query_index, key_index):
    distance = query_index - key_index
    allowed = distance >= 0
    allowed[distance >= 16] = False
    return allowed


@mutant(MASK, "a table where a formula is meant")
def looked_up(batch, head, query_index, key_index):
    table = torch.ones(2100, 2100, dtype=torch.bool).tril() & ~torch.ones(2100, 2100, dtype=torch.bool).tril(
        -16
    )
    return table[query_index.long(), key_index.long()]


@mutant(MASK, "allowed has the wrong shape")
def its_own_grid(batch, head, query_index, key_index):
    positions = torch.arange(64)
    distance = positions[:, None] - positions
    return (distance >= 0) & (distance < 16)


@right(SCORE)
def power_of_two(score, batch, head, query_index, key_index):
    return score - (query_index - key_index) * 0.5 ** (head + 1)


@right(SCORE)
def by_exponential(score, batch, head, query_index, key_index):
    slope = torch.pow(2.0, -8.0 * (head + 1) / 8)
    return torch.add(score, slope * (key_index - query_index))


@right(SCORE)
def a_table_of_slopes(score, batch, head, query_index, key_index):
    slopes = 2.0 ** -torch.arange(1.0, 9.0)
    return score + slopes[head] * (key_index - query_index)


@right(SCORE)
def slope_from_a_list(score, batch, head, query_index, key_index):
    """A look-up of eight numbers, made of a comparison for each."""
    slope = sum((head == h) * 2.0 ** -(h + 1) for h in range(8))
    return score + slope * key_index - slope * query_index


def half(head):
    return torch.exp2(-(head + 1.0))


def score_mod(name, named, made, only=None):
    register(SCORE, name, named, lambda score, batch, head, q, k: made(score, head, (k - q)), only)


score_mod("from_one", "slopes begin at one", lambda s, h, d: s + torch.exp2(-1.0 * h) * d, only="every pair")
score_mod("one_slope", "the same slope for every head", lambda s, h, d: s + 0.5 * d)
score_mod("reversed_heads", "slopes in the reverse order", lambda s, h, d: s + torch.exp2(h - 8.0) * d)
score_mod("no_slope", "no slope", lambda s, h, d: s + d)
score_mod("growing", "slopes grow", lambda s, h, d: s + torch.exp2(h + 1.0) * d)
score_mod("positive_past", "sign turned round", lambda s, h, d: s - half(h) * d)
score_mod("bias_alone", "score left out", lambda s, h, d: half(h) * d)
score_mod("multiplied", "score multiplied by the bias", lambda s, h, d: s * half(h) * d)
score_mod("unchanged", "score not changed", lambda s, h, d: s)
score_mod("absolute", "distance without its sign", lambda s, h, d: s - half(h) * d.abs())
score_mod(
    "future_hidden",
    "future hidden by the bias",
    lambda s, h, d: torch.where(d > 0, -torch.inf, s + half(h) * d),
)
score_mod("clamped", "no bias in the future", lambda s, h, d: s + half(h) * d.clamp_max(0))
score_mod("detached", "gradient is cut off", lambda s, h, d: s.detach() + half(h) * d, only="gradient")
score_mod("nothing_returned", "does not return what is asked for", lambda s, h, d: None)


@mutant(SCORE, "a Python if on tensors")
def if_on_the_diagonal(score, batch, head, query_index, key_index):
    if query_index == key_index:
        return score
    return score + half(head) * (key_index - query_index)


@mutant(SCORE, "a Python if on tensors", only="tensor operations")
def a_number_for_the_slope(score, batch, head, query_index, key_index):
    if head.numel() == 1:
        return score + 2.0 ** -(int(head) + 1) * (key_index - query_index)
    return score + half(head) * (key_index - query_index)


@mutant(SCORE, "a Python if on tensors")
def a_list_of_slopes(score, batch, head, query_index, key_index):
    slopes = [2.0 ** -(h + 1) for h in range(8)]
    return score + slopes[head] * (key_index - query_index)


@mutant(SCORE, "a table where a formula is meant")
def a_table_of_distances(score, batch, head, query_index, key_index):
    positions = torch.arange(2100)
    table = positions[None, :] - positions[:, None]
    return score + half(head) * table[query_index.long(), key_index.long()]


@mutant(SCORE, "indexing by a mask")
def written_by_a_mask(score, batch, head, query_index, key_index):
    bias = half(head) * (key_index - query_index)
    bias[bias == 0] = 0.0
    return score + bias


@mutant(SCORE, "score has the wrong shape")
def summed_over_heads(score, batch, head, query_index, key_index):
    result = score + half(head) * (key_index - query_index)
    return result.sum(0) if result.dim() > 2 else result
