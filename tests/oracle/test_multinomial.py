"""The bound on how far a sample may be from its distribution."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from autograder.oracle.generation import aligned, beams, kept
from autograder.oracle.multinomial import divergence, largest_divergence, too_even


@pytest.mark.parametrize("kept_tokens", [2, 4, 9])
def test_the_bound_holds_at_a_rate_that_can_be_seen(kept_tokens: int) -> None:
    """At a false-alarm rate of 1 in 20 no more than that share of right samples exceeds it (and far fewer do)."""
    generator = torch.Generator().manual_seed(1)
    probs = torch.rand(kept_tokens, generator=generator, dtype=torch.float64).softmax(0)
    bound = largest_divergence(400, kept_tokens, 0.05)
    drawn = torch.multinomial(probs.expand(500, -1), 400, replacement=True, generator=generator)
    exceeded = sum(divergence(torch.bincount(row, minlength=kept_tokens), probs) > bound for row in drawn)
    assert exceeded <= 25


def test_the_bound_is_the_exact_tail_or_more_for_a_coin() -> None:
    """All outcomes of 60 tosses, by their exact probabilities."""
    probs, n = torch.tensor([0.3, 0.7], dtype=torch.float64), 60
    for rate in (1e-2, 1e-4, 1e-8):
        bound = largest_divergence(n, 2, rate)
        tail = sum(
            math.comb(n, heads) * 0.3**heads * 0.7 ** (n - heads)
            for heads in range(n + 1)
            if divergence(torch.tensor([heads, n - heads]), probs) > bound
        )
        assert tail <= rate


def test_a_temperature_that_is_off_by_a_fifth_is_seen_in_12_000_draws() -> None:
    logits = torch.tensor([2.4, 1.7, 1.1, 0.6, 0.0, -0.7, -1.5], dtype=torch.float64)
    truth, other = kept(logits, 1.0), kept(logits, 1.2)
    assert divergence(other * 12_000, truth) > 1.5 * largest_divergence(12_000, 7, 1e-8)


def test_what_top_k_and_top_p_keep() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64).log()
    assert (kept(logits, top_p=0.79) > 0).tolist() == [True, True, False, False]
    assert (kept(logits, top_p=0.81) > 0).tolist() == [True, True, True, False]
    assert (kept(logits, top_k=3, top_p=0.83) > 0).tolist() == [
        True,
        True,
        False,
        False,
    ]  # 0.8 of 0.95 is 0.842
    assert kept(logits, 0.0).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert kept(torch.zeros(3, dtype=torch.float64), top_k=2).tolist() == [0.5, 0.5, 0.0]


def test_the_mask_is_aligned_at_the_bottom_right() -> None:
    assert aligned(2, 3).tolist() == [[True, True, False], [True, True, True]]


def test_a_beam_that_holds_everything_finds_the_most_likely_text() -> None:
    generator = torch.Generator().manual_seed(2)
    table = torch.randn(3, 3, generator=generator, dtype=torch.float64)

    def following(text: list[int]) -> torch.Tensor:
        return table[text[-1]]

    best, score, _ = beams(following, [1], 27, 3, 0, 0.0)
    log_probs = table.log_softmax(-1)
    texts = (
        [[1, 0]]
        + [[1, a, 0] for a in (1, 2)]
        + [[1, a, b, c] for a in (1, 2) for b in (1, 2) for c in (0, 1, 2)]
    )
    totals = {tuple(t): sum(float(log_probs[x, y]) for x, y in pairwise(t)) for t in texts}
    assert tuple(best) == max(totals, key=lambda text: totals[text])
    assert score == pytest.approx(max(totals.values()))


UNEVEN = torch.softmax(torch.tensor([2.4, 1.7, 1.1, 0.6, 0.0, -0.7, -1.5], dtype=torch.float64), 0)


def test_draws_are_too_even_about_as_often_as_is_said() -> None:
    torch.manual_seed(5)
    drawn = torch.distributions.Multinomial(12_000, UNEVEN, validate_args=False)
    alarms = sum(too_even(drawn.sample(), UNEVEN, 0.02) for _ in range(4_000))
    assert 40 <= alarms <= 115


def test_shares_are_too_even() -> None:
    shares = (UNEVEN * 12_000).round()
    assert too_even(shares, UNEVEN, 1e-8)
    rare = torch.cat([UNEVEN * 0.9999, torch.tensor([0.00006, 0.00004, 0.0]).double()])
    assert too_even((rare * 12_000).round(), rare, 1e-8)


def test_of_few_kinds_nothing_is_said() -> None:
    assert not too_even(torch.tensor([500.0, 500.0]), torch.tensor([0.5, 0.5]), 0.1)
    certain = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    assert not too_even(certain * 100, certain, 0.1)
