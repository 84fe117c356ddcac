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
        mask[i, : i + S_k - S_q + 1] = True
    return mask


@right("causal_mask")
def not_the_upper_triangle(S_q, S_k):
    refuse(S_q, S_k)
    return ~torch.ones(S_q, S_k, dtype=torch.bool).triu(S_k - S_q + 1)


def ones(S_q, S_k):
    return torch.ones(S_q, S_k, dtype=torch.bool)


@mutant("causal_mask", "nothing is hidden")
def all_allowed(S_q, S_k):
    return ones(S_q, S_k)


@mutant("causal_mask", "upper triangle")
def swapped(S_q, S_k):
    refuse(S_q, S_k)
    return ones(S_q, S_k).tril(S_k - S_q).mT


@mutant("causal_mask", "mask is not bool")
def floats(S_q, S_k):
    refuse(S_q, S_k)
    return torch.ones(S_q, S_k).tril(S_k - S_q)


@mutant("causal_mask", "sizes are not compared", only="refuses")
def takes_anything(S_q, S_k):
    return ones(S_q, S_k).tril(S_k - S_q)


@mutant("causal_mask")
def one_query_sees_one(S_q, S_k):
    refuse(S_q, S_k)
    return ones(S_q, S_k).tril(S_k - S_q if S_q > 1 else 0)


@mutant("causal_mask")
def top_left_but_one_query(S_q, S_k):
    refuse(S_q, S_k)
    return ones(S_q, S_k).tril() if S_q > 1 else ones(S_q, S_k)


@mutant("causal_mask")
def table_of_a_thousand(S_q, S_k):
    refuse(S_q, S_k)
    return ones(1000, 1000).tril()[S_k - S_q : S_k, :S_k]


@mutant("causal_mask")
def handed_out_again(S_q, S_k, made={}):  # noqa: B006
    refuse(S_q, S_k)
    if (S_q, S_k) not in made:
        made[S_q, S_k] = compares_positions(S_q, S_k)
    return made[S_q, S_k]
