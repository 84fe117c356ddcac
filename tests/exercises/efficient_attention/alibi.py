"""`alibi_bias`: right writings and mutants."""

from __future__ import annotations

import math

import torch

from tests.exercises.catalogue import mutant, right

NAME = "alibi_bias"


def published(heads):
    """The recursion as it is published."""

    def of_a_power(n):
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(heads).is_integer():
        return of_a_power(heads)
    power = 2 ** math.floor(math.log2(heads))
    return of_a_power(power) + published(2 * power)[0::2][: heads - power]


@right(NAME)
def by_recursion(num_heads, length_q, length_k):
    slopes = torch.tensor(published(num_heads), dtype=torch.float32)
    distance = torch.arange(length_k)[None, :] - torch.arange(length_q)[:, None]
    return slopes[:, None, None] * distance[None]


@right(NAME)
def number_by_number(num_heads, length_q, length_k):
    power = 1
    while power * 2 <= num_heads:
        power *= 2
    exponents = [8 * (h + 1) / power for h in range(power)]
    exponents += [4 * (2 * h + 1) / power for h in range(num_heads - power)]
    rows = [[[2**-e * (j - i) for j in range(length_k)] for i in range(length_q)] for e in exponents]
    return torch.tensor(rows, dtype=torch.float32)


@right(NAME)
def by_einsum(num_heads, length_q, length_k):
    power = 1 << (num_heads.bit_length() - 1)
    first = torch.logspace(-8 / power, -8, power, base=2.0, dtype=torch.float32)
    rest = torch.logspace(-4 / power, -8, 2 * power, base=2.0, dtype=torch.float32)[::2]
    rest = rest[: num_heads - power]
    i, j = torch.arange(length_q, dtype=torch.float32), torch.arange(length_k, dtype=torch.float32)
    distance = j.unsqueeze(0) - i.unsqueeze(1)
    return torch.einsum("h,qk->hqk", torch.cat((first, rest)), distance)


@mutant(NAME, "the formula for powers of two used for all")
def a_geometric_sequence_for_any_number(num_heads, length_q, length_k):
    first = 2.0 ** (-8 / num_heads)
    made = torch.tensor([first ** (h + 1) for h in range(num_heads)], dtype=torch.float32)
    rows = [made[:, None] * (torch.arange(length_k) - i) for i in range(length_q)]
    return torch.stack(rows, 1)


@mutant(NAME, "distance without its sign")
def a_band_on_either_side(num_heads, length_q, length_k):
    far = torch.cdist(torch.arange(length_q).view(-1, 1).float(), torch.arange(length_k).view(-1, 1).float())
    return -torch.tensor(published(num_heads), dtype=torch.float32).view(-1, 1, 1) * far


@mutant(NAME, "bias has the wrong shape")
def one_head_squeezed(num_heads, length_q, length_k):
    return by_recursion(num_heads, length_q, length_k).squeeze(0)


@mutant(NAME, "the formula for powers of two used for all")
def at_least_four_heads(num_heads, length_q, length_k):
    first = 2.0 ** (-8 / max(4, num_heads))
    made = torch.tensor([first ** (h + 1) for h in range(num_heads)], dtype=torch.float32)
    return made.view(-1, 1, 1) * (torch.arange(length_k) - torch.arange(length_q).unsqueeze(-1))


@mutant(NAME, "does not keep the dtype")
def numbers_of_the_default_dtype(num_heads, length_q, length_k):
    slopes = torch.tensor(published(num_heads)).view(-1, 1, 1)
    return slopes * (torch.arange(length_k) - torch.arange(length_q).unsqueeze(-1))


@mutant(NAME)
def distances_in_half_precision(num_heads, length_q, length_k):
    """float16 holds whole numbers up to 2,048."""
    distance = torch.arange(length_k).half() - torch.arange(length_q).half().unsqueeze(-1)
    return torch.tensor(published(num_heads), dtype=torch.float32).view(-1, 1, 1) * distance.float()


kept: dict[tuple[int, int], torch.Tensor] = {}


@mutant(NAME, None)
def a_table_for_each_number_of_heads(num_heads, length_q, length_k):
    """What one caller writes into it, the next one is given."""
    length = max(length_q, length_k)
    if (num_heads, length) not in kept:
        kept[num_heads, length] = by_recursion(num_heads, length, length)
    return kept[num_heads, length][:, :length_q, :length_k]
