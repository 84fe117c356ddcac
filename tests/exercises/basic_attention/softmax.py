"""`softmax`: right writings and mutants; lazy answers to `softmax` and `masked_softmax`."""

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
    total = functools.reduce(
        torch.add, (one.to(torch.promote_types(one.dtype, torch.float32)) for one in exps)
    )
    return torch.stack([(one / total).to(one.dtype) for one in exps], dim)


@mutant("softmax", "a long sum is kept in half precision")
def sum_of_entries_in_their_own_dtype(scores, dim=-1):
    exps = [torch.exp(entry - scores.amax(dim)) for entry in scores.unbind(dim)]
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


# softmax: mistakes that one check finds


@mutant("softmax", "weights do not sum to one")
def each_block_by_itself(scores, dim=-1):
    return torch.cat([right_softmax(block, dim) for block in scores.split(64, dim)], dim)


@mutant("softmax", "weights do not sum to one")
def online_without_rescaling(scores, dim=-1):
    top, total = torch.full_like(scores.narrow(dim, 0, 1), torch.finfo(scores.dtype).min), 0.0
    for block in scores.split(256, dim):
        top = torch.maximum(top, block.amax(dim, keepdim=True))
        total = total + (block - top).exp().sum(dim, keepdim=True)
    return (scores - top).exp() / total


@mutant("softmax", "goes wrong in long rows")
def top_hundred(scores, dim=-1):
    count = min(100, scores.shape[dim])
    least = scores.topk(count, dim).values.amin(dim, keepdim=True)
    return right_softmax(scores.masked_fill(scores < least, -torch.inf), dim)


@mutant("softmax", "overflows or underflows for large scores")
def shifted_by_the_mean(scores, dim=-1):
    mean = torch.nan_to_num(scores, neginf=0.0).mean(dim, keepdim=True)
    exps = (scores - mean).exp()
    return exps / exps.sum(dim, keepdim=True)


@mutant("softmax")
def finite_scores_only(scores, dim=-1):
    if not torch.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return right_softmax(scores, dim)


@mutant("softmax", "wrong gradient")
def sum_detached(scores, dim=-1):
    exps = (scores - scores.amax(dim, keepdim=True)).exp()
    return exps / exps.sum(dim, keepdim=True).detach()


@mutant("softmax", "makes a tensor on the CPU")
def through_numpy(scores, dim=-1):
    given = scores.detach().double().numpy()
    exps = np.exp(given - given.max(dim, keepdims=True))
    return torch.from_numpy(exps / exps.sum(dim, keepdims=True)).to(scores.dtype)


@mutant("softmax", "less precise than its dtype")
def small_number_in_the_divisor(scores, dim=-1):
    exps = (scores - scores.amax(dim, keepdim=True)).exp()
    return exps / (exps.sum(dim, keepdim=True) + 1e-9)


@mutant("softmax", "depends on the memory layout of its inputs")
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
def written_out_for_a_matrix_only(scores, dim=-1):
    return right_softmax(scores, dim) if scores.dim() == 2 else scores.softmax(dim)


@mutant("softmax", "weights has the wrong shape")
def squeezed(scores, dim=-1):
    return right_softmax(scores, dim).squeeze()


class ScoresModule(nn.Module):
    def forward(self, scores: Tensor, dim: int = -1) -> Tensor:
        return right_softmax(scores, dim)


mutant("softmax")(ScoresModule)


# Lazy answers to both


@mutant("softmax", "another result at every call")
@mutant("masked_softmax", "forbidden keys keep some weight")
def random_numbers(scores, *args, **options):
    return torch.rand_like(scores)


@mutant("softmax", "does not return what is asked for")
@mutant("masked_softmax", "does not return what is asked for")
def a_tuple(scores, *args, **options):
    return scores.softmax(-1), scores


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
