"""`causal_mask`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right


def refuse(S_q, S_k):
    if S_q > S_k:
        raise ValueError("too many queries")


@right("causal_mask")
def compares_positions(S_q, S_k):
    refuse(S_q, S_k)
    return torch.arange(S_k) <= torch.arange(S_k - S_q, S_k).unsqueeze(-1)


@right("causal_mask")
def last_rows_of_the_square(S_q, S_k):
    refuse(S_q, S_k)
    return torch.tril(torch.ones((S_k, S_k))).bool()[S_k - S_q :]


@right("causal_mask")
def loops(S_q, S_k):
    refuse(S_q, S_k)
    mask = torch.zeros(S_q, S_k, dtype=torch.bool)
    for i in range(S_q):
        for j in range(S_k):
            mask[i, j] = j <= i + S_k - S_q
    return mask


@right("causal_mask")
def not_the_upper_triangle(S_q, S_k):
    refuse(S_q, S_k)
    return ~torch.ones(S_q, S_k, dtype=torch.bool).triu(S_k - S_q + 1)


def ones(S_q, S_k):
    return torch.ones(S_q, S_k, dtype=torch.bool)


@mutant("causal_mask", "aligned at the top left")
def top_left(S_q, S_k):
    refuse(S_q, S_k)
    return ones(S_q, S_k).tril()


@mutant("causal_mask", "a query cannot see itself")
def strictly_below(S_q, S_k):
    refuse(S_q, S_k)
    return ones(S_q, S_k).tril(S_k - S_q - 1)


@mutant("causal_mask", "a query sees one key too many")
def one_too_many(S_q, S_k):
    return ones(S_q, S_k).tril(S_k - S_q + 1)


@mutant("causal_mask", "True where attention is forbidden")
def inverted(S_q, S_k):
    return ~ones(S_q, S_k).tril(S_k - S_q)


@mutant("causal_mask", "nothing is hidden")
def all_allowed(S_q, S_k):
    return ones(S_q, S_k)


@mutant("causal_mask", "upper triangle")
def upper(S_q, S_k):
    return ones(S_q, S_k).triu(S_k - S_q)


@mutant("causal_mask", "upper triangle")
def upper_top_left(S_q, S_k):
    return ones(S_q, S_k).triu()


@mutant("causal_mask", "moved the wrong way")
def wrong_way(S_q, S_k):
    refuse(S_q, S_k)
    return ones(S_q, S_k).tril(S_q - S_k)


@mutant("causal_mask", "mask is square")
def square(S_q, S_k):
    return ones(S_k, S_k).tril()


@mutant("causal_mask", "upper triangle")
def swapped(S_q, S_k):
    refuse(S_q, S_k)
    return ones(S_q, S_k).tril(S_k - S_q).mT


@mutant("causal_mask", "mask is not bool", only="dtype")
def floats(S_q, S_k):
    refuse(S_q, S_k)
    return torch.ones(S_q, S_k).tril(S_k - S_q)


@mutant("causal_mask", "sizes are not compared", only="refuses")
def takes_anything(S_q, S_k):
    return ones(S_q, S_k).tril(S_k - S_q)


@mutant("causal_mask", only="one query")
def one_query_sees_one(S_q, S_k):
    refuse(S_q, S_k)
    return ones(S_q, S_k).tril(S_k - S_q if S_q > 1 else 0)


@mutant("causal_mask", only="cached decoding")
def top_left_but_one_query(S_q, S_k):
    refuse(S_q, S_k)
    return ones(S_q, S_k).tril() if S_q > 1 else ones(S_q, S_k)


@mutant("causal_mask", only="full pass")
def nothing():
    return None
