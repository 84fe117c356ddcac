"""`alibi_bias`: right writings and mutants."""

from __future__ import annotations

import math

import torch

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.lazy import register, without_a_tensor

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
    return torch.tensor(rows)


@right(NAME)
def by_einsum(num_heads, length_q, length_k):
    power = 1 << (num_heads.bit_length() - 1)
    first = torch.logspace(-8 / power, -8, power, base=2.0)
    rest = torch.logspace(-4 / power, -8, 2 * power, base=2.0)[::2][: num_heads - power]
    i, j = torch.arange(length_q, dtype=torch.float32), torch.arange(length_k, dtype=torch.float32)
    distance = j.unsqueeze(0) - i.unsqueeze(1)
    return torch.einsum("h,qk->hqk", torch.cat((first, rest)), distance)


def power_below(heads):
    return 2 ** int(math.log2(heads))


def plain(heads):
    return 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1))


def slopes(heads, pick=lambda s: s[::2]):
    power = power_below(heads)
    return torch.cat([plain(power), pick(plain(2 * power))[: heads - power]])


def signed(length_q, length_k):
    return torch.arange(length_k) - torch.arange(length_q).unsqueeze(-1)


def variant(name, named, *, only=None, made=slopes, distance=signed, leave=lambda bias: bias):
    """A mutant with other slopes or distances."""

    def wrong(num_heads, length_q, length_k):
        return leave(made(num_heads).view(-1, 1, 1) * distance(length_q, length_k))

    register(NAME, name, named, wrong, only)


variant("from_one", "slopes begin at one", made=lambda H: slopes(H) * 2.0 ** (8 / power_below(H)))
variant("reversed_heads", "slopes in the reverse order", made=lambda H: slopes(H).flip(0))
variant(
    "halving", "slopes halve from head to head", made=lambda H: 2.0 ** -torch.arange(1.0, H + 1), only=None
)
variant("one_slope", "the same slope for every head", made=lambda H: torch.full((H,), 2.0 ** (-8 / H)))
variant("even_steps", "slopes in even steps", made=lambda H: torch.arange(H, 0, -1) / H)
variant("to_the_base_e", "slopes to the base e", made=lambda H: torch.log2(slopes(H)).exp())
variant(
    "formula_for_all", "the formula for powers of two used for all", made=plain, only="other numbers of heads"
)
variant(
    "cut_off", "slopes of the next power, cut off",
    made=lambda H: plain(H) if power_below(H) == H else plain(2 * power_below(H))[:H],
)  # fmt: skip
variant("not_interleaved", "missing slopes not interleaved", made=lambda H: slopes(H, lambda s: s))
variant(
    "from_the_second", "missing slopes begin with the second", made=lambda H: slopes(H, lambda s: s[1::2])
)
variant(
    "from_the_end", "missing slopes taken from the end", made=lambda H: slopes(H, lambda s: s[::2].flip(0))
)
variant("in_order", "all slopes sorted", made=lambda H: slopes(H).sort(descending=True).values)
variant("positive_past", "sign turned round", distance=lambda q, k: -signed(q, k), only="powers of two")
variant("absolute", "distance without its sign", distance=lambda q, k: -signed(q, k).abs())
variant("clamped", "no bias in the future", distance=lambda q, k: signed(q, k).clamp_max(0))
variant(
    "future_hidden", "future hidden by the bias",
    distance=lambda q, k: signed(q, k).float().masked_fill(signed(q, k) > 0, -torch.inf),
)  # fmt: skip
variant(
    "key_alone", "distance not counted from the query", distance=lambda q, k: torch.arange(k).expand(q, k)
)
variant(
    "at_the_end",
    "positions aligned at the end",
    distance=lambda q, k: signed(q, k) - (k - q),
    only="unequal lengths",
)
variant("off_by_one", "distance is off by one", distance=lambda q, k: signed(q, k) - 1)
variant("float64_comes_back", "result of another dtype", leave=lambda bias: bias.double(), only="dtype")
variant("one_table", "bias has the wrong shape", leave=lambda bias: bias[0])
variant("a_batch_axis", "bias has the wrong shape", leave=lambda bias: bias.unsqueeze(0))


@mutant(NAME, "bias has the wrong shape", only="few heads")
def one_head_squeezed(num_heads, length_q, length_k):
    bias = slopes(num_heads).view(-1, 1, 1) * signed(length_q, length_k)
    return bias.squeeze(0)


@mutant(NAME, None)
def at_least_four_heads(num_heads, length_q, length_k):
    first = 2.0 ** (-8 / max(4, num_heads))
    made = torch.tensor([first ** (h + 1) for h in range(num_heads)])
    return made.view(-1, 1, 1) * signed(length_q, length_k)


register(NAME, "zeros", "no bias at all", lambda H, q, k: torch.zeros(H, q, k))
register(NAME, "random", None, lambda H, q, k: torch.rand(H, q, k))
without_a_tensor(NAME, lambda H, q, k: torch.zeros(H, q, k))
