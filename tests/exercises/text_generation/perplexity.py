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
    wanted = targets.clamp(min=0).unsqueeze(-1)
    return -logits.log_softmax(-1).gather(-1, wanted).squeeze(-1), counts


@right("perplexity")
def by_cross_entropy(logits, targets, ignore_index=-100):
    if bool((targets == ignore_index).all()):
        raise ValueError("nothing counts")
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignore_index).exp()


@right("perplexity")
def by_a_weighted_sum(logits, targets, ignore_index=-100):
    losses, counts = losses_of(logits, targets, ignore_index)
    return ((losses * counts).sum() / counts.sum()).exp()


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


def registered(named, only=None):
    """Register `value(losses, counts, logits)` as a mutant."""

    def register(value):
        def perplexity(logits, targets, ignore_index=-100):
            return value(*losses_of(logits, targets, ignore_index), logits)

        perplexity.__name__ = value.__name__
        mutant("perplexity", named, only=only)(perplexity)
        return value

    return register


@registered("exp is missing")
def loss(x, c, logits):
    return x[c].mean()


@registered("mean of probabilities")
def arithmetic_mean(x, c, logits):
    return 1 / (-x[c]).exp().mean()


@registered("mean of inverse probabilities")
def mean_of_inverses(x, c, logits):
    return x[c].exp().mean()


@registered("sum instead of mean")
def summed(x, c, logits):
    return x[c].sum().exp()


@registered("a power of 2")
def two_to_the_loss(x, c, logits):
    return 2 ** x[c].mean()


@registered("sign of the loss")
def wrong_sign(x, c, logits):
    return (-x[c].mean()).exp()


@registered("sentences weigh alike")
def mean_of_means(x, c, logits):
    return ((x * c).sum(-1) / c.sum(-1)).mean().exp()


@registered("mean of the sentences' perplexities")
def mean_of_perplexities(x, c, logits):
    return ((x * c).sum(-1) / c.sum(-1)).exp().mean()


@registered("hidden targets count")
def all_count(x, c, logits):
    return x.mean().exp()


@registered("divided by all targets")
def divided_by_all(x, c, logits):
    return (x * c).sum().div(c.numel()).exp()


@mutant("perplexity", only="padding")
def padding_of_another_index_only(logits, targets, ignore_index=-100):
    if ignore_index == -100 and targets.dim() == 2 and not (targets == -100).all():
        losses, _ = losses_of(logits, targets, -100)
        return losses.mean().exp()
    return by_cross_entropy(logits, targets, ignore_index)


@registered("no softmax")
def raw_logits(x, c, logits):
    return (x - logits.logsumexp(-1))[c].mean().exp()


@registered("perplexity of each sentence")
def one_for_each(x, c, logits):
    return ((x * c).sum(-1) / c.sum(-1)).exp()


@registered(None, only="large logits")
def overflows(x, c, logits):
    probs = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return x[c].mean().exp() + 0 * probs.sum()


@registered("does not keep the dtype", only="dtype")
def in_float32(x, c, logits):
    return x[c].float().mean().exp()


@mutant("perplexity", "ignore_index is taken for -100", only="ignore_index")
def fixed_index(logits, targets, ignore_index=-100):
    losses, counts = losses_of(logits, targets, -100)
    return losses[counts].mean().exp() if counts.any() else by_cross_entropy(logits, targets)


@mutant("perplexity", "shifted once more")
def shifts(logits, targets, ignore_index=-100):
    return by_cross_entropy(logits[..., :-1, :], targets[..., 1:], ignore_index)


@mutant("perplexity", only="leading axes")
def two_axes_only(logits, targets, ignore_index=-100):
    B, S, V = logits.shape
    return by_cross_entropy(logits.reshape(B * S, V), targets.reshape(B * S), ignore_index)


@mutant("perplexity", "changes its inputs in place", only="inputs untouched")
def overwrites_targets(logits, targets, ignore_index=-100):
    if (targets == ignore_index).all():
        raise ValueError("nothing counts")
    counts = targets != ignore_index
    targets[~counts] = 0
    losses, _ = losses_of(logits, targets, -1)
    return losses[counts].mean().exp()


@mutant("perplexity", "sizes are not compared", only="refuses")
def nan_for_nothing(logits, targets, ignore_index=-100):
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignore_index).exp()


@mutant("perplexity", "does not return what is asked for")
def a_float(logits, targets, ignore_index=-100):
    return math.exp(F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignore_index))


@mutant("perplexity", only="agrees with the formula")
def vocabulary_size(logits, targets, ignore_index=-100):
    return torch.tensor(float(logits.shape[-1]))
