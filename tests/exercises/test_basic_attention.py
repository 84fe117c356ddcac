"""The grader of `basic_attention` on right writings and on mutants, and how the reference solutions begin."""

import torch

from solutions.basic_attention import MultiplicativeScores
from tests.exercises.promises import *  # noqa: F403

STEM = "basic_attention"


def test_multiplicative_scores_begin_with_a_variance_of_about_one() -> None:
    """Not sqrt(D_q D_k), which would saturate the softmax: the lesson warns of it. (The estimate spreads by 0.03.)"""
    torch.manual_seed(0)
    with torch.no_grad():
        scores = MultiplicativeScores(48, 64)(torch.randn(1000, 48), torch.randn(1000, 64))
    assert abs(scores.var().item() - 1) < 0.2
