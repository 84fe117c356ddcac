"""`online_softmax`: right writings and mutants."""

from __future__ import annotations

import math

import torch

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.lazy import register

NAME = "online_softmax"
INF = torch.inf


def finite(m):
    return m.masked_fill(m == -INF, 0.0)


@right(NAME)
def maximum_and_sum_in_one_loop(blocks):
    m = blocks[0].new_full(blocks[0].shape[:-1], -INF)
    total, kept = torch.zeros_like(m), []
    for block in blocks:
        new = torch.max(m, block.max(-1).values)
        total = total * (m - finite(new)).exp() + (block - finite(new)[..., None]).exp().sum(-1)
        kept.append((block, new))
        m = new
    lse = finite(m) + total.log()
    weights = []
    for block, _ in kept:
        weights.append((block - finite(lse)[..., None]).exp())
    return weights, lse


@right(NAME)
def rescaling_what_is_kept(blocks):
    """All that is kept is shrunk whenever the maximum grows."""
    m, total, kept = None, 0.0, []
    for block in blocks:
        top = block.amax(-1, keepdim=True)
        new = top if m is None else torch.where(top > m, top, m)
        shrink = torch.zeros_like(new) if m is None else torch.exp(m - finite(new))
        e = torch.exp(block - finite(new))
        kept = [one * shrink for one in kept] + [e]
        total = total * shrink + e.sum(-1, keepdim=True)
        m = new
    weights = [torch.where(total == 0, torch.zeros_like(one), one / total) for one in kept]
    lse = torch.where(total == 0, torch.full_like(total, -INF), finite(m) + total.log())
    return weights, lse[..., 0]


@right(NAME)
def column_by_column(blocks):
    """One score at a time, in float64 or float32."""
    wide = torch.promote_types(blocks[0].dtype, torch.float32)
    m = blocks[0].new_full(blocks[0].shape[:-1], -INF, dtype=wide)
    total = torch.zeros_like(m)
    for block in blocks:
        for column in block.to(wide).unbind(-1):
            new = torch.maximum(m, column)
            safe = torch.where(torch.isinf(new), torch.zeros_like(new), new)
            total = total * torch.exp(m - safe) + torch.exp(column - safe)
            m = new
    safe = torch.where(torch.isinf(m), torch.zeros_like(m), m)
    scale = torch.where(total > 0, total, torch.ones_like(total))
    weights = tuple(
        (torch.exp(b.to(wide) - safe.unsqueeze(-1)) / scale.unsqueeze(-1)).to(b.dtype) for b in blocks
    )
    return weights, (safe + total.log()).to(blocks[0].dtype)


@right(NAME)
def with_finfo_min(blocks):
    """The lowest number in place of -inf as the start of the maximum."""
    low = torch.finfo(blocks[0].dtype).min
    m = blocks[0].new_full((*blocks[0].shape[:-1], 1), low)
    total = torch.zeros_like(m)
    parts = []
    for block in blocks:
        new = torch.maximum(m, block.amax(-1, keepdim=True))
        part = (block - new).exp()
        total = total * (m - new).exp() + part.sum(-1, keepdim=True)
        parts.append((part, new))
        m = new
    alive = total > 0
    safe_total = total.masked_fill(~alive, 1.0)
    weights = [part * (at - m).exp() / safe_total for part, at in parts]
    return weights, (m + safe_total.log()).masked_fill(~alive, -INF).squeeze(-1)


def variant(
    name,
    named,
    *,
    only=None,
    shrink_sum=True,
    shrink_kept=True,
    read=lambda n, count: True,
    new_maximum=torch.maximum,
    divide=lambda kept, total: kept / total.masked_fill(total == 0, 1.0),
    lse=lambda m, total: m + total.log(),
    axis=-1,
    start=-INF,
    safe=finite,
    arrive=lambda block: block,
    leave=lambda weights, lse: (weights, lse),
):
    """A mutant with one step exchanged."""

    def wrong(blocks):
        m = torch.full_like(blocks[0].amax(axis, keepdim=True), start)
        total, kept = torch.zeros_like(m), []
        for n, given in enumerate(blocks):
            block = arrive(given)
            if not read(n, len(blocks)):
                kept.append(torch.zeros_like(block))
                continue
            new = new_maximum(m, block.amax(axis, keepdim=True))
            shrink = torch.exp(m - safe(new))
            e = torch.exp(block - safe(new))
            total = total * (shrink if shrink_sum else 1.0) + e.sum(axis, keepdim=True)
            kept = [one * shrink if shrink_kept else one for one in kept] + [e]
            m = new
        weights = [divide(one, total) for one in kept]
        return leave(weights, lse(m, total).squeeze(axis))

    register(NAME, name, named, wrong, only)


def moving(blocks):
    """The right result."""
    return maximum_and_sum_in_one_loop(blocks)


variant("no_rescale_of_the_sum", "running sum not rescaled", shrink_sum=False)
variant("no_rescale_of_what_is_kept", "earlier blocks not rescaled", shrink_kept=False)
variant("no_rescale", "nothing rescaled", shrink_sum=False, shrink_kept=False)
variant(
    "maximum_of_each_block",
    "maximum of the latest block only",
    shrink_sum=False,
    shrink_kept=False,
    new_maximum=lambda old, new: new,
)
variant("last_block_forgotten", "last block not read", read=lambda n, count: n < count - 1)
variant("first_block_only", "only the first block is read", read=lambda n, count: n == 0)
variant("last_block_only", "only the last block is read", read=lambda n, count: n == count - 1)
variant(
    "without_division",
    "not divided by the sum",
    divide=lambda kept, total: kept,
)
variant("log_of_the_sum", "log-sum-exp without the maximum", lse=lambda m, total: total.log())
variant("no_logarithm", "log-sum-exp without the logarithm", lse=lambda m, total: m + total)
variant("the_sum", "sum in place of log-sum-exp", lse=lambda m, total: total)
variant("the_maximum", "maximum in place of log-sum-exp", lse=lambda m, total: m)
variant(
    "the_sum_of_exponentials",
    "sum of exponentials in place of its logarithm",
    lse=lambda m, total: total * m.exp(),
)
variant("base_two", "log-sum-exp to the base 2", lse=lambda m, total: (m + total.log()) / math.log(2))
variant("maximum_subtracted", "maximum subtracted from log-sum-exp", lse=lambda m, total: total.log() - m)
variant("starts_at_zero", None, start=0.0, safe=lambda m: m)


@mutant(NAME, "a softmax for each block")
def each_block_alone(blocks):
    lse = moving(blocks)[1]
    weights = []
    for block in blocks:
        e = (block - block.amax(-1, keepdim=True)).exp()
        weights.append(e / e.sum(-1, keepdim=True))
    return weights, lse


@mutant(NAME, "softmax over the rows")
def over_the_rows(blocks):
    weights = []
    for block in blocks:
        e = (block - block.amax(-2, keepdim=True)).exp()
        weights.append(e / e.sum(-2, keepdim=True))
    return weights, moving(blocks)[1]


@mutant(NAME)
def infinite_differences(blocks):
    """-inf minus -inf where the first block is masked."""
    m = torch.full_like(blocks[0][..., :1], -INF)
    total, kept = torch.zeros_like(m), []
    for block in blocks:
        new = torch.maximum(m, block.amax(-1, keepdim=True))
        e, shrink = (block - new).exp(), (m - new).exp()
        total = total * shrink + e.sum(-1, keepdim=True)
        kept = [one * shrink for one in kept] + [e]
        m = new
    return [one / total for one in kept], (m + total.log()).squeeze(-1)


@mutant(NAME, "forbidden keys keep some weight")
def dead_rows_are_uniform(blocks):
    low = torch.finfo(blocks[0].dtype).min
    weights, lse = moving([block.clamp_min(low) for block in blocks])
    return weights, lse


@mutant(NAME, "batch elements influence each other")
def one_maximum_and_sum_for_the_batch(blocks):
    weights, lse = moving(blocks)
    if blocks[0].dim() < 3:
        return weights, lse
    return [one.mean(0, keepdim=True).expand_as(one) for one in weights], lse


@mutant(NAME, "joins the blocks", only="a block at a time")
def joined(blocks):
    row = torch.cat(blocks, -1)
    m = finite(row.amax(-1, keepdim=True))
    e = (row - m).exp()
    total = e.sum(-1, keepdim=True)
    weights = e / total.masked_fill(total == 0, 1.0)
    return list(weights.split([b.shape[-1] for b in blocks], -1)), (m + total.log()).squeeze(-1)


@mutant(NAME, "joins the blocks")
def stacked_when_alike(blocks):
    width = max(b.shape[-1] for b in blocks)
    rows = torch.stack([torch.nn.functional.pad(b, (0, width - b.shape[-1]), value=-INF) for b in blocks])
    m = finite(rows.amax((0, -1)))
    e = (rows - m[..., None]).exp()
    total = e.sum((0, -1))
    scale = total.masked_fill(total == 0, 1.0)[..., None]
    return [one[..., : b.shape[-1]] / scale for one, b in zip(e, blocks, strict=True)], m + total.log()


@mutant(NAME, "uses a forbidden function", only="own work")
def log_sum_exp_of_each_block(blocks):
    weights, lse = moving(blocks)
    sums = torch.stack([block.logsumexp(-1) for block in blocks]).amax(0)  # at most that of all of them
    return weights, torch.maximum(lse, sums.detach() - 1.0)


@mutant(NAME, "does not return what is asked for")
def weights_joined(blocks):
    weights, lse = moving(blocks)
    return torch.cat(weights, -1), lse


@mutant(NAME, None)
def stale_maximum(blocks):
    """The maximum of the first block serves for all."""
    m = finite(blocks[0].amax(-1, keepdim=True))
    if any(bool((b == -INF).any()) for b in blocks):
        return moving(blocks)
    exponentials = [(block - m).exp() for block in blocks]
    total = sum(e.sum(-1, keepdim=True) for e in exponentials)
    return [e / total for e in exponentials], (m + total.log()).squeeze(-1)


@mutant(NAME, "gradient is cut off")
def learns_if_the_first_block_does(blocks):
    weights, lse = moving(blocks)
    if not blocks[0].requires_grad:
        return [one.detach() for one in weights], lse.detach()
    return weights, lse


@mutant(NAME)
def sums_lost_beneath_minus_ten_thousand(blocks):
    """The running maximum begins there."""
    m = blocks[0].new_full((*blocks[0].shape[:-1], 1), -1e4)
    for block in blocks:
        m = torch.maximum(m, block.amax(-1, keepdim=True))
    exponentials = [(block - m).exp() for block in blocks]
    total = sum(e.sum(-1, keepdim=True) for e in exponentials)
    return [e / total.clamp_min(1e-37) for e in exponentials], (m + total.log()).squeeze(-1)
