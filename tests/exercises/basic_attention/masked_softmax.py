"""`masked_softmax`: right writings and mutants. Lazy answers stand with those to `softmax`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.exercises.catalogue import mutant, right

HALF = (torch.float16, torch.bfloat16)


def right_masked(scores: Tensor, attn_mask: Tensor) -> Tensor:
    lowest = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~attn_mask, lowest), -1).masked_fill(~attn_mask, 0.0)


# masked_softmax: right writings


@right("masked_softmax")
def minus_infinity_where_alive(scores, attn_mask):
    dead = ~attn_mask.any(-1, keepdim=True)
    hidden = scores.masked_fill(~attn_mask & ~dead, float("-inf"))
    return F.softmax(hidden, dim=-1).masked_fill(dead, 0.0)


@right("masked_softmax")
def torch_where(scores, attn_mask):
    weights = torch.softmax(torch.where(attn_mask, scores, torch.finfo(scores.dtype).min), -1)
    return torch.where(attn_mask, weights, 0)


@right("masked_softmax")
def float_mask_added(scores, attn_mask):
    dead = ~attn_mask.any(-1, keepdim=True)
    bias = scores.new_zeros(attn_mask.shape).masked_fill(~attn_mask, -torch.inf)
    return (scores + bias.masked_fill(dead, 0.0)).softmax(-1) * ~dead


@right("masked_softmax")
def numerator_over_denominator(scores, attn_mask):
    allowed = attn_mask.broadcast_to(scores.shape)
    top = torch.where(allowed, scores, -torch.inf).amax(-1, keepdim=True)
    top = torch.where(top == -torch.inf, 0.0, top)
    numerator = torch.exp(torch.where(allowed, scores - top, -torch.inf))
    total = numerator.sum(-1, keepdim=True)
    return numerator / torch.where(total > 0, total, 1.0)


@right("masked_softmax")
def exp_minus_logsumexp_where_allowed(scores, attn_mask):
    hidden = torch.where(attn_mask, scores, torch.finfo(scores.dtype).min)
    weights = torch.exp(hidden - torch.logsumexp(hidden, -1, keepdim=True))
    return weights.masked_fill(~attn_mask, 0)


@right("masked_softmax")
def row_by_row(scores, attn_mask):
    rows, masks = (
        scores.reshape(-1, scores.shape[-1]),
        attn_mask.expand(scores.shape).reshape(-1, scores.shape[-1]),
    )
    weights = []
    for row, seen in zip(rows, masks, strict=True):
        filled = torch.zeros_like(row)
        if seen.any():
            filled = filled.masked_scatter(seen, torch.softmax(row[seen], 0))
        weights.append(filled)
    return torch.stack(weights).reshape(scores.shape)


@right("masked_softmax")
def minus_a_billion_in_float32(scores, attn_mask):
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return (
        torch.softmax(wide.masked_fill(~attn_mask, -1e9), dim=-1)
        .masked_fill(~attn_mask, 0.0)
        .to(scores.dtype)
    )


@right("masked_softmax")
def copied_and_filled_in_place(scores, attn_mask):
    forbidden = (~attn_mask).expand_as(scores)
    copy = scores.clone()
    copy[forbidden] = torch.finfo(scores.dtype).min
    return copy.softmax(-1).masked_fill(forbidden, 0.0)


@right("masked_softmax")
def nan_replaced_where_masked_fill_stops_the_gradient(scores, attn_mask):
    return scores.masked_fill(~attn_mask, -torch.inf).softmax(-1).nan_to_num(0.0)


@right("masked_softmax")
def log_of_the_mask_added(scores, attn_mask):
    log_mask = attn_mask.to(scores.dtype).log().clamp_min(torch.finfo(scores.dtype).min)
    return torch.log_softmax(torch.where(attn_mask, scores, log_mask), -1).exp() * attn_mask


# masked_softmax: mistakes of the formula


@mutant("masked_softmax", "softmax over the queries")
def over_the_queries_with_lowest(scores, attn_mask):
    return torch.softmax(scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min), -2) * attn_mask


@mutant("masked_softmax", "nan gradients")
def nan_replaced_afterwards(scores, attn_mask):
    bias = scores.new_zeros(attn_mask.shape).masked_fill(~attn_mask, -torch.inf)
    return (scores + bias).softmax(-1).nan_to_num(0.0)


@mutant("masked_softmax", "weights do not sum to one")
def all_zero_if_one_is_dead(scores, attn_mask):
    if not attn_mask.any(-1).all():
        return scores * 0.0
    return right_masked(scores, attn_mask)


@mutant("masked_softmax")
def dead_if_dead_in_the_first_element(scores, attn_mask):
    dead = ~attn_mask.any(-1, keepdim=True)
    if attn_mask.dim() > 2:
        dead = dead[:1]
    return scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(dead, 0.0)


# masked_softmax: mistakes that one check finds


@mutant("masked_softmax")
def full_mask_expected(scores, attn_mask):
    forbidden = ~attn_mask
    if forbidden.dim() > 2:
        forbidden = forbidden.view(scores.shape)
    return right_masked(scores, ~forbidden)


@mutant("masked_softmax", "weights do not sum to one")
def softmax_along_axis_three(scores, attn_mask):
    hidden = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    return torch.softmax(hidden, 3).masked_fill(~attn_mask, 0.0)


@mutant("masked_softmax")
def only_the_first_thousand_keys(scores, attn_mask):
    mask = attn_mask.clone()
    mask[..., 1000:] = False
    return right_masked(scores, mask)


@mutant("masked_softmax", "mask is not broadcast")
def filled_by_index(scores, attn_mask):
    hidden = scores.clone()
    hidden[~attn_mask] = torch.finfo(scores.dtype).min
    return hidden.softmax(-1).masked_fill(~attn_mask, 0.0)


@mutant("masked_softmax")
def masked_and_renormalised(scores, attn_mask):
    weights = torch.softmax(scores, -1) * attn_mask
    return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)


@mutant("masked_softmax", "weights do not sum to one")
def minus_ten_thousand(scores, attn_mask):
    return torch.softmax(scores.masked_fill(~attn_mask, -1e4), -1).masked_fill(~attn_mask, 0.0)


@mutant("masked_softmax", "forbidden keys keep some weight")
def minus_twenty(scores, attn_mask):
    weights = torch.softmax(scores.masked_fill(~attn_mask, -20.0), -1)
    return weights * attn_mask.any(-1, keepdim=True)


@mutant("masked_softmax", "wrong gradient")
def denominator_detached(scores, attn_mask):
    hidden = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    numerator = (hidden - hidden.amax(-1, keepdim=True)).exp().masked_fill(~attn_mask, 0.0)
    total = numerator.sum(-1, keepdim=True).detach()
    return numerator / total.masked_fill(total == 0, 1.0)


@mutant("masked_softmax", "overwrites what backward() needs")
def weights_zeroed_in_place(scores, attn_mask):
    weights = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min).softmax(-1)
    weights[~attn_mask.expand_as(scores)] = 0.0
    return weights


@mutant("masked_softmax", "mask value does not fit the dtype")
def minus_a_billion(scores, attn_mask):
    return scores.masked_fill(~attn_mask, -1e9).softmax(-1).masked_fill(~attn_mask, 0.0)


@mutant("masked_softmax", "changes its inputs in place")
def mask_turned_in_place(scores, attn_mask):
    forbidden = attn_mask.logical_not_()
    return (
        scores.masked_fill(forbidden, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(forbidden, 0.0)
    )


@mutant("masked_softmax", "depends on the memory layout of its inputs")
def rows_by_view(scores, attn_mask):
    rows = scores.view(-1, scores.shape[-1])
    mask = attn_mask.expand(scores.shape).reshape(-1, scores.shape[-1])
    return right_masked(rows, mask).view(scores.shape)


LAST: dict[tuple[int, ...], Tensor] = {}


@mutant("masked_softmax")
def mask_remembered_by_shape(scores, attn_mask):
    mask = LAST.setdefault(tuple(scores.shape), attn_mask)
    return right_masked(scores, mask)
