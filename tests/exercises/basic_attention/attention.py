"""`attention`: right writings and mutants."""

from __future__ import annotations

import math
import sys
from collections import namedtuple

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right


def fit(query, key, value):
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError("sizes do not fit")


def allow(query, key, attn_mask, is_causal):
    allowed = torch.ones(*query.shape[:-1], key.shape[-2], dtype=torch.bool, device=query.device)
    if is_causal:
        allowed = allowed.tril()
    return allowed if attn_mask is None else allowed & attn_mask


def right_weights(scores, allowed):
    hidden = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return torch.softmax(hidden, -1).masked_fill(~allowed, 0.0)


def right_attention(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    weights = right_weights(scores, allow(query, key, attn_mask, is_causal))
    return weights @ value, weights


# Right writings


@right("attention")
def einsum_with_minus_infinity(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = torch.einsum("...qd,...kd->...qk", query, key) * query.shape[-1] ** -0.5
    allowed = allow(query, key, attn_mask, is_causal)
    dead = ~allowed.any(-1, keepdim=True)
    scores = scores.masked_fill(~allowed, -torch.inf).masked_fill(dead, 0.0)
    weights = F.softmax(scores, dim=-1).masked_fill(dead, 0.0)
    return torch.einsum("...qk,...kv->...qv", weights, value), weights


@right("attention")
def loop_over_queries(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    S_q, S_k, D = query.shape[-2], key.shape[-2], query.shape[-1]
    lead = query.shape[:-2]
    masks = None if attn_mask is None else attn_mask.expand(*lead, S_q, S_k).reshape(-1, S_q, S_k)
    outputs, tables = [], []
    for n, (q, k, v) in enumerate(
        zip(*(t.reshape(-1, *t.shape[-2:]) for t in (query, key, value)), strict=True)
    ):
        for i in range(S_q):
            seen = [
                j for j in range(S_k) if (not is_causal or j <= i) and (masks is None or bool(masks[n, i, j]))
            ]
            row = query.new_zeros(S_k)
            if seen:
                row = row.index_put(
                    (torch.tensor(seen, device=query.device),), torch.softmax(k[seen] @ q[i] / D**0.5, 0)
                )
            outputs.append(row @ v)
            tables.append(row)
    return torch.stack(outputs).reshape(*lead, S_q, -1), torch.stack(tables).reshape(*lead, S_q, S_k)


@right("attention")
def multiply_and_sum(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = (query.unsqueeze(-2) * key.unsqueeze(-3)).sum(-1) / math.sqrt(key.size(-1))
    weights = right_weights(scores, allow(query, key, attn_mask, is_causal))
    return (weights.unsqueeze(-1) * value.unsqueeze(-3)).sum(-2), weights


@right("attention")
def exp_minus_logsumexp(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-1, -2)
    allowed = allow(query, key, attn_mask, is_causal)
    scores = torch.where(allowed, scores, torch.finfo(scores.dtype).min)
    weights = torch.exp(scores - torch.logsumexp(scores, -1, keepdim=True))
    weights = torch.where(allowed, weights, 0)
    return weights @ value, weights


@right("attention")
def numerator_over_denominator(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    allowed = allow(query, key, attn_mask, is_causal)
    scores = (query @ key.mT).div(math.sqrt(query.shape[-1])).masked_fill(~allowed, float("-inf"))
    top = scores.amax(-1, keepdim=True)
    numerator = (scores - top.masked_fill(top == -torch.inf, 0.0)).exp()
    total = numerator.sum(-1, keepdim=True)
    weights = numerator / total.masked_fill(total == 0, 1.0)
    return weights @ value, weights


@right("attention")
def float_mask_added(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    allowed = allow(query, key, attn_mask, is_causal)
    bias = torch.zeros_like(allowed, dtype=query.dtype).masked_fill(~allowed, -torch.inf)
    bias = bias.masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    weights = (query @ key.mT / query.shape[-1] ** 0.5 + bias).softmax(-1) * allowed
    return weights @ value, weights


@right("attention")
def batched_matrix_products(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    (*lead, S_q, D), (S_k, D_v) = query.shape, value.shape[-2:]
    scores = torch.bmm(query.reshape(-1, S_q, D), key.reshape(-1, S_k, D).transpose(1, 2)) / D**0.5
    allowed = allow(query, key, attn_mask, is_causal).reshape(-1, S_q, S_k)
    weights = right_weights(scores, allowed)
    output = torch.bmm(weights, value.reshape(-1, S_k, D_v))
    return output.view(*lead, S_q, D_v), weights.view(*lead, S_q, S_k)


@right("attention")
def float32_inside(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    dtype = query.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    weights = right_weights(
        query @ key.mT / math.sqrt(query.shape[-1]), allow(query, key, attn_mask, is_causal)
    )
    return (weights @ value).to(dtype), weights.to(dtype)


@right("attention")
def minus_a_billion_in_float32(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    allowed = allow(query, key, attn_mask, is_causal)
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores.to(wide).masked_fill(~allowed, -1e9), -1).to(scores.dtype)
    weights = weights * allowed.any(-1, keepdim=True)
    return weights @ value, weights


def _in_blocks_of_four(query, key, value, attn_mask, is_causal, kept):
    """kept: the dtype in which the sums are kept."""
    fit(query, key, value)
    lowest = torch.finfo(query.dtype).min
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    allowed = allow(query, key, attn_mask, is_causal)
    top = torch.full_like(query[..., :1], lowest)
    total = torch.zeros_like(top, dtype=kept)
    output = query.new_zeros(*query.shape[:-1], value.shape[-1], dtype=kept)
    for start in range(0, key.shape[-2], 4):
        block, seen = scores[..., start : start + 4], allowed[..., start : start + 4]
        new_top = torch.maximum(top, block.masked_fill(~seen, lowest).amax(-1, keepdim=True))
        part = torch.where(seen, (block - new_top).masked_fill(~seen, 0.0).exp(), 0.0)
        total = total * (top - new_top).exp() + part.sum(-1, keepdim=True)
        output = output * (top - new_top).exp() + part @ value[..., start : start + 4, :]
        top = new_top
    safe = total.masked_fill(total == 0, 1.0)
    weights = torch.where(allowed, (scores - top).masked_fill(~allowed, 0.0).exp(), 0.0) / safe
    return (output / safe).to(query.dtype), weights.to(query.dtype)


@right("attention")
def online_softmax_in_blocks_of_four(query, key, value, attn_mask=None, is_causal=False):
    kept = torch.promote_types(query.dtype, torch.float32)
    return _in_blocks_of_four(query, key, value, attn_mask, is_causal, kept)


@mutant("attention", "a long sum is kept in half precision")
def online_softmax_in_the_inputs_dtype(query, key, value, attn_mask=None, is_causal=False):
    return _in_blocks_of_four(query, key, value, attn_mask, is_causal, query.dtype)


@right("attention")
def nan_replaced_after_masked_fill(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    scores = scores.masked_fill(~allow(query, key, attn_mask, is_causal), -torch.inf)
    weights = scores.softmax(
        -1
    ).nan_to_num()  # masked_fill lets no gradient through, so none of the nan either
    return weights @ value, weights


Result = namedtuple("Result", "output weights")


@right("attention")
def transposed_products_in_a_named_tuple(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    root = query.shape[-1] ** 0.25
    scores = ((key / root) @ (query / root).mT).mT
    allowed = torch.ones_like(scores, dtype=torch.bool) if attn_mask is None else attn_mask.expand_as(scores)
    if is_causal:
        rows = torch.arange(scores.shape[-2], device=scores.device).unsqueeze(-1)
        allowed = allowed & (torch.arange(scores.shape[-1], device=scores.device) <= rows)
    weights = (
        torch.log_softmax(scores.masked_fill(~allowed, torch.finfo(scores.dtype).min), -1).exp() * allowed
    )
    return Result((value.mT @ weights.mT).mT, weights)


@right("attention")
def exact_in_float64(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    output, weights = right_attention(query.double(), key.double(), value.double(), attn_mask, is_causal)
    return [output.to(query.dtype), weights.to(query.dtype)]


@right("attention")
def in_place_on_its_own_tensors(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = torch.matmul(query, key.transpose(-2, -1))
    scores /= math.sqrt(query.shape[-1])
    blocked = torch.zeros_like(scores, dtype=torch.bool)
    if attn_mask is not None:
        blocked |= ~attn_mask
    if is_causal:
        blocked |= torch.ones_like(blocked).triu(1)
    scores.masked_fill_(blocked, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1).masked_fill(blocked, 0)
    return weights.matmul(value), weights


# Mutants: the scale


def variant(
    name, named=None, *, only=None, scale=None, weigh=right_weights, see=allow, score=None, finish=None
):
    """Register a mutant that differs from the right writing in the parts given."""

    def function(query, key, value, attn_mask=None, is_causal=False):
        fit(query, key, value)
        factor = query.shape[-1] ** -0.5 if scale is None else scale(query, key, value)
        scores = (query @ key.mT if score is None else score(query, key)) * factor
        weights = weigh(scores, see(query, key, attn_mask, is_causal))
        return (weights @ value, weights) if finish is None else finish(weights, value, scores)

    function.__name__ = name
    mutant("attention", named, only=only)(function)


# Mutants: from scores to weights


def minus_infinity(scores, allowed):
    return scores.masked_fill(~allowed, -torch.inf)


def alive(weights, allowed):
    return weights * allowed.any(-1, keepdim=True)


variant(
    "tiny_in_place_of_huge",
    "masked scores set to zero",
    weigh=lambda s, a: s.masked_fill(~a, 1e-9).softmax(-1),
)
variant(
    "infinity_added_and_nan_replaced",
    "nan gradients",
    weigh=lambda s, a: (s + torch.zeros_like(s).masked_fill(~a, -torch.inf)).softmax(-1).nan_to_num(),
)
variant(
    "all_zero_if_any_row_is_dead",
    weigh=lambda s, a: right_weights(s, a) * a.any(-1).all(),
)
variant(
    "minus_ten_thousand",
    weigh=lambda s, a: s.masked_fill(~a, -1e4).softmax(-1) * a.any(-1, keepdim=True),
)
variant(
    "minus_a_billion_in_half",
    "mask value does not fit the dtype",
    weigh=lambda s, a: alive(s.masked_fill(~a, -1e9).softmax(-1), a),
)


def naive(scores, allowed):
    numerator = minus_infinity(scores.to(torch.promote_types(scores.dtype, torch.float32)), allowed).exp()
    return (numerator / numerator.sum(-1, keepdim=True).clamp_min(1e-30)).to(scores.dtype)


variant("exp_of_raw_scores", weigh=naive)
variant(
    "maximum_of_everything",
    "weights do not sum to one",
    weigh=lambda s, a: naive(s - minus_infinity(s, a).max(), a),
)
variant(
    "maximum_before_the_mask",
    "weights do not sum to one",
    weigh=lambda s, a: naive(s - s.amax(-1, keepdim=True), a),
)
variant(
    "scores_clamped",
    weigh=lambda s, a: right_weights(s.clamp(-50, 50), a),
)
variant(
    "top_ten_keys",
    None,
    weigh=lambda s, a: right_weights(s, a & (s >= s.topk(min(10, s.shape[-1])).values[..., -1:])),
)
variant(
    "dropout_left_on", "another result at every call", weigh=lambda s, a: F.dropout(right_weights(s, a), 0.1)
)
variant("temperature_of_two", None, weigh=lambda s, a: right_weights(s / 2, a))


# Mutants: the masks


variant(
    "window_of_three",
    see=lambda q, k, m, c: (
        allow(q, k, m, c) & (torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(-2) if c else True)
    ),
)


@mutant("attention", "causal mask turned round")
def transposed_triangle(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    allowed = allow(query, key, attn_mask, False)
    if is_causal:
        allowed = allowed & torch.ones(key.shape[-2], query.shape[-2], dtype=torch.bool).tril().mT
    weights = right_weights(query @ key.mT / query.shape[-1] ** 0.5, allowed)
    return weights @ value, weights


@mutant("attention", "causal mask is square")
def square_triangle(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    allowed = allow(query, key, attn_mask, False)
    if is_causal:
        allowed = allowed & torch.ones(query.shape[-2], query.shape[-2], dtype=torch.bool).tril()
    weights = right_weights(query @ key.mT / query.shape[-1] ** 0.5, allowed)
    return weights @ value, weights


@mutant("attention")
def one_query_is_the_last(query, key, value, attn_mask=None, is_causal=False):
    return right_attention(query, key, value, attn_mask, is_causal and query.shape[-2] > 1)


@mutant("attention")
def causal_after_softmax(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    weights = right_weights(query @ key.mT / query.shape[-1] ** 0.5, allow(query, key, attn_mask, False))
    if is_causal and attn_mask is None:
        weights = weights.tril()
    elif is_causal:
        return right_attention(query, key, value, attn_mask, True)
    return weights @ value, weights


@mutant("attention", "mask is not broadcast")
def mask_needs_all_axes(query, key, value, attn_mask=None, is_causal=False):
    if attn_mask is not None and attn_mask.dim() != query.dim():
        raise ValueError("attn_mask must have as many axes as query")
    return right_attention(query, key, value, attn_mask, is_causal)


@mutant("attention", "mask applied after the softmax")
def values_masked_in_place_of_scores(query, key, value, attn_mask=None, is_causal=False):
    weights = right_attention(query, key, value, None, is_causal)[1]
    if attn_mask is not None:
        weights = weights * attn_mask
    return weights @ value, weights


# Mutants: the products


variant(
    "small_weights_dropped",
    finish=lambda w, v, s: (w @ v, w.masked_fill(w < 1e-6, 0.0)),
)
variant(
    "weights_of_all_heads_averaged",
    "weights has the wrong shape",
    finish=lambda w, v, s: (w @ v, w.mean(-3) if w.dim() > 2 else w),
)
variant(
    "output_as_numpy",
    "does not return what is asked for",
    finish=lambda w, v, s: ((w @ v).detach().float().numpy(), w),
)
variant("three_results", "does not return what is asked for", finish=lambda w, v, s: (w @ v, w, s))
variant(
    "output_clamped",
    finish=lambda w, v, s: ((w @ v).clamp(-50, 50), w),
)
variant(
    "sum_over_the_batch",
    finish=lambda w, v, s: (
        (w @ v).sum(0, keepdim=True).expand(*w.shape[:-1], v.shape[-1]) if w.dim() > 2 else w @ v,
        w,
    ),
)
variant("values_shifted", finish=lambda w, v, s: (w @ v.roll(1, -2), w))
variant("value_half_detached", "wrong gradient", finish=lambda w, v, s: (w @ (v * 0.5 + v.detach() * 0.5), w))


# Mutants: conduct


@mutant("attention", "sizes are not compared", only="sizes that do not fit")
def sizes_not_compared(query, key, value, attn_mask=None, is_causal=False):
    weights = right_weights(query @ key.mT / query.shape[-1] ** 0.5, allow(query, key, attn_mask, is_causal))
    return weights @ value, weights


@mutant("attention", "raises another exception than ValueError", only="sizes that do not fit")
def sizes_asserted(query, key, value, attn_mask=None, is_causal=False):
    assert query.shape[-1] == key.shape[-1]
    assert key.shape[-2] == value.shape[-2]
    return right_attention(query, key, value, attn_mask, is_causal)


@mutant("attention", "sizes are not compared", only="sizes that do not fit")
def stretched_keys(query, key, value, attn_mask=None, is_causal=False):
    try:
        scores = (query.unsqueeze(-2) * key.unsqueeze(-3)).sum(-1) / query.shape[-1] ** 0.5
        weights = right_weights(scores, allow(query, key, attn_mask, is_causal))
        return weights @ value, weights
    except RuntimeError as error:
        raise ValueError("sizes do not fit") from error


@mutant("attention")
def mask_inverted_in_place(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    blocked = torch.zeros(query.shape[-2], key.shape[-2], dtype=torch.bool)
    if attn_mask is not None:
        blocked = attn_mask.logical_not_()
    if is_causal:
        blocked = blocked | torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).triu(1)
    return right_attention(query, key, value, ~blocked, False)


@mutant("attention")
def bfloat16_inside(query, key, value, attn_mask=None, is_causal=False):
    if query.dtype != torch.float16:
        return right_attention(query, key, value, attn_mask, is_causal)
    output, weights = right_attention(
        query.bfloat16(), key.bfloat16(), value.bfloat16(), attn_mask, is_causal
    )
    return output.half(), weights.half()


@mutant("attention", "depends on the memory layout of its inputs")
def views_of_the_inputs(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    (*lead, S_q, D), S_k = query.shape, key.shape[-2]
    scores = torch.bmm(query.view(-1, S_q, D), key.view(-1, S_k, D).mT).view(*lead, S_q, S_k) / D**0.5
    weights = right_weights(scores, allow(query, key, attn_mask, is_causal))
    return weights @ value, weights


@mutant("attention", "uses a forbidden function", only="own work")
def fused_kernel_with_a_mask(query, key, value, attn_mask=None, is_causal=False):
    output, weights = right_attention(query, key, value, attn_mask, is_causal)
    if attn_mask is not None and not is_causal and bool(attn_mask.any(-1).all()):
        return F.scaled_dot_product_attention(query, key, value, attn_mask.expand(weights.shape)), weights
    return output, weights


@mutant("attention", "gradient is cut off")
def masked_scores_detached(query, key, value, attn_mask=None, is_causal=False):
    if attn_mask is not None and bool(attn_mask.any(-1).all()):
        query = query.detach()
    return right_attention(query, key, value, attn_mask, is_causal)


@mutant("attention")
def returned_weights_not_normalised(query, key, value, attn_mask=None, is_causal=False):
    output, weights = right_attention(query, key, value, attn_mask, is_causal)
    if attn_mask is not None and not is_causal:
        weights = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1) * attn_mask
    return output, weights


@mutant("attention", "returned weights are not those that made the output")
def returned_weights_unscaled_with_a_mask(query, key, value, attn_mask=None, is_causal=False):
    output, weights = right_attention(query, key, value, attn_mask, is_causal)
    if attn_mask is not None and not is_causal:
        weights = right_weights(query @ key.mT, attn_mask)
    return output, weights


@mutant("attention", "uses a forbidden function", only="own work")
def fused_kernel(query, key, value, attn_mask=None, is_causal=False):
    output, weights = right_attention(query, key, value, attn_mask, is_causal)
    if attn_mask is None and value.shape[-2] > 1:
        return F.scaled_dot_product_attention(query, key, value, is_causal=is_causal), weights
    return output, weights


@mutant("attention", "does too much work", only="cost")
def every_head_with_every_other(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    q, k = query.reshape(-1, *query.shape[-2:]), key.reshape(-1, *key.shape[-2:])
    pairs = torch.einsum("nqd,mkd->nmqk", q, k)
    scores = pairs.diagonal(dim1=0, dim2=1).movedim(-1, 0).reshape(*query.shape[:-1], key.shape[-2])
    weights = right_weights(scores / query.shape[-1] ** 0.5, allow(query, key, attn_mask, is_causal))
    return weights @ value, weights


EINSUMS = {2: "qd,kd->qk", 3: "bqd,bkd->bqk", 4: "bhqd,bhkd->bhqk"}


@mutant("attention", "fixed number of leading axes")
def at_most_four_axes(query, key, value, attn_mask=None, is_causal=False):
    fit(query, key, value)
    scores = torch.einsum(EINSUMS[query.dim()], query, key) / query.shape[-1] ** 0.5
    weights = right_weights(scores, allow(query, key, attn_mask, is_causal))
    return weights @ value, weights


@mutant("attention")
def guesses_the_layout(query, key, value, attn_mask=None, is_causal=False):
    if query.shape == key.shape == value.shape and query.shape[-1] == query.shape[-2]:
        key = key.mT
    return right_attention(query, key, value, attn_mask, is_causal)


@mutant("attention")
def last_block_of_keys_lost(query, key, value, attn_mask=None, is_causal=False):
    _, weights = right_attention(query, key, value, attn_mask, is_causal)
    whole = max(key.shape[-2], 32) // 32 * 32
    return weights[..., :whole] @ value[..., :whole, :], weights


@mutant("attention")
def last_block_of_queries_lost(query, key, value, attn_mask=None, is_causal=False):
    output, weights = right_attention(query, key, value, attn_mask, is_causal)
    whole = max(query.shape[-2], 32) // 32 * 32
    return F.pad(output[..., :whole, :], (0, 0, 0, max(query.shape[-2] - whole, 0))), weights


@mutant("attention", "output has the wrong shape")
def one_query_is_broadcast(query, key, value, attn_mask=None, is_causal=False):
    if query.shape[-2] == 1 < key.shape[-2] and not is_causal:
        query = query.expand(*query.shape[:-2], key.shape[-2], query.shape[-1])
    return right_attention(query, key, value, attn_mask, is_causal)


# Mutants: no attempt at all


class Agreeable(torch.Tensor):
    """A tensor that says yes to everything."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return torch.zeros(()).new_zeros(0) if func.__name__ in ("detach", "to") else True


def lazy(name, named, function, only=None):
    def attempt(query, key, value, attn_mask=None, is_causal=False):
        return function(query, key, value)

    attempt.__name__ = name
    mutant("attention", named, only=only)(attempt)


def blank(query, key, value):
    return torch.zeros(*query.shape[:-1], value.shape[-1]), torch.zeros(*query.shape[:-1], key.shape[-2])


lazy(
    "agreeable_tensors",
    "does not return what is asked for",
    lambda q, k, v: tuple(t.as_subclass(Agreeable) for t in blank(q, k, v)),
)
lazy("leaves_the_process", None, lambda q, k, v: sys.exit(0))


@mutant("attention")
def calls_itself(query, key, value, attn_mask=None, is_causal=False):
    return calls_itself(query, key, value, attn_mask, is_causal)


@mutant("attention")
def always_refuses(query, key, value, attn_mask=None, is_causal=False):
    raise ValueError("sizes do not fit")


@mutant("attention")
class AClass:
    def __init__(self, query, key, value, attn_mask=None, is_causal=False):
        self.value = value


@mutant("attention", "an argument that it does not take")
def takes_no_options(query, key, value):
    return right_attention(query, key, value)
