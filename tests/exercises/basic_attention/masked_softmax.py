"""`masked_softmax`: right writings and mutants. Lazy answers stand with those to `softmax`."""

from __future__ import annotations

import math

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


@mutant("masked_softmax", "mask applied after the softmax")
def after_the_softmax(scores, attn_mask):
    return torch.softmax(scores, -1) * attn_mask


@mutant("masked_softmax", "mask ignored")
def unmasked(scores, attn_mask):
    return torch.softmax(scores, -1)


@mutant("masked_softmax", "mask turned round")
def true_means_hidden(scores, attn_mask):
    return right_masked(scores, ~attn_mask)


@mutant("masked_softmax", "mask turned round")
def true_filled_with_minus_infinity(scores, attn_mask):
    return scores.masked_fill(attn_mask, -torch.inf).softmax(-1)


@mutant("masked_softmax", "mask added to the scores")
def bool_added(scores, attn_mask):
    return (scores + attn_mask).softmax(-1)


@mutant("masked_softmax", "mask added to the scores")
def bool_added_dead_rows_kept_apart(scores, attn_mask):
    return (scores + attn_mask).softmax(-1) * attn_mask.any(-1, keepdim=True)


@mutant("masked_softmax", "masked scores set to zero")
def multiplied_before(scores, attn_mask):
    return (scores * attn_mask).softmax(-1)


@mutant("masked_softmax", "masked scores set to zero")
def filled_with_zero(scores, attn_mask):
    return scores.masked_fill(~attn_mask, 0.0).softmax(-1).masked_fill(~attn_mask.any(-1, keepdim=True), 0.0)


@mutant("masked_softmax", "masked scores set to zero")
def multiplied_before_and_after(scores, attn_mask):
    return (scores * attn_mask).softmax(-1) * attn_mask


@mutant("masked_softmax", "softmax over the queries")
def over_the_queries(scores, attn_mask):
    return torch.softmax(scores.masked_fill(~attn_mask, -torch.inf), -2).nan_to_num()


@mutant("masked_softmax", "softmax over the queries")
def over_the_queries_with_lowest(scores, attn_mask):
    return torch.softmax(scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min), -2) * attn_mask


@mutant("masked_softmax", "softmax over the second axis")
def over_axis_one(scores, attn_mask):
    return torch.softmax(scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min), 1) * attn_mask


@mutant("masked_softmax", "nan where no key is allowed", only="dead rows")
def all_minus_infinity(scores, attn_mask):
    return scores.masked_fill(~attn_mask, float("-inf")).softmax(-1)


@mutant("masked_softmax", "a row that allows no key is not zero", only="dead rows")
def lowest_and_no_more(scores, attn_mask):
    return scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min).softmax(-1)


@mutant("masked_softmax", "nan gradients where no key is allowed", only="dead rows")
def nan_replaced_afterwards(scores, attn_mask):
    bias = scores.new_zeros(attn_mask.shape).masked_fill(~attn_mask, -torch.inf)
    return (scores + bias).softmax(-1).nan_to_num(0.0)


@mutant("masked_softmax", "nan gradients where no key is allowed", only="dead rows")
def divided_by_zero_then_replaced(scores, attn_mask):
    bias = scores.new_zeros(attn_mask.shape).masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    hidden = scores + bias
    numerator = (hidden - hidden.amax(-1, keepdim=True)).exp() * attn_mask
    return torch.where(attn_mask.any(-1, keepdim=True), numerator / numerator.sum(-1, keepdim=True), 0.0)


@mutant("masked_softmax", "a dead row changes the other rows", only="dead rows")
def all_zero_if_one_is_dead(scores, attn_mask):
    if not attn_mask.any(-1).all():
        return scores * 0.0
    return right_masked(scores, attn_mask)


@mutant("masked_softmax", "a row that allows no key is not zero", only="dead rows")
def dead_if_dead_in_the_first_element(scores, attn_mask):
    dead = ~attn_mask.any(-1, keepdim=True)
    if attn_mask.dim() > 2:
        dead = dead[:1]
    return scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(dead, 0.0)


@mutant("masked_softmax", "a row that allows no key is not zero", only="dead rows")
def minus_a_billion_and_no_more(scores, attn_mask):
    return scores.masked_fill(~attn_mask, -1e9 if scores.dtype != torch.float16 else -6e4).softmax(-1)


@mutant("masked_softmax", "normalised over the whole tensor")
def one_sum_for_all(scores, attn_mask):
    exps = scores.exp() * attn_mask
    return exps / exps.sum()


@mutant("masked_softmax", "sigmoid of each score")
def sigmoid_times_mask(scores, attn_mask):
    return scores.sigmoid() * attn_mask


@mutant("masked_softmax", "one-hot maximum")
def best_key_only(scores, attn_mask):
    best = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min).argmax(-1)
    return F.one_hot(best, scores.shape[-1]).to(scores.dtype) * attn_mask


@mutant("masked_softmax", "the mask itself, normalised")
def even_share(scores, attn_mask):
    shown = attn_mask.broadcast_to(scores.shape).to(scores.dtype)
    return shown / shown.sum(-1, keepdim=True).clamp_min(1.0)


@mutant("masked_softmax", "powers of two", only="agrees with the formula")
def powers_of_two_where_allowed(scores, attn_mask):
    return right_masked(scores * math.log(2), attn_mask)


@mutant("masked_softmax", "exponentials not divided by their sum")
def exponentials_times_mask(scores, attn_mask):
    return scores.exp() * attn_mask


@mutant("masked_softmax", "scores returned")
def scores_times_mask(scores, attn_mask):
    return scores * attn_mask


@mutant("masked_softmax", "scores returned")
def only_filled(scores, attn_mask):
    return scores.masked_fill(~attn_mask, -torch.inf)


@mutant("masked_softmax", "mask returned")
def the_mask(scores, attn_mask):
    return attn_mask.broadcast_to(scores.shape).to(scores.dtype)


@mutant("masked_softmax", "softmax applied twice")
def softmax_of_weights(scores, attn_mask):
    return right_masked(torch.softmax(scores, -1), attn_mask)


@mutant("masked_softmax", "softmax applied twice")
def masked_softmax_of_its_own_weights(scores, attn_mask):
    return right_masked(right_masked(scores, attn_mask), attn_mask)


@mutant("masked_softmax", "scores returned")
def the_scores(scores, attn_mask):
    return scores


@mutant("masked_softmax", "softmax over the first axis")
def over_axis_zero(scores, attn_mask):
    return torch.softmax(scores.masked_fill(~attn_mask, -torch.inf), 0)


# masked_softmax: mistakes that one check finds


@mutant("masked_softmax", "mask is not broadcast", only="one mask for all")
def full_mask_expected(scores, attn_mask):
    forbidden = ~attn_mask
    if forbidden.dim() > 2:
        forbidden = forbidden.view(scores.shape)
    return right_masked(scores, ~forbidden)


@mutant("masked_softmax", "fixed number of leading axes")
def softmax_along_axis_three(scores, attn_mask):
    hidden = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    return torch.softmax(hidden, 3).masked_fill(~attn_mask, 0.0)


@mutant("masked_softmax", only="agrees with the formula")
def only_the_first_thousand_keys(scores, attn_mask):
    mask = attn_mask.clone()
    mask[..., 1000:] = False
    return right_masked(scores, mask)


@mutant("masked_softmax", "mask is not broadcast", only="one mask for all")
def filled_by_index(scores, attn_mask):
    hidden = scores.clone()
    hidden[~attn_mask] = torch.finfo(scores.dtype).min
    return hidden.softmax(-1).masked_fill(~attn_mask, 0.0)


@mutant("masked_softmax", "forbidden scores leak into the others")
def masked_and_renormalised(scores, attn_mask):
    weights = torch.softmax(scores, -1) * attn_mask
    return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)


@mutant("masked_softmax", "mask value is not low enough", only="behind the mask")
def minus_ten_thousand(scores, attn_mask):
    return torch.softmax(scores.masked_fill(~attn_mask, -1e4), -1).masked_fill(~attn_mask, 0.0)


@mutant("masked_softmax", "forbidden scores leak into the others", only="behind the mask")
def lowered_by_a_thousand(scores, attn_mask):
    return torch.softmax(scores - 1000 * (~attn_mask).to(scores.dtype), -1).masked_fill(~attn_mask, 0.0)


@mutant("masked_softmax", "forbidden keys keep some weight")
def minus_twenty(scores, attn_mask):
    weights = torch.softmax(scores.masked_fill(~attn_mask, -20.0), -1)
    return weights * attn_mask.any(-1, keepdim=True)


@mutant("masked_softmax", "wrong gradient", only="gradient")
def denominator_detached(scores, attn_mask):
    hidden = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    numerator = (hidden - hidden.amax(-1, keepdim=True)).exp().masked_fill(~attn_mask, 0.0)
    total = numerator.sum(-1, keepdim=True).detach()
    return numerator / total.masked_fill(total == 0, 1.0)


@mutant("masked_softmax", "overwrites what backward() needs", only="gradient")
def weights_zeroed_in_place(scores, attn_mask):
    weights = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min).softmax(-1)
    weights[~attn_mask.expand_as(scores)] = 0.0
    return weights


@mutant("masked_softmax", "gradient is cut off", only="gradient")
def on_the_data(scores, attn_mask):
    return right_masked(scores.data, attn_mask)


@mutant("masked_softmax", "does not keep the dtype", only="dtype")
def left_in_float32(scores, attn_mask):
    return right_masked(scores.float() if scores.dtype in HALF else scores, attn_mask)


@mutant("masked_softmax", "mask value does not fit the dtype", only="dtype")
def minus_a_billion(scores, attn_mask):
    return scores.masked_fill(~attn_mask, -1e9).softmax(-1).masked_fill(~attn_mask, 0.0)


@mutant("masked_softmax", "changes its inputs in place", only="inputs untouched")
def filled_in_place(scores, attn_mask):
    scores.masked_fill_(~attn_mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(~attn_mask, 0.0)


@mutant("masked_softmax", "changes its inputs in place", only="inputs untouched")
def mask_turned_in_place(scores, attn_mask):
    forbidden = attn_mask.logical_not_()
    return (
        scores.masked_fill(forbidden, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(forbidden, 0.0)
    )


@mutant("masked_softmax", "depends on the memory layout of its inputs", only="layout")
def rows_by_view(scores, attn_mask):
    rows = scores.view(-1, scores.shape[-1])
    mask = attn_mask.expand(scores.shape).reshape(-1, scores.shape[-1])
    return right_masked(rows, mask).view(scores.shape)


LAST: dict[tuple[int, ...], Tensor] = {}


@mutant("masked_softmax")
def mask_remembered_by_shape(scores, attn_mask):
    mask = LAST.setdefault(tuple(scores.shape), attn_mask)
    return right_masked(scores, mask)
