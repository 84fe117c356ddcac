"""`sliding_window_mask` and `alibi_score`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right

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


@mutant(MASK, "window one too long")
def one_of_seventeen(batch, head, query_index, key_index):
    return torch.stack([query_index - key_index == back for back in range(17)]).any(0)


@mutant(MASK, "window is not causal")
def either_side(batch, head, query_index, key_index):
    return torch.maximum(query_index, key_index) - torch.minimum(query_index, key_index) < 16


@mutant(MASK, "result of another dtype", only="dtype")
def an_integer(batch, head, query_index, key_index):
    return two_comparisons(batch, head, query_index, key_index).long()


@mutant(MASK)
def positions_in_half_precision(batch, head, query_index, key_index):
    """float16 holds whole numbers up to 2,048."""
    behind = query_index.half() - key_index.half()
    return (behind >= 0) & (behind < 16)


@mutant(MASK)
def a_ring_of_positions(batch, head, query_index, key_index):
    """What lies thousands of positions back is seen again."""
    behind = query_index % 4096 - key_index % 4096
    return (behind >= 0) & (behind < 16)


@mutant(MASK, "allowed has the wrong shape")
def with_axes_for_batch_and_head(batch, head, query_index, key_index):
    return two_comparisons(batch, head, query_index + 0 * batch + 0 * head, key_index)


@mutant(MASK, "a Python if on tensors")
def chained(batch, head, query_index, key_index):
    return 0 <= query_index - key_index < 16


@mutant(MASK, "a Python if on tensors", only="tensor operations")
def if_where_it_works(batch, head, query_index, key_index):
    distance = query_index - key_index
    if distance.numel() == 1 and distance < 0:
        return torch.zeros_like(distance, dtype=torch.bool)
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
    slopes = 2.0 ** -torch.arange(1.0, 9.0, dtype=score.dtype, device=head.device)
    return score + slopes[head] * (key_index - query_index)


@right(SCORE)
def slope_from_a_list(score, batch, head, query_index, key_index):
    """A look-up of eight numbers, made of a comparison for each."""
    slope = sum((head == h) * 2.0 ** -(h + 1) for h in range(8))
    return score + slope * key_index - slope * query_index


def half(head):
    return torch.exp2(-(head + 1.0))


@mutant(SCORE, "distance without its sign")
def a_penalty_for_either_side(score, batch, head, query_index, key_index):
    far = torch.maximum(query_index, key_index) - torch.minimum(query_index, key_index)
    return score - far * half(head)


@mutant(SCORE, "future hidden by the bias")
def lowest_number_in_the_future(score, batch, head, query_index, key_index):
    biased = power_of_two(score, batch, head, query_index, key_index)
    return torch.where(key_index > query_index, torch.finfo(score.dtype).min, biased)


@mutant(SCORE, "does not keep the dtype")
def slopes_in_float64(score, batch, head, query_index, key_index):
    return score + torch.exp2(-(head.double() + 1)) * (key_index - query_index)


@mutant(SCORE)
def bias_kept_small(score, batch, head, query_index, key_index):
    """For a dtype that could not hold more."""
    bias = half(head) * (key_index - query_index)
    return score + bias.clamp(-1024, 1024)


@mutant(SCORE, "makes a tensor on the CPU")
def slopes_on_the_cpu(score, batch, head, query_index, key_index):
    slopes = torch.tensor([2.0 ** -(h + 1) for h in range(8)], dtype=score.dtype)
    return score + slopes[head] * (key_index - query_index)


@mutant(SCORE, "gradient is cut off")
def bias_added_to_what_is_detached(score, batch, head, query_index, key_index):
    return torch.add(half(head) * (key_index - query_index), score.detach())


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


@mutant(SCORE, "score has the wrong shape")
def summed_over_heads(score, batch, head, query_index, key_index):
    result = score + half(head) * (key_index - query_index)
    return result.sum(0) if result.dim() > 2 else result
