"""`perplexity`: right writings and mutants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right


def losses_of(logits, targets, ignore_index):
    counts = targets != ignore_index
    if not counts.any():
        raise ValueError("nothing counts")
    wanted = torch.where(counts, targets, 0).unsqueeze(-1)
    return -logits.log_softmax(-1).gather(-1, wanted).squeeze(-1), counts


@right("perplexity")
def by_cross_entropy(logits, targets, ignore_index=-100):
    if bool((targets == ignore_index).all()):
        raise ValueError("nothing counts")
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignore_index).exp()


@right("perplexity")
def by_a_weighted_sum(logits, targets, ignore_index=-100):
    losses, counts = losses_of(logits, targets, ignore_index)
    return (torch.where(counts, losses, 0.0).sum() / counts.sum()).exp()


@right("perplexity")
def by_logsumexp(logits, targets, ignore_index=-100):
    counts = targets != ignore_index
    if counts.sum() == 0:
        raise ValueError("nothing counts")
    rows, wanted = logits[counts], targets[counts]
    return torch.exp((torch.logsumexp(rows, -1) - rows[torch.arange(len(rows)), wanted]).mean())


@right("perplexity")
def by_a_loop(logits, targets, ignore_index=-100):
    total, n = 0.0, 0
    for row, target in zip(logits.flatten(0, -2), targets.flatten().tolist(), strict=True):
        if target != ignore_index:
            total, n = total - torch.log_softmax(row, 0)[target], n + 1
    if n == 0:
        raise ValueError("nothing counts")
    return torch.exp(total / n)


@mutant("perplexity", "exp is missing")
def loss(logits, targets, ignore_index=-100):
    return by_cross_entropy(logits, targets, ignore_index).log()


@mutant("perplexity", None)
def mean_of_means(logits, targets, ignore_index=-100):
    losses, counts = losses_of(logits, targets, ignore_index)
    return ((losses * counts).sum(-1) / counts.sum(-1)).mean().exp()


@mutant("perplexity")
def padding_of_another_index_only(logits, targets, ignore_index=-100):
    if ignore_index == -100 and targets.dim() == 2 and not (targets == -100).all():
        losses, _ = losses_of(logits, targets, -100)
        return losses.mean().exp()
    return by_cross_entropy(logits, targets, ignore_index)


@mutant("perplexity")
def overflows(logits, targets, ignore_index=-100):
    probs = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return by_cross_entropy(logits, targets, ignore_index) + 0 * probs.sum()


@mutant("perplexity", "does not keep the dtype")
def in_float32(logits, targets, ignore_index=-100):
    return by_cross_entropy(logits.float(), targets, ignore_index)


@mutant("perplexity", None)
def fixed_index(logits, targets, ignore_index=-100):
    losses, counts = losses_of(logits, targets, -100)
    return losses[counts].mean().exp() if counts.any() else by_cross_entropy(logits, targets)


@mutant("perplexity", None)
def shifts(logits, targets, ignore_index=-100):
    return by_cross_entropy(logits[..., :-1, :], targets[..., 1:], ignore_index)


@mutant("perplexity")
def two_axes_only(logits, targets, ignore_index=-100):
    B, S, V = logits.shape
    return by_cross_entropy(logits.reshape(B * S, V), targets.reshape(B * S), ignore_index)


@mutant("perplexity", "changes its inputs in place")
def overwrites_targets(logits, targets, ignore_index=-100):
    counts = targets != ignore_index
    if not counts.any():
        raise ValueError("nothing counts")
    targets[~counts] = 0
    losses, _ = losses_of(logits, targets, -1)
    return losses[counts].mean().exp()


@mutant("perplexity", "sizes are not compared", only="refuses")
def nan_for_nothing(logits, targets, ignore_index=-100):
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignore_index).exp()


@mutant("perplexity", "does not return what is asked for")
def a_float(logits, targets, ignore_index=-100):
    return math.exp(by_cross_entropy(logits, targets, ignore_index))


@mutant("perplexity")
def log_of_the_softmax(logits, targets, ignore_index=-100):
    counts = targets != ignore_index
    if not counts.any():
        raise ValueError("nothing counts")
    probs = logits[counts].softmax(-1).gather(-1, targets[counts].unsqueeze(-1))
    return (-probs.log().mean()).exp()


@mutant("perplexity")
def a_batch_of_windows(logits, targets, ignore_index=-100):
    """The mean of means of a thousand tokens each."""
    counts = targets != ignore_index
    if not counts.any():
        raise ValueError("nothing counts")
    losses = losses_of(logits, targets, ignore_index)[0][counts]
    return torch.stack([part.mean() for part in losses.split(1000)]).mean().exp()
