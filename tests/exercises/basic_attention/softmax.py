"""`softmax` and `masked_softmax`: right writings and mutants."""

from __future__ import annotations

import functools
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.exercises.catalogue import mutant, right

HALF = (torch.float16, torch.bfloat16)


def right_softmax(scores: Tensor, dim: int = -1) -> Tensor:
    numerator = (scores - scores.amax(dim, keepdim=True)).exp()
    return numerator / numerator.sum(dim, keepdim=True)


def right_masked(scores: Tensor, attn_mask: Tensor) -> Tensor:
    lowest = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~attn_mask, lowest), -1).masked_fill(~attn_mask, 0.0)


# softmax: right writings


@right("softmax")
def shifted_exponentials(scores, dim=-1):
    shifted = scores - torch.max(scores, dim=dim, keepdim=True).values
    return torch.exp(shifted) / torch.sum(torch.exp(shifted), dim=dim, keepdim=True)


@right("softmax")
def exp_minus_logsumexp(scores, dim=-1):
    return torch.exp(scores - torch.logsumexp(scores, dim, keepdim=True))


@right("softmax")
def log_of_the_sum_by_hand(scores, dim=-1):
    top = scores.amax(dim, keepdim=True)
    return (scores - top - (scores - top).exp().sum(dim, keepdim=True).log()).exp()


@right("softmax")
def loop_over_rows(scores, dim=-1):
    last = scores.movedim(dim, -1)
    rows = []
    for row in last.reshape(-1, last.shape[-1]):
        exps = torch.exp(row - row.max())
        rows.append(exps / exps.sum())
    return torch.stack(rows).reshape(last.shape).movedim(-1, dim)


@right("softmax")
def loop_over_entries(scores, dim=-1):
    top = scores.amax(dim)
    exps = [torch.exp(entry - top) for entry in scores.unbind(dim)]
    total = functools.reduce(torch.add, exps)
    return torch.stack([one / total for one in exps], dim)


@right("softmax")
def online_in_blocks_of_32(scores, dim=-1):
    top = torch.full_like(scores.narrow(dim, 0, 1), torch.finfo(scores.dtype).min)
    total = torch.zeros_like(top)
    for block in scores.split(32, dim):
        new_top = torch.maximum(top, block.amax(dim, keepdim=True))
        total = total * (top - new_top).exp() + (block - new_top).exp().sum(dim, keepdim=True)
        top = new_top
    return (scores - top).exp() / total


@right("softmax")
def powers_of_two_with_the_right_base(scores, dim=-1):
    powers = torch.exp2((scores - scores.amax(dim, keepdim=True)) * math.log2(math.e))
    return powers / powers.sum(dim, keepdim=True)


@right("softmax")
def einsum_over_the_moved_axis(scores, dim=-1):
    last = scores.transpose(dim, -1)
    exps = (last - last.max(-1, keepdim=True)[0]).exp()
    return torch.einsum("...k,...->...k", exps, 1 / torch.einsum("...k->...", exps)).transpose(dim, -1)


@right("softmax")
def float32_inside(scores, dim=-1):
    wide = scores.float() if scores.dtype in HALF else scores
    return right_softmax(wide, dim).to(scores.dtype)


@right("softmax")
def in_place_on_its_own_copy(scores, dim=-1):
    weights = scores - scores.amax(dim, keepdim=True)
    weights = weights.exp_()
    return weights.div(weights.sum(dim, keepdim=True))


@right("softmax")
def ratio_form_for_pairs(scores, dim=-1):
    # 1 / sum_j exp(s_j - s_i), shifted: sum_j exp(s_j - max) / exp(s_i - max) turned upside down.
    rows = scores.movedim(dim, -1)
    exps = torch.exp(rows - rows.amax(-1, keepdim=True))
    return (exps.unsqueeze(-1) / exps.unsqueeze(-2).sum(-1, keepdim=True)).squeeze(-1).movedim(-1, dim)


# softmax: mistakes of the formula


@mutant("softmax", "normalised over the whole tensor")
def whole_tensor(scores, dim=-1):
    exps = (scores - scores.max()).exp()
    return exps / exps.sum()


@mutant("softmax", "normalised over the whole tensor")
def no_axis_given(scores, dim=-1):
    return torch.exp(scores) / torch.sum(torch.exp(scores))


@mutant("softmax", "always the last axis", only="any axis")
def last_axis(scores, dim=-1):
    return right_softmax(scores, -1)


@mutant("softmax", "always the first axis")
def first_axis(scores, dim=-1):
    return right_softmax(scores, 0)


@mutant("softmax", "dim is not -1 when left out")
def default_of_zero(scores, dim=0):
    return right_softmax(scores, dim)


@mutant("softmax", "always the second axis")
def second_axis(scores, dim=-1):
    return torch.exp(scores) / torch.exp(scores).sum(1, keepdim=True)


@mutant("softmax", "no exponential")
def plain_share(scores, dim=-1):
    return scores / scores.sum(dim, keepdim=True)


@mutant("softmax", "no exponential")
def shifted_share(scores, dim=-1):
    shifted = scores - scores.amin(dim, keepdim=True)
    return shifted / shifted.sum(dim, keepdim=True)


@mutant("softmax", "divided by the maximum")
def over_the_maximum(scores, dim=-1):
    exps = scores.exp()
    return exps / exps.amax(dim, keepdim=True)


@mutant("softmax", "divided by the maximum")
def never_divided(scores, dim=-1):
    return (scores - scores.amax(dim, keepdim=True)).exp()


@mutant("softmax", "powers of two")
def base_two(scores, dim=-1):
    powers = 2 ** (scores - scores.amax(dim, keepdim=True))
    return powers / powers.sum(dim, keepdim=True)


@mutant("softmax", "sigmoid of each score")
def one_by_one(scores, dim=-1):
    return 1 / (1 + torch.exp(-scores))


@mutant("softmax", "logarithm of the weights")
def log_softmax_by_hand(scores, dim=-1):
    return scores - scores.logsumexp(dim, keepdim=True)


@mutant("softmax", "sign turned round")
def softmin(scores, dim=-1):
    return right_softmax(-scores, dim)


@mutant("softmax", "sign turned round")
def shifted_the_wrong_way(scores, dim=-1):
    exps = (scores.amax(dim, keepdim=True) - scores).exp()
    return exps / exps.sum(dim, keepdim=True)


@mutant("softmax", "absolute scores")
def of_absolute_values(scores, dim=-1):
    return right_softmax(scores.abs(), dim)


@mutant("softmax", "one-hot maximum")
def hard_maximum(scores, dim=-1):
    return F.one_hot(scores.argmax(dim), scores.shape[dim]).movedim(-1, dim).to(scores.dtype)


@mutant("softmax", "softmax applied twice")
def twice(scores, dim=-1):
    return right_softmax(right_softmax(scores, dim), dim)


@mutant("softmax", "scores returned unchanged")
def unchanged(scores, dim=-1):
    return scores


@mutant("softmax", "scores returned unchanged")
def result_thrown_away(scores, dim=-1):
    right_softmax(scores, dim)
    return scores.clone()


@mutant("softmax", "exponentials not divided by their sum")
def only_exponentials(scores, dim=-1):
    return torch.exp(scores)


@mutant("softmax", "divided by the Euclidean norm")
def unit_length(scores, dim=-1):
    exps = (scores - scores.amax(dim, keepdim=True)).exp()
    return exps / exps.norm(dim=dim, keepdim=True)


@mutant("softmax", "divided by the mean")
def mean_of_one(scores, dim=-1):
    exps = right_softmax(scores, dim)
    return exps / exps.mean(dim, keepdim=True)


@mutant("softmax", "scores divided by the root of their number")
def scaled(scores, dim=-1):
    return right_softmax(scores / math.sqrt(scores.shape[dim]), dim)


@mutant("softmax", "divided by the sum of the scores")
def sum_of_the_scores(scores, dim=-1):
    return scores.exp() / scores.sum(dim, keepdim=True)


@mutant("softmax", "scores brought to unit spread first")
def standardised(scores, dim=-1):
    centred = scores - scores.mean(dim, keepdim=True)
    return right_softmax(centred / centred.std(dim, keepdim=True), dim)


@mutant("softmax", "weights of two entries exchanged", only="agrees with the formula")
def sigmoid_for_two(scores, dim=-1):
    if scores.dim() == 2 and scores.shape[-1] == 2:
        share = torch.sigmoid(scores[:, :1] - scores[:, 1:])
        return torch.cat([1 - share, share], -1)
    return right_softmax(scores, dim)


# softmax: mistakes that one check finds


@mutant("softmax", "goes wrong in long rows", only="sums to one")
def only_the_first_hundred(scores, dim=-1):
    weights = right_softmax(scores.narrow(dim, 0, min(100, scores.shape[dim])), dim)
    rest = scores.shape[dim] - weights.shape[dim]
    zeros = torch.zeros_like(scores.narrow(dim, 0, rest)) if rest else scores.narrow(dim, 0, 0)
    return torch.cat([weights, zeros], dim)


@mutant("softmax", "weights do not sum to one", only="sums to one")
def each_block_by_itself(scores, dim=-1):
    return torch.cat([right_softmax(block, dim) for block in scores.split(64, dim)], dim)


@mutant("softmax", "weights do not sum to one", only="sums to one")
def online_without_rescaling(scores, dim=-1):
    top, total = torch.full_like(scores.narrow(dim, 0, 1), torch.finfo(scores.dtype).min), 0.0
    for block in scores.split(256, dim):
        top = torch.maximum(top, block.amax(dim, keepdim=True))
        total = total + (block - top).exp().sum(dim, keepdim=True)
    return (scores - top).exp() / total


@mutant("softmax", "goes wrong in long rows", only="sums to one")
def top_hundred(scores, dim=-1):
    count = min(100, scores.shape[dim])
    least = scores.topk(count, dim).values.amin(dim, keepdim=True)
    return right_softmax(scores.masked_fill(scores < least, -torch.inf), dim)


@mutant("softmax", "overflows or underflows for large scores", only="shift")
def not_shifted(scores, dim=-1):
    return torch.exp(scores) / torch.exp(scores).sum(dim=dim, keepdim=True)


@mutant("softmax", "overflows or underflows for large scores", only="shift")
def shifted_by_the_largest_of_all(scores, dim=-1):
    exps = (scores - scores.max()).exp()
    return exps / exps.sum(dim, keepdim=True)


@mutant("softmax", "overflows or underflows for large scores", only="shift")
def shifted_by_the_mean(scores, dim=-1):
    mean = torch.nan_to_num(scores, neginf=0.0).mean(dim, keepdim=True)
    exps = (scores - mean).exp()
    return exps / exps.sum(dim, keepdim=True)


@mutant("softmax", "overflows or underflows for large scores", only="shift")
def clamped(scores, dim=-1):
    exps = scores.clamp(max=80.0).exp()
    return exps / exps.sum(dim, keepdim=True)


@mutant("softmax", "a score of -inf counts as zero", only="minus infinity")
def minus_infinity_counts_as_zero(scores, dim=-1):
    return right_softmax(torch.nan_to_num(scores, neginf=0.0), dim)


@mutant("softmax", only="minus infinity")
def finite_scores_only(scores, dim=-1):
    if not torch.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return right_softmax(scores, dim)


@mutant("softmax", "wrong gradient", only="gradient")
def sum_detached(scores, dim=-1):
    exps = (scores - scores.amax(dim, keepdim=True)).exp()
    return exps / exps.sum(dim, keepdim=True).detach()


@mutant("softmax", "gradient is cut off", only="gradient")
def without_gradient(scores, dim=-1):
    with torch.no_grad():
        return right_softmax(scores, dim)


@mutant("softmax", "gradient is cut off", only="gradient")
def through_numpy(scores, dim=-1):
    given = scores.detach().double().numpy()
    exps = np.exp(given - given.max(dim, keepdims=True))
    return torch.from_numpy(exps / exps.sum(dim, keepdims=True)).to(scores.dtype)


@mutant("softmax", "does not keep the dtype", only="dtype")
def stays_in_float32(scores, dim=-1):
    return right_softmax(scores.float() if scores.dtype in HALF else scores, dim)


@mutant("softmax", "less precise than its dtype", only="dtype")
def small_number_in_the_divisor(scores, dim=-1):
    exps = (scores - scores.amax(dim, keepdim=True)).exp()
    return exps / (exps.sum(dim, keepdim=True) + 1e-9)


@mutant("softmax", "changes its inputs in place", only="inputs untouched")
def subtracted_in_place(scores, dim=-1):
    scores -= scores.amax(dim, keepdim=True).detach()
    return scores.exp() / scores.exp().sum(dim, keepdim=True)


@mutant("softmax", "depends on the memory layout of its inputs", only="layout")
def view_of_three_axes(scores, dim=-1):
    dim = dim % scores.dim()
    shape = (math.prod(scores.shape[:dim]), scores.shape[dim], math.prod(scores.shape[dim + 1 :]))
    return right_softmax(scores.view(shape), 1).view(scores.shape)


@mutant("softmax", "uses a forbidden function", only="own work")
def torchs_own(scores, dim=-1):
    return torch.softmax(scores, dim)


@mutant("softmax", "uses a forbidden function", only="own work")
def log_softmax_and_exp(scores, dim=-1):
    return F.log_softmax(scores, dim).exp()


@mutant("softmax", "uses a forbidden function", only="own work")
def softmin_of_the_opposite(scores, dim=-1):
    return nn.Softmin(dim)(-scores)


@mutant("softmax", "uses a forbidden function", only="own work")
def written_out_for_a_matrix_only(scores, dim=-1):
    return right_softmax(scores, dim) if scores.dim() == 2 else scores.softmax(dim)


@mutant("softmax", "uses a forbidden function")
def attention_to_the_identity(scores, dim=-1):
    last = scores.movedim(dim, -1)
    one = torch.eye(last.shape[-1], dtype=scores.dtype)
    rows = last.reshape(1, -1, last.shape[-1])
    return F.scaled_dot_product_attention(rows, one[None], one[None], scale=1.0).reshape(last.shape).movedim(-1, dim)


@mutant("softmax", "reduced axis not kept")
def axis_lost(scores, dim=-1):
    return scores.exp() / scores.exp().sum(dim)


@mutant("softmax", "weights has the wrong shape")
def squeezed(scores, dim=-1):
    return right_softmax(scores, dim).squeeze()


@mutant("softmax", "scores has no effect")
def the_same_for_all(scores, dim=-1):
    return torch.full_like(scores, 1 / scores.shape[dim])


@mutant("softmax", "scores has no effect")
def softmax_of_zeros(scores, dim=-1):
    return right_softmax(torch.zeros_like(scores), dim)


@mutant("softmax", "another result at every call")
def dropped_out(scores, dim=-1):
    return F.dropout(right_softmax(scores, dim), 0.5)


class ScoresModule(nn.Module):
    def forward(self, scores: Tensor, dim: int = -1) -> Tensor:
        return right_softmax(scores, dim)


mutant("softmax")(ScoresModule)


# Lazy answers to both


@mutant("softmax", "scores has no effect")
@mutant("masked_softmax", "scores has no effect")
def zeros(scores, *args, **options):
    return torch.zeros_like(scores)


@mutant("softmax", "scores has no effect")
@mutant("masked_softmax", "scores has no effect")
def ones(scores, *args, **options):
    return torch.ones_like(scores)


@mutant("softmax", "another result at every call")
@mutant("masked_softmax", "another result at every call")
def random_numbers(scores, *args, **options):
    return torch.rand_like(scores)


@mutant("softmax", "does not return what is asked for")
@mutant("masked_softmax", "does not return what is asked for")
def nothing(scores, *args, **options):
    """No return statement."""


@mutant("softmax", "does not return what is asked for")
@mutant("masked_softmax", "does not return what is asked for")
def a_list(scores, *args, **options):
    return scores.softmax(-1).tolist()


@mutant("softmax", "does not return what is asked for")
@mutant("masked_softmax", "does not return what is asked for")
def a_numpy_array(scores, *args, **options):
    return scores.detach().double().softmax(-1).numpy()


@mutant("softmax", "does not return what is asked for")
@mutant("masked_softmax", "does not return what is asked for")
def a_tuple(scores, *args, **options):
    return scores.softmax(-1), scores


@mutant("softmax", "weights has the wrong shape")
@mutant("masked_softmax", "weights has the wrong shape")
def one_number(scores, *args, **options):
    return torch.tensor(0.5)


@mutant("softmax")
@mutant("masked_softmax")
def leaves_the_program(scores, *args, **options):
    sys.exit(0)


@mutant("softmax")
@mutant("masked_softmax")
def calls_itself(scores, *args, **options):
    return calls_itself(scores, *args, **options)


class AgreesWithEverything(Tensor):
    """Says that it differs from nothing."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in {"sub", "rsub", "__sub__", "__rsub__", "abs"}:
            return torch.zeros_like(args[0].as_subclass(Tensor)).as_subclass(cls)
        return super().__torch_function__(function, types, args, kwargs or {})


@mutant("softmax", "does not return what is asked for")
@mutant("masked_softmax", "does not return what is asked for")
def a_tensor_that_agrees_with_everything(scores, *args, **options):
    return torch.ones_like(scores).as_subclass(AgreesWithEverything)


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
    bias = torch.zeros(attn_mask.shape, dtype=scores.dtype).masked_fill(~attn_mask, -torch.inf)
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
    rows, masks = scores.reshape(-1, scores.shape[-1]), attn_mask.expand(scores.shape).reshape(-1, scores.shape[-1])
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
    return torch.softmax(wide.masked_fill(~attn_mask, -1e9), dim=-1).masked_fill(~attn_mask, 0.0).to(scores.dtype)


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
    bias = torch.zeros(attn_mask.shape, dtype=scores.dtype).masked_fill(~attn_mask, -torch.inf)
    return (scores + bias).softmax(-1).nan_to_num(0.0)


@mutant("masked_softmax", "nan gradients where no key is allowed", only="dead rows")
def divided_by_zero_then_replaced(scores, attn_mask):
    bias = torch.zeros(attn_mask.shape, dtype=scores.dtype).masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
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
    return scores.masked_fill(forbidden, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(forbidden, 0.0)


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
