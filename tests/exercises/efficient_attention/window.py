"""`sliding_window_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.lazy import register

NAME = "sliding_window_attention"


def refuse(window):
    if window < 1:
        raise ValueError("a window holds at least one position")


@right(NAME)
def one_query_at_a_time(query, key, value, window):
    refuse(window)
    rows = []
    for i in range(query.shape[-2]):
        first = max(0, i + 1 - window)
        scores = query[..., i : i + 1, :] @ key[..., first : i + 1, :].mT / query.shape[-1] ** 0.5
        rows.append(scores.softmax(-1) @ value[..., first : i + 1, :])
    return torch.cat(rows, -2)


@right(NAME)
def unfolded(query, key, value, window):
    """A view of `window` keys for each query, the missing ones hidden."""
    refuse(window)
    S = query.shape[-2]
    window = min(window, S)
    keys = F.pad(key, (0, 0, window - 1, 0)).unfold(-2, window, 1)  # (..., S, D, window)
    values = F.pad(value, (0, 0, window - 1, 0)).unfold(-2, window, 1)
    scores = torch.einsum("...sd,...sdw->...sw", query, keys) * query.shape[-1] ** -0.5
    places = torch.arange(S, device=query.device)[:, None] + torch.arange(window, device=query.device)
    there = places >= window - 1
    weights = scores.masked_fill(~there, -torch.inf).softmax(-1)
    return torch.einsum("...sw,...sdw->...sd", weights, values)


@right(NAME)
def two_blocks_side_by_side(query, key, value, window):
    """Padded to whole blocks; each block of queries meets its own block of keys and the one before."""
    refuse(window)
    S = query.shape[-2]
    w = min(window, S)
    q, k, v = (F.pad(x, (0, 0, 0, -S % w)).unflatten(-2, (-1, w)) for x in (query, key, value))
    k, v = (
        torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[..., :-1, :, :], x], -2) for x in (k, v)
    )  # (..., n, 2w, D)
    scores = q @ k.transpose(-2, -1) * query.shape[-1] ** -0.5  # (..., n, w, 2w)
    n = scores.shape[-3]
    rows = torch.arange(n * w, device=q.device).view(n, w, 1)
    columns = torch.arange(n, device=q.device).view(n, 1, 1) * w - w
    columns = columns + torch.arange(2 * w, device=q.device)
    distance = rows - columns
    allowed = (distance >= 0) & (distance < w) & (columns >= 0)
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1)
    return (weights @ v).flatten(-3, -2)[..., :S, :]


@right(NAME)
def diagonal_by_diagonal(query, key, value, window):
    """One distance at a time, with running numbers."""
    refuse(window)
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k, v = query.to(wide) / query.shape[-1] ** 0.5, key.to(wide), value.to(wide)
    S = q.shape[-2]
    m = (q * k).sum(-1, keepdim=True)
    total, output = torch.ones_like(m), v
    for back in range(1, min(window, S)):
        score = F.pad(
            (q[..., back:, :] * k[..., :-back, :]).sum(-1, keepdim=True), (0, 0, back, 0), value=-torch.inf
        )
        moved = F.pad(v[..., :-back, :], (0, 0, back, 0))
        new = torch.maximum(m, score)
        shrink, p = (m - new).exp(), (score - new).exp()
        m, total, output = new, total * shrink + p, output * shrink + p * moved
    return (output / total).to(query.dtype)


@right(NAME)
def in_blocks(query, key, value, window):
    refuse(window)
    outputs, S = [], query.shape[-2]
    for start in range(0, S, window):
        stop, first = min(start + window, S), max(0, start - window + 1)
        scores = query[..., start:stop, :] @ key[..., first:stop, :].mT / query.shape[-1] ** 0.5
        distance = torch.arange(start, stop, device=query.device)[:, None]
        distance = distance - torch.arange(first, stop, device=query.device)
        scores = scores.masked_fill((distance < 0) | (distance >= window), -torch.inf)
        outputs.append(scores.softmax(-1) @ value[..., first:stop, :])
    return torch.cat(outputs, -2)


def soft(scores, allowed):
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1)


def variant(
    name,
    named,
    *,
    only=None,
    near=lambda d, w: (d >= 0) & (d < w),
    back=lambda w: w - 1,
    ahead=lambda w: 0,
    scale=lambda D: D**-0.5,
    weigh=soft,
    check=refuse,
    arrive=lambda x: x,
    leave=lambda output: output,
    step=lambda w: w,
    first=lambda start, w: start,
):
    """A mutant with one step exchanged; it visits blocks, as the right one does."""

    def wrong(query, key, value, window):
        check(window)
        q, k, v = arrive(query), arrive(key), arrive(value)
        outputs, S = [], q.shape[-2]
        for start in range(0, S, max(1, step(window))):
            stop = min(start + max(1, step(window)), S)
            low, high = max(0, first(start, window) - back(window)), min(S, stop + ahead(window))
            scores = q[..., start:stop, :] @ k[..., low:high, :].mT * scale(q.shape[-1])
            distance = torch.arange(start, stop, device=q.device)[:, None]
            distance = distance - torch.arange(low, high, device=q.device)
            outputs.append(weigh(scores, near(distance, window)) @ v[..., low:high, :])
        return leave(torch.cat(outputs, -2))

    register(NAME, name, named, wrong, only)


def whole(w):
    return 10_000


variant(
    "one_too_long",
    "window one too long",
    near=lambda d, w: (d >= 0) & (d <= w),
    back=lambda w: w,
)
variant("reads_too_little", None, back=lambda w: w - 2)
variant("the_next_ones", "window turned round", near=lambda d, w: (d <= 0) & (d > -w), ahead=lambda w: w)
variant("own_block_only", "window aligned to blocks", back=lambda w: 0)
variant("two_whole_blocks", "sees the whole block before its own", near=lambda d, w: d >= 0, back=lambda w: w)
variant("dense_and_masked", "makes the whole S_q x S_k table", step=whole, back=whole, only="linear cost")
variant(
    "mask_of_minus_ten_thousand", None,
    weigh=lambda s, a: s.masked_fill(~a, -1e4).softmax(-1),
)  # fmt: skip
variant("all_earlier_keys", "does too much work", back=whole, only="linear cost")
variant("large_blocks", "does too much work", step=lambda w: 16 * w)
variant("any_window_will_do", "window is not checked", check=lambda w: None, only="no window")


@mutant(NAME, "keys before the start not masked")
def zeros_before_the_start(query, key, value, window):
    refuse(window)
    keys = F.pad(key, (0, 0, window - 1, 0)).unfold(-2, window, 1)
    values = F.pad(value, (0, 0, window - 1, 0)).unfold(-2, window, 1)
    weights = (torch.einsum("...sd,...sdw->...sw", query, keys) * query.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("...sw,...sdw->...sd", weights, values)


@mutant(NAME, None)
def window_shorter_than_the_sequence(query, key, value, window):
    if window >= query.shape[-2]:
        raise IndexError("the window is longer than the sequence")
    return in_blocks(query, key, value, window)


@mutant(NAME, None)
def exponentials_without_maximum(query, key, value, window):
    refuse(window)
    wide = torch.promote_types(query.dtype, torch.float32)
    rows = []
    for i in range(query.shape[-2]):
        keys, values = (x[..., max(0, i + 1 - window) : i + 1, :].to(wide) for x in (key, value))
        p = torch.exp(query[..., i : i + 1, :].to(wide) @ keys.mT * query.shape[-1] ** -0.5)
        rows.append(p @ values / p.sum(-1, keepdim=True))
    return torch.cat(rows, -2).to(query.dtype)


@mutant(NAME, "uses a forbidden function", only="own work")
def built_in(query, key, value, window):
    refuse(window)
    outputs, S = [], query.shape[-2]
    for start in range(0, S, window):
        stop, first = min(start + window, S), max(0, start - window + 1)
        distance = torch.arange(start, stop, device=query.device)[:, None]
        distance = distance - torch.arange(first, stop, device=query.device)
        mask = (distance >= 0) & (distance < window)
        parts = query[..., start:stop, :], key[..., first:stop, :], value[..., first:stop, :]
        outputs.append(F.scaled_dot_product_attention(*parts, attn_mask=mask))
    return torch.cat(outputs, -2)


@mutant(NAME)
def the_values(query, key, value, window):
    return value


@mutant(NAME, "does too much work", only="linear cost")
def each_query_against_all_keys(query, key, value, window):
    """A row at a time, multiplied and summed by hand: no table, no product, and S * S of work."""
    if window < 1:
        raise ValueError("window must be at least 1")
    rows = []
    for i in range(query.shape[-2]):
        scores = (query[..., i : i + 1, :] * key).sum(-1) / query.shape[-1] ** 0.5
        distance = i - torch.arange(key.shape[-2], device=key.device)
        weights = scores.masked_fill((distance < 0) | (distance >= window), -torch.inf).softmax(-1)
        rows.append((weights.unsqueeze(-1) * value).sum(-2))
    return torch.stack(rows, -2)
