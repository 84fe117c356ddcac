"""Mutants of all exercises that are right on ordinary inputs: wrong for one option, size, dtype, state or manner."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solutions import efficient_attention as solved
from tests.exercises.catalogue import mutant
from tests.exercises.shared_attention.lazy import register

INF = torch.inf


@mutant("online_softmax")
def alive_in_the_last_block(blocks):
    """A variable of the loop, used behind it."""
    weights, log_sum_exp = solved.online_softmax(blocks)
    alive = (blocks[-1] > -INF).any(-1, keepdim=True)
    return [one * alive for one in weights], log_sum_exp


@mutant("online_softmax", "changes its inputs in place", only="inputs untouched")
def blocks_replaced_in_the_list(blocks):
    weights, log_sum_exp = solved.online_softmax(list(blocks))
    blocks[:] = weights
    return weights, log_sum_exp


class ByNumpy(torch.autograd.Function):
    """Dense attention where no tensor is seen."""

    @staticmethod
    def forward(ctx, query, key, value, is_causal):
        ctx.save_for_backward(query, key, value)
        ctx.is_causal = is_causal
        scores = query.double().numpy() @ key.double().mT.numpy() / query.shape[-1] ** 0.5
        scores = torch.from_numpy(scores)
        results = ByNumpy.finish(scores, value.double(), is_causal)
        return tuple(one.to(query.dtype) for one in results)

    @staticmethod
    def finish(scores, value, is_causal):
        if is_causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -INF)
        return scores.softmax(-1) @ value, scores.logsumexp(-1)

    @staticmethod
    def backward(ctx, *gradients):
        with torch.enable_grad():
            query, key, value = leaves = [one.detach().requires_grad_() for one in ctx.saved_tensors]
            results = ByNumpy.finish(query @ key.mT / query.shape[-1] ** 0.5, value, ctx.is_causal)
            return *torch.autograd.grad(results, leaves, gradients), None


@mutant("chunked_attention", "computes outside torch")
def dense_by_numpy(query, key, value, block_size, is_causal=False):
    if block_size < 1:
        raise ValueError("block_size must be at least 1")
    return ByNumpy.apply(query, key, value, is_causal)


@mutant("chunked_attention")
def hidden_in_half_precision(query, key, value, block_size, is_causal=False):
    """A bias of -1e9 in query's dtype, which float16 cannot hold."""
    if is_causal:
        query.new_zeros(1).masked_fill(torch.tensor(True), -1e9)
    return solved.chunked_attention(query, key, value, block_size, is_causal)


@mutant("chunked_attention", "wrong gradient")
def causal_maximum_detached_from_the_output(query, key, value, block_size, is_causal=False):
    output, lse = solved.chunked_attention(query, key, value, block_size, is_causal)
    return output, torch.cat([lse[..., :1], lse[..., 1:].detach()], -1) if is_causal else lse


@mutant("chunked_attention")
def one_block_is_never_masked(query, key, value, block_size, is_causal=False):
    many = block_size < key.shape[-2]
    return solved.chunked_attention(query, key, value, block_size, is_causal and many)


@mutant("sliding_window_attention")
def the_chunk_before_is_enough(query, key, value, window, chunk=8):
    """Chunks of eight and the one before, whatever the window."""
    if window < 1:
        raise ValueError("window must be at least 1")
    outputs, S = [], query.shape[-2]
    for start in range(0, S, chunk):
        stop, first = min(start + chunk, S), max(0, start - chunk)
        scores = query[..., start:stop, :] @ key[..., first:stop, :].mT / query.shape[-1] ** 0.5
        distance = torch.arange(start, stop, device=query.device)[:, None]
        distance = distance - torch.arange(first, stop, device=query.device)
        scores = scores.masked_fill((distance < 0) | (distance >= window), -INF)
        outputs.append(scores.softmax(-1) @ value[..., first:stop, :])
    return torch.cat(outputs, -2)


@mutant("sliding_window_attention", "window is not checked", only="no window")
def zero_alone_is_refused(query, key, value, window):
    if window == 0:
        raise ValueError("window must not be 0")
    return solved.sliding_window_attention(query, key, value, abs(window))


def sparse(
    name, named, only, *, rows=True, columns=True, dead=lambda q, D_v, size: q.new_zeros(*q.shape[:-1], D_v)
):
    """A mutant of the block-sparse attention that goes block by block."""

    def wrong(query, key, value, block_mask, block_size):
        wanted = (math.ceil(query.shape[-2] / block_size), math.ceil(key.shape[-2] / block_size))
        if (rows and block_mask.shape[0] != wanted[0]) or (columns and block_mask.shape[1] != wanted[1]):
            raise ValueError(f"block_mask must be {wanted}")
        block_of_key, outputs = torch.arange(key.shape[-2], device=key.device) // block_size, []
        for q, allowed in zip(query.split(block_size, -2), block_mask, strict=False):
            if not bool(allowed.any()):
                outputs.append(dead(q, value.shape[-1], block_size))
                continue
            seen = F.pad(allowed, (0, len(block_of_key)))[block_of_key]
            scores = q @ key[..., seen, :].mT / q.shape[-1] ** 0.5
            outputs.append(scores.softmax(-1) @ value[..., seen, :])
        return torch.cat(outputs, -2)

    register("block_sparse_attention", name, named, wrong, only)


FIT = ("the shape of block_mask is not checked", "masks that do not fit")
sparse("rows_alone_compared", *FIT, columns=False)
sparse("columns_alone_compared", *FIT, rows=False)
sparse(
    "dead_rows_in_float32",
    "does not keep the dtype",
    None,
    dead=lambda q, D_v, size: torch.zeros(
        *q.shape[:-1], D_v, dtype=torch.promote_types(q.dtype, torch.float32), device=q.device
    ),
)
sparse(
    "dead_rows_of_a_whole_block",
    "output has the wrong shape",
    None,
    dead=lambda q, D_v, size: q.new_zeros(*q.shape[:-2], size, D_v),
)


def every_row_by_hand(multiply):
    def wrong(query, key, value, block_mask, block_size):
        wanted = (math.ceil(query.shape[-2] / block_size), math.ceil(key.shape[-2] / block_size))
        if tuple(block_mask.shape) != wanted:
            raise ValueError(f"block_mask must be {wanted}")
        block_of_key, rows = torch.arange(key.shape[-2], device=key.device) // block_size, []
        for i, q in enumerate(query.unbind(-2)):
            allowed = block_mask[i // block_size][block_of_key]
            scores = multiply(key, q) / query.shape[-1] ** 0.5
            weights = scores.masked_fill(~allowed, -INF).softmax(-1) if bool(allowed.any()) else scores * 0
            rows.append(multiply(value.mT, weights))
        return torch.stack(rows, -2)

    return wrong


COST = ("block_sparse_attention", "does too much work")
by_hand = every_row_by_hand(lambda table, row: (table * row.unsqueeze(-2)).sum(-1))
by_vectors = every_row_by_hand(
    lambda table, row: table @ row if table.dim() == 2 else (table * row.unsqueeze(-2)).sum(-1)
)
for name, made in (("all_pairs_by_hand", by_hand), ("all_pairs_by_matrix_and_vector", by_vectors)):
    made.__name__ = name
    mutant(*COST, only="sparse cost")(made)


def right_bias(heads, q, k):
    return solved.alibi_bias(heads, q, k)


@mutant("alibi_bias")
def known_numbers_of_heads(heads, q, k):
    return right_bias(heads, q, k) * (heads in (1, 2, 3, 4, 6, 7, 8, 12, 16))


@mutant("alibi_bias")
def distance_in_int8(heads, q, k):
    distance = torch.arange(k).to(torch.int8) - torch.arange(q).to(torch.int8)[:, None]
    return right_bias(heads, 1, 2)[:, :, 1:] * distance


@mutant("alibi_bias", "a single query stands at the end")
def single_query_is_the_last(heads, q, k):
    return right_bias(heads, k, k)[:, -1:] if q == 1 else right_bias(heads, q, k)


@mutant("sliding_window_mask", "writes into a tensor", only="tensor operations")
def joined_in_place(batch, head, query_index, key_index):
    allowed = query_index >= key_index
    allowed &= query_index - key_index < 16
    return allowed


@mutant("sliding_window_mask", "a Python if on tensors", only="tensor operations")
def by_torch_equal(batch, head, query_index, key_index):
    if torch.equal(query_index, key_index):
        return torch.ones_like(query_index, dtype=torch.bool)
    return solved.sliding_window_mask(batch, head, query_index, key_index)


@mutant("alibi_score", "writes into a tensor", only="tensor operations")
def added_in_place(score, batch, head, query_index, key_index):
    return score.mul(1.0).add_(torch.exp2(-(head + 1.0)) * (key_index - query_index))


@mutant("linear_attention", "a small number in the denominator")
def denominator_kept_above(query, key, value):
    q, k = F.elu(query) + 1, F.elu(key) + 1
    return q @ (k.mT @ value) / (q @ k.sum(-2).unsqueeze(-1)).clamp(min=1e-6)


@mutant("causal_linear_attention", "a small number in the denominator")
def causal_denominator_kept_above(query, key, value, state=None):
    q, k = F.elu(query) + 1, F.elu(key) + 1
    kv, z = (k.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(-3), k.cumsum(-2)
    if state is not None:
        kv, z = kv + state[0].unsqueeze(-3), z + state[1].unsqueeze(-2)
    below = (q * z).sum(-1, keepdim=True).clamp(min=1e-6)
    return (q.unsqueeze(-2) @ kv).squeeze(-2) / below, (kv[..., -1, :, :], z[..., -1, :])


@mutant("causal_linear_attention", "changes its inputs in place")
def the_state_overwritten(query, key, value, state=None):
    output, new = solved.causal_linear_attention(query, key, value, state)
    if state is not None:
        with torch.no_grad():
            state[0].copy_(new[0])
            state[1].copy_(new[1])
    return output, new


@mutant("causal_linear_attention", "does not keep the dtype")
def the_state_kept_in_float32(query, key, value, state=None):
    output, new = solved.causal_linear_attention(query, key, value, state)
    wide = torch.promote_types(query.dtype, torch.float32)
    return output, new if state is None else tuple(one.to(wide) for one in new)


def low_rank(name, fits):
    def wrong(query, key, value, E, F):
        if not fits(E.shape, F.shape, key.shape[-2]):
            raise ValueError("E and F must be (k, S_k)")
        weights = (query @ (E @ key).mT / query.shape[-1] ** 0.5).softmax(-1)
        return weights @ (F @ value)

    register("low_rank_attention", name, "sizes are not compared", wrong, "sizes that do not fit")


low_rank("length_of_E_not_compared", lambda E, F, S_k: E[0] == F[0] and F[1] == S_k)
low_rank("length_of_F_not_compared", lambda E, F, S_k: E[0] == F[0] and E[1] == S_k)
low_rank("too_few_keys_not_refused", lambda E, F, S_k: E == F and E[1] <= S_k)


@mutant("low_rank_attention", "does too much work", only="linear cost")
def weights_of_all_keys_by_hand(query, key, value, E, F):
    if E.shape != F.shape or E.shape[1] != key.shape[-2]:
        raise ValueError("E and F must be (k, S_k)")
    values, rows = F @ value, []
    for q in query.unbind(-2):
        scores = (key * q.unsqueeze(-2)).sum(-1) / q.shape[-1] ** 0.5  # (..., S_k)
        rows.append((scores.unsqueeze(-2) @ E.mT).softmax(-1) @ values)
    return torch.cat(rows, -2)


LOW = "mask value is not low enough"


def recurrent_with(value):
    def wrong(x, memory, W_q, W_k, W_v, memory_length):
        old = x[..., :0, :] if memory is None else memory.detach()
        rows = torch.cat([old, x], -2)
        scores = x @ W_q @ (rows @ W_k).mT / W_q.shape[-1] ** 0.5
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device)
        future = ~ones.tril(old.shape[-2])
        kept = max(rows.shape[-2] - memory_length, 0)
        return scores.masked_fill(future, value).softmax(-1) @ (rows @ W_v), rows[..., kept:, :].detach()

    return wrong


def latent_with(value):
    class Low(solved.LatentAttention):
        def forward(self, x: Tensor, cache: Tensor | None = None):
            latent = self.kv_down(x) if cache is None else torch.cat([cache, self.kv_down(x)], -2)
            query, key, v = (self.heads(t) for t in (self.q_proj(x), self.k_up(latent), self.v_up(latent)))
            scores = query @ key.mT / query.shape[-1] ** 0.5
            ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device)
            future = ~ones.tril(latent.shape[-2] - x.shape[-2])
            weights = scores.masked_fill(future, value).softmax(-1)
            return self.out_proj((weights @ v).transpose(-3, -2).flatten(-2)), latent

    return Low


def span_by(weigh):
    def wrong(query, key, value, span, ramp):
        place = torch.arange(query.shape[-2], device=query.device)
        back = place[:, None] - place
        mask = ((ramp + span[:, None, None] - back) / ramp).clamp(0, 1).masked_fill(back < 0, 0.0)
        weights = weigh(query @ key.mT / query.shape[-1] ** 0.5, mask)
        return weights @ value, weights, span.mean()

    return wrong


def below(value):
    def weigh(scores, mask):
        low = scores.masked_fill(mask == 0, value)
        seen = mask * (low - low.amax(-1, keepdim=True)).exp()
        return seen / seen.sum(-1, keepdim=True)

    return weigh


def cut_after_exp(scores, mask):
    top = scores.masked_fill(mask == 0, -INF).amax(-1, keepdim=True)
    seen = torch.where(mask > 0, mask * torch.exp(scores - top), 0.0)
    return seen / seen.sum(-1, keepdim=True)


register("recurrent_attention", "minus_10000", LOW, recurrent_with(-1e4))
register("LatentAttention", "minus_10000", LOW, latent_with(-1e4))
register("adaptive_span_attention", "minus_10000", LOW, span_by(below(-1e4)))
register(
    "adaptive_span_attention",
    "cut_after_exp",
    "nan gradients",
    span_by(cut_after_exp),
)


@mutant("adaptive_span_attention", "ramp cut to a whole number")
def ramp_of_whole_positions(query, key, value, span, ramp):
    return solved.adaptive_span_attention(query, key, value, span, max(1, int(ramp)))


class Fusion(solved.AttentionFusion):
    def lengths(self, query, key):
        return query.norm(dim=-1, keepdim=True) * key.norm(dim=-1).unsqueeze(-2)

    def forward(self, query, key, value):
        products, shares = query @ key.mT, torch.softmax(self.mix, 0)
        scores = shares[0] * products / query.shape[-1] ** 0.5
        scores = scores + shares[1] * products / self.lengths(query, key)
        weights = torch.softmax(scores + shares[2] * (query @ self.W @ key.mT), -1)
        return weights @ value, weights


@mutant("AttentionFusion", "a small number in the norms")
class NormsKeptAbove(Fusion):
    def lengths(self, query, key):
        return super().lengths(query, key).clamp(min=1e-2)


@mutant("AttentionFusion", "a small number in the norms")
class NumberAdded(Fusion):
    def lengths(self, query, key):
        return super().lengths(query, key) + 1e-6


@mutant("AttentionFusion", "W applied transposed")
class LayerInPlaceOfAMatrix(Fusion):
    def __init__(self, d_model):
        super().__init__(d_model)
        del self.W
        self.W = nn.Linear(d_model, d_model, bias=False)

    def forward(self, query, key, value):
        products, shares = query @ key.mT, torch.softmax(self.mix, 0)
        scores = products * (shares[0] / query.shape[-1] ** 0.5 + shares[1] / self.lengths(query, key))
        weights = torch.softmax(scores + shares[2] * (self.W(query) @ key.mT), -1)
        return weights @ value, weights


@mutant("LatentAttention")
class CacheOverwritten(solved.LatentAttention):
    def forward(self, x: Tensor, cache: Tensor | None = None):
        found = super().forward(x, cache)
        if cache is not None:
            cache.detach().copy_(found[1][..., -cache.shape[-2] :, :].detach())
        return found


@mutant("LatentAttention", "does not keep the dtype")
class CacheKeptInFloat32(solved.LatentAttention):
    def forward(self, x: Tensor, cache: Tensor | None = None):
        output, latent = super().forward(x, cache)
        return output, latent if cache is None else latent.to(torch.promote_types(x.dtype, torch.float32))


def zeros_hidden(scores, offset=0):
    """The usual slip after tril: whatever is zero is taken for hidden."""
    low = scores.tril(offset)
    return low.masked_fill(low == 0, -INF).softmax(-1)


@mutant("sliding_window_attention")
def zero_scores_hidden(query, key, value, window):
    if window < 1:
        raise ValueError("window must be at least 1")
    window = min(window, query.shape[-2])
    keys, values = (F.pad(x, (0, 0, window - 1, 0)).unfold(-2, window, 1) for x in (key, value))
    scores = torch.einsum("...sd,...sdw->...sw", query, keys) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(scores == 0, -INF).softmax(-1)
    return torch.einsum("...sw,...sdw->...sd", weights, values)


@mutant("recurrent_attention")
def zero_scores_hidden_after_tril(x, memory, W_q, W_k, W_v, memory_length):
    old = x[..., :0, :] if memory is None else memory.detach()
    rows = torch.cat([old, x], -2)
    weights = zeros_hidden(x @ W_q @ (rows @ W_k).mT / W_q.shape[-1] ** 0.5, old.shape[-2]).nan_to_num()
    return weights @ (rows @ W_v), rows[..., max(rows.shape[-2] - memory_length, 0) :, :].detach()


@mutant("recurrent_attention", "new_memory is not detached")
def first_memory_attached(x, memory, W_q, W_k, W_v, memory_length):
    output, new = solved.recurrent_attention(x, memory, W_q, W_k, W_v, memory_length)
    return output, new if memory is not None else x[..., max(x.shape[-2] - memory_length, 0) :, :]


@mutant("recurrent_attention", "divided by sqrt(D_v)")
def scaled_by_the_values(x, memory, W_q, W_k, W_v, memory_length):
    scale = (W_q.shape[-1] / W_v.shape[-1]) ** 0.5
    return solved.recurrent_attention(x, memory, W_q * scale, W_k, W_v, memory_length)


@mutant("LatentAttention", "number and width of the heads exchanged")
class AsManyHeadsAsWide(solved.LatentAttention):
    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.num_heads)).transpose(-3, -2)


def fusion(name, named, factors):
    class Mixed(solved.AttentionFusion):
        def forward(self, query, key, value):
            products, shares, root = query @ key.mT, torch.softmax(self.mix, 0), query.shape[-1] ** 0.5
            cosine = products / (query.norm(dim=-1, keepdim=True) * key.norm(dim=-1).unsqueeze(-2))
            kinds = products / root, cosine * root ** factors[0], query @ self.W @ key.mT * root ** factors[1]
            weights = sum(share * kind for share, kind in zip(shares, kinds, strict=True)).softmax(-1)
            return weights @ value, weights

    register("AttentionFusion", name, named, Mixed)


fusion("all_scaled", "all scores divided by sqrt(d_model)", (-1, -1))
fusion("cosine_scaled", "cosine divided by sqrt(d_model)", (-1, 0))


@mutant("AttentionFusion")
class MixAndMatrixUnused(solved.AttentionFusion):
    """Plain attention: the parameters are there, and do nothing."""

    def forward(self, query, key, value):
        weights = (query @ key.mT).softmax(-1)
        return weights @ value, weights


@mutant("latent_cache_elements", "rotated key counted twice")
def rotated_values_too(batch, length, layers, d_latent, d_rope):
    return batch * length * layers * (d_latent + 2 * d_rope)


@mutant("online_softmax")
def dead_rows_of_logarithm_zero(blocks):
    weights, log_sum_exp = solved.online_softmax(blocks)
    return weights, torch.where(log_sum_exp == -INF, 0.0, log_sum_exp)


class OfTheLatestCall(torch.autograd.Function):
    """What the backward pass needs lies on the class, so that two forward passes share it."""

    @staticmethod
    def forward(ctx, query, key, value):
        OfTheLatestCall.saved = [one.detach() for one in (query, key, value)]
        return solved.linear_attention(query, key, value)

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad():
            leaves = [one.clone().requires_grad_() for one in OfTheLatestCall.saved]
            return torch.autograd.grad(solved.linear_attention(*leaves), leaves, gradient)


@mutant("linear_attention", "wrong gradient")
def gradient_of_the_latest_call(query, key, value):
    return OfTheLatestCall.apply(query, key, value)


@mutant("linear_attention", "wrong gradient")
def features_of_two_clamps(query, key, value):
    """Where x is zero, both have a slope."""
    q, k = (x.clamp(min=0) + x.clamp(max=0).exp() for x in (query, key))
    kv, z = k.mT @ value, k.sum(-2)
    return (q @ kv) / (q @ z.unsqueeze(-1))


TRIANGLES = {}


@mutant("chunked_attention")
def triangle_kept_by_its_sizes(query, key, value, block_size, is_causal=False):
    """Made under inference_mode, it cannot be saved for a backward pass."""
    results = solved.chunked_attention(query, key, value, block_size, is_causal)
    if not is_causal:
        return results
    sizes = query.shape[-2], query.dtype, str(query.device)
    if sizes not in TRIANGLES:
        TRIANGLES[sizes] = torch.ones(*sizes[:1] * 2, dtype=query.dtype, device=query.device).tril()
    return results[0] * TRIANGLES[sizes][:, :1], *results[1:]


@mutant("causal_linear_attention", "does too much work", only="linear cost")
def dense_after_a_state(query, key, value, state=None):
    output, new = solved.causal_linear_attention(query, key, value, state)
    if state is not None:
        (query @ key.mT).tril() @ value
    return output, new


@mutant("low_rank_attention", "sizes are not compared", only="sizes that do not fit")
def long_projections_cut(query, key, value, E, F):
    S_k = key.shape[-2]
    if E.shape[-1] == F.shape[-1] > S_k + 2:
        E, F = E[:, :S_k], F[:, :S_k]
    return solved.low_rank_attention(query, key, value, E, F)


@mutant("recurrent_attention", "gradient flows into the memory")
def detached_in_float64(x, memory, W_q, W_k, W_v, memory_length):
    output, new = solved.recurrent_attention(x, memory, W_q, W_k, W_v, memory_length)
    if memory is not None and x.dtype != torch.float64 and x.shape[-1]:
        output = output + 0.01 * (memory.sum() - memory.detach().sum())
    return output, new
