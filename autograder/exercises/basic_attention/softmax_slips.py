"""Mistakes of `softmax` and `masked_softmax`: mutants of the formulas, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autograder.exercises.basic_attention.slip_table import Slip
from autograder.oracle import attention as formulas

__all__ = ["MASKED_SOFTMAX_SLIPS", "SOFTMAX_SLIPS"]


def _shares(values: Tensor, dim: int) -> Tensor:
    return values / values.sum(dim, keepdim=True)


def _exp_below(scores: Tensor, dim: int) -> Tensor:
    """exp of the scores, the maximum along `dim` subtracted."""
    return (scores - scores.amax(dim, keepdim=True)).exp()


def _fill(scores: Tensor, attn_mask: Tensor, fill: float) -> Tensor:
    return scores.masked_fill(~attn_mask, fill)


def _alive(weights: Tensor, attn_mask: Tensor) -> Tensor:
    return weights.masked_fill(~attn_mask.any(-1, keepdim=True), 0.0)


def _over_another_axis(axis: int, name: str) -> tuple[Slip, ...]:
    """The softmax taken along `axis`, with the dead rows as nan, as zero, or as the fill value makes them."""
    question = "Along which axis must a query's weights sum to one? The keys are the last."
    return (
        (name, question, lambda scores, attn_mask: _fill(scores, attn_mask, -torch.inf).softmax(axis)),
        (
            name,
            question,
            lambda scores, attn_mask: _fill(scores, attn_mask, -torch.inf).softmax(axis).nan_to_num(),
        ),
        (name, question, lambda scores, attn_mask: _fill(scores, attn_mask, -1e30).softmax(axis)),
    )


SOFTMAX_SLIPS: tuple[Slip, ...] = (
    (
        "normalised over the whole tensor",
        "Should the sum run along one axis only, with keepdim=True?",
        lambda scores, dim=-1: scores.exp() / scores.exp().sum(),
    ),
    (
        "reduced axis not kept",
        "Does keepdim=True stand in the maximum and in the sum?",
        lambda scores, dim=-1: scores.exp() / scores.exp().sum(dim),
    ),
    (
        "dim is not -1 when left out",
        "Which axis does the signature's default name?",
        lambda scores, dim=0: scores.softmax(dim),
    ),
    (
        "dim is not -1 when left out",
        "Which axis does the signature's default name?",
        lambda scores, dim=1: scores.softmax(dim),
    ),
    (
        "always the last axis",
        "Is dim passed on to the maximum and to the sum?",
        lambda scores, dim=-1: scores.softmax(-1),
    ),
    (
        "always the first axis",
        "Is dim passed on to the maximum and to the sum?",
        lambda scores, dim=-1: scores.softmax(0),
    ),
    (
        "always the second axis",
        "Is dim passed on, or is a 1 written in its place?",
        lambda scores, dim=-1: scores.softmax(1),
    ),
    (
        "always the second axis",
        "Is dim passed on, or is a 1 written in its place?",
        lambda scores, dim=-1: scores.softmax(min(1, scores.dim() - 1)),
    ),
    (
        "rows cut out with reshape",
        "reshape(-1, n) lays the last axis out in rows. Is dim moved there first?",
        lambda scores, dim=-1: scores.reshape(-1, scores.shape[dim]).softmax(-1).reshape(scores.shape),
    ),
    (
        "maximum and sum along different axes",
        "Is dim passed on to the maximum as well as to the sum?",
        lambda scores, dim=-1: _exp_below(scores, -1) / _exp_below(scores, -1).sum(dim, keepdim=True),
    ),
    (
        "maximum and sum along different axes",
        "Is dim passed on to the maximum as well as to the sum?",
        lambda scores, dim=-1: _exp_below(scores, dim) / _exp_below(scores, dim).sum(-1, keepdim=True),
    ),
    (
        "reduced axis put back at the end",
        "unsqueeze(-1) is right for the last axis alone. Does keepdim=True stand in the maximum and in the sum?",
        lambda scores, dim=-1: (scores - scores.amax(dim).unsqueeze(-1)).softmax(dim),
    ),
    (
        "no exponential",
        "Are the scores themselves divided by their sum? They can be negative.",
        lambda scores, dim=-1: scores / scores.sum(dim, keepdim=True),
    ),
    (
        "no exponential",
        "Are the scores themselves divided by their sum? exp is missing.",
        lambda scores, dim=-1: _shares(scores - scores.amin(dim, keepdim=True), dim),
    ),
    (
        "divided by the sum of the scores",
        "Is exp missing in the denominator?",
        lambda scores, dim=-1: scores.exp() / scores.sum(dim, keepdim=True),
    ),
    (
        "exponentials not divided by their sum",
        "Do the weights of a row sum to one?",
        lambda scores, dim=-1: scores.exp(),
    ),
    (
        "divided by the Euclidean norm",
        "Should the weights sum to one, not their squares?",
        lambda scores, dim=-1: scores.exp() / scores.exp().norm(dim=dim, keepdim=True),
    ),
    (
        "divided by the mean",
        "Should the denominator be the sum? The weights sum to the length of the row.",
        lambda scores, dim=-1: scores.exp() / scores.exp().mean(dim, keepdim=True),
    ),
    (
        "scores divided by the root of their number",
        "Is a scale applied? Softmax itself has none.",
        lambda scores, dim=-1: (scores / math.sqrt(scores.shape[dim])).softmax(dim),
    ),
    (
        "scores brought to unit spread first",
        "Are the scores divided by their standard deviation?",
        lambda scores, dim=-1: (scores / scores.std(dim, keepdim=True)).softmax(dim),
    ),
    (
        "divided by the maximum",
        "Should the denominator be the sum of the exponentials?",
        lambda scores, dim=-1: (scores - scores.amax(dim, keepdim=True)).exp(),
    ),
    (
        "weights of two entries exchanged",
        "With two entries, does the larger score get the larger weight?",
        lambda scores, dim=-1: (
            scores.softmax(dim).flip(dim)
            if scores.shape[dim] == 2 and scores.dim() == 2
            else scores.softmax(dim)
        ),
    ),
    (
        "a score of -inf counts as zero",
        "exp(-inf) is 0. Is -inf replaced before exp?",
        lambda scores, dim=-1: scores.nan_to_num(neginf=0.0).softmax(dim),
    ),
    (
        "powers of two",
        "Is it 2 ** scores where e ** scores is meant?",
        lambda scores, dim=-1: torch.exp2(scores) / torch.exp2(scores).sum(dim, keepdim=True),
    ),
    (
        "sigmoid of each score",
        "Do the entries of a row compete with each other?",
        lambda scores, dim=-1: scores.sigmoid(),
    ),
    (
        "logarithm of the weights",
        "Is the exponential missing at the end?",
        lambda scores, dim=-1: scores.log_softmax(dim),
    ),
    (
        "sign turned round",
        "Does the largest score get the smallest weight?",
        lambda scores, dim=-1: (-scores).softmax(dim),
    ),
    (
        "absolute scores",
        "Is a negative score treated like its opposite?",
        lambda scores, dim=-1: scores.abs().softmax(dim),
    ),
    (
        "one-hot maximum",
        "Should every entry get some weight, not the largest alone?",
        lambda scores, dim=-1: (scores == scores.amax(dim, keepdim=True)).to(scores),
    ),
    (
        "softmax applied twice",
        "Are the weights normalised a second time?",
        lambda scores, dim=-1: scores.softmax(dim).softmax(dim),
    ),
    (
        "scores returned unchanged",
        "Is the result of the computation returned?",
        lambda scores, dim=-1: scores,
    ),
)

MASKED_SOFTMAX_SLIPS: tuple[Slip, ...] = (
    (
        "mask applied after the softmax",
        "Should masked scores be -inf before the softmax, so that the rest still sums to one?",
        lambda scores, attn_mask: scores.softmax(-1) * attn_mask,
    ),
    ("mask ignored", "Is attn_mask used at all?", lambda scores, attn_mask: scores.softmax(-1)),
    (
        "mask turned round",
        "True means allowed. Is it the False places that are hidden?",
        lambda scores, attn_mask: _fill(scores, ~attn_mask, -torch.inf).softmax(-1),
    ),
    (
        "mask turned round",
        "True means allowed. Is it the False places that are hidden?",
        lambda scores, attn_mask: _fill(scores, ~attn_mask, -torch.inf).softmax(-1).nan_to_num(),
    ),
    (
        "mask added to the scores",
        "A bool mask adds only 0 or 1. Should forbidden scores become -inf?",
        lambda scores, attn_mask: _alive((scores + attn_mask).softmax(-1), attn_mask),
    ),
    (
        "mask added to the scores",
        "A bool mask adds only 0 or 1. Should forbidden scores become -inf?",
        lambda scores, attn_mask: (scores + attn_mask).softmax(-1),
    ),
    (
        "masked scores set to zero",
        "exp(0) is 1: a score of zero still gets weight. Should it be -inf?",
        lambda scores, attn_mask: (scores * attn_mask).softmax(-1),
    ),
    (
        "masked scores set to zero",
        "exp(0) is 1: a score of zero still gets weight. Should it be -inf?",
        lambda scores, attn_mask: _alive((scores * attn_mask).softmax(-1), attn_mask),
    ),
    (
        "masked scores set to zero",
        "exp(0) is 1: a score of zero still takes its share of the sum. Should it be -inf?",
        lambda scores, attn_mask: (scores * attn_mask).softmax(-1) * attn_mask,
    ),
    *_over_another_axis(-2, "softmax over the queries"),
    *_over_another_axis(1, "softmax over the second axis"),
    *_over_another_axis(0, "softmax over the first axis"),
    (
        "nan where no key is allowed",
        "A row of nothing but -inf has no softmax. Are dead rows set to zero?",
        lambda scores, attn_mask: _fill(scores, attn_mask, -torch.inf).softmax(-1),
    ),
    (
        "a row that allows no key is not zero",
        "Are dead rows set to zero after the softmax?",
        lambda scores, attn_mask: _fill(scores, attn_mask, -1e30).softmax(-1),
    ),
    (
        "normalised over the whole tensor",
        "Should each query's weights sum to one by themselves?",
        lambda scores, attn_mask: scores.exp() * attn_mask / (scores.exp() * attn_mask).sum(),
    ),
    (
        "sigmoid of each score",
        "Do the keys of a row compete with each other?",
        lambda scores, attn_mask: scores.sigmoid() * attn_mask,
    ),
    (
        "one-hot maximum",
        "Should every allowed key get some weight?",
        lambda scores, attn_mask: _alive((_fill(scores, attn_mask, -1e30) * 1e6).softmax(-1), attn_mask),
    ),
    (
        "powers of two",
        "Is it 2 ** scores where e ** scores is meant?",
        lambda scores, attn_mask: formulas.masked_softmax(scores * math.log(2), attn_mask).value,
    ),
    (
        "exponentials not divided by their sum",
        "Do the weights of a row sum to one?",
        lambda scores, attn_mask: scores.exp() * attn_mask,
    ),
    (
        "softmax applied twice",
        "Is the softmax applied to weights, not to scores?",
        lambda scores, attn_mask: formulas.masked_softmax(scores.softmax(-1), attn_mask).value,
    ),
    (
        "softmax applied twice",
        "Is the softmax applied to weights, not to scores?",
        lambda scores, attn_mask: (
            formulas.masked_softmax(formulas.masked_softmax(scores, attn_mask).value, attn_mask).value
        ),
    ),
    ("scores returned", "Is the softmax missing?", lambda scores, attn_mask: scores * attn_mask),
    (
        "scores returned",
        "Is the softmax missing?",
        lambda scores, attn_mask: _fill(scores, attn_mask, -torch.inf),
    ),
    ("scores returned", "Is the softmax missing?", lambda scores, attn_mask: scores),
    (
        "mask returned",
        "Are the scores used at all?",
        lambda scores, attn_mask: attn_mask.broadcast_to(scores.shape).to(scores),
    ),
    (
        "the mask itself, normalised",
        "Are the scores used at all?",
        lambda scores, attn_mask: attn_mask / attn_mask.sum(-1, keepdim=True).clamp_min(1).to(scores),
    ),
)
