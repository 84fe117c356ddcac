"""Right writings of all exercises: unusual ones, true to the docstrings."""

from __future__ import annotations

import functools
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import right

INF = torch.inf


def wide(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def at_least_one(size):
    if size < 1:
        raise ValueError("must be at least 1")


@right("online_softmax")
def two_passes(blocks):
    """The maxima first, then the sums; everything in float64."""
    tops = [block.amax(-1).double() for block in blocks]
    m = functools.reduce(torch.maximum, tops)
    m = m.masked_fill(m == -INF, 0.0).unsqueeze(-1).detach()
    total = sum((block.double() - m).exp().sum(-1, keepdim=True) for block in blocks)
    inverse = torch.where(total > 0, 1 / total.masked_fill(total == 0, 1.0), 0.0)
    weights = [((block.double() - m).exp() * inverse).to(block.dtype) for block in blocks]
    return weights, (m + total.log()).squeeze(-1).to(blocks[0].dtype)


@right("online_softmax")
def merged_by_recursion(blocks):
    """Halves of the list, merged by their maxima and sums."""

    def state(part):
        if len(part) == 1:
            m = part[0].amax(-1)
            return m, (part[0] - m.masked_fill(m == -INF, 0.0).unsqueeze(-1)).exp().sum(-1)
        (m1, s1), (m2, s2) = state(part[: len(part) // 2]), state(part[len(part) // 2 :])
        m = torch.maximum(m1, m2)
        safe = m.masked_fill(m == -INF, 0.0)
        return m, s1 * (m1 - safe).exp() + s2 * (m2 - safe).exp()

    m, total = state(list(blocks))
    log_sum_exp = m.masked_fill(m == -INF, 0.0) + total.log()
    shift = torch.where(log_sum_exp == -INF, 0.0, log_sum_exp).unsqueeze(-1)
    return tuple((block - shift).exp() for block in blocks), log_sum_exp


@right("chunked_attention")
def key_by_key(query, key, value, block_size, is_causal=False):
    """A key at a time, by multiplying and adding."""
    at_least_one(block_size)
    q, k, v = (wide(x) for x in (query * 1.0, key, value))
    q = q * query.shape[-1] ** -0.5
    m = (q * k[..., :1, :]).sum(-1)
    total, output = torch.ones_like(m), v[..., :1, :].expand(*q.shape[:-1], v.shape[-1])
    for j in range(1, key.shape[-2]):
        score = (q * k[..., j : j + 1, :]).sum(-1)
        if is_causal:
            score = torch.where(torch.arange(q.shape[-2], device=q.device) >= j, score, -INF)
        new = torch.maximum(m, score)
        old, p = (m - new).exp(), (score - new).exp()
        m, total = new, total * old + p
        output = output * old.unsqueeze(-1) + p.unsqueeze(-1) * v[..., j : j + 1, :]
    return (output / total.unsqueeze(-1)).to(query.dtype), (m + total.log()).to(query.dtype)


@right("chunked_attention")
def blocks_merged_by_their_sums(query, key, value, block_size, is_causal=False):
    """A softmax for each block, merged by log-sum-exp; the last block first."""
    at_least_one(block_size)
    q, k, v = query.double(), key.double(), value.double()
    rows, output, lse = torch.arange(q.shape[-2], device=q.device).unsqueeze(-1), 0.0, None
    for start in reversed(range(0, k.shape[-2], block_size)):
        scores = torch.einsum("...qd,...kd->...qk", q, k[..., start : start + block_size, :]) / math.sqrt(
            q.shape[-1]
        )
        if is_causal:
            scores = scores.masked_fill(start + torch.arange(scores.shape[-1], device=q.device) > rows, -1e30)
        part = scores.logsumexp(-1)
        merged = part if lse is None else torch.logaddexp(lse, part)
        here = (scores - merged.unsqueeze(-1)).exp() @ v[..., start : start + block_size, :]
        output = here if lse is None else output * (lse - merged).exp().unsqueeze(-1) + here
        lse = merged
    return output.to(query.dtype), lse.to(query.dtype)


@right("sliding_window_attention")
def gathered_by_positions(query, key, value, window):
    """Each query's positions as indices; those before the start hidden."""
    at_least_one(window)
    S, D = query.shape[-2:]
    place = torch.arange(S, device=query.device).unsqueeze(-1)
    place = place - torch.arange(min(window, S), device=query.device)
    keys, values = key[..., place.clamp(min=0), :], value[..., place.clamp(min=0), :]
    scores = (keys @ query.unsqueeze(-1)).squeeze(-1) / D**0.5
    weights = F.softmax(scores.masked_fill(place < 0, -INF), dim=-1)
    return (weights.unsqueeze(-2) @ values).squeeze(-2)


@right("sliding_window_attention")
def distance_by_distance(query, key, value, window):
    """Scores by rolling the keys, one distance after another; float64 inside."""
    at_least_one(window)
    q, k, v = query.double(), key.double(), value.double()
    S = q.shape[-2]
    rows = torch.arange(S, device=q.device)
    steps = range(min(window, S))
    scores = torch.stack(
        [(q * k.roll(back, -2)).sum(-1).masked_fill(rows < back, -INF) for back in steps], -1
    )
    weights = (scores / q.shape[-1] ** 0.5).softmax(-1)
    output = sum(weights[..., back, None] * v.roll(back, -2) for back in steps)
    return output.to(query.dtype)


def fits(query, key, block_mask, block_size):
    if block_mask.shape != (-(-query.shape[-2] // block_size), -(-key.shape[-2] // block_size)):
        raise ValueError(f"block_mask {tuple(block_mask.shape)} does not fit")


@right("block_sparse_attention")
def written_into_zeros(query, key, value, block_mask, block_size):
    fits(query, key, block_mask, block_size)
    output = query.new_zeros(*query.shape[:-1], value.shape[-1])
    for i in range(len(block_mask)):
        blocks = [range(j * block_size, min((j + 1) * block_size, key.shape[-2]))
                  for j, allowed in enumerate(block_mask[i].tolist()) if allowed]  # fmt: skip
        if not blocks:
            continue
        columns = torch.tensor(list(itertools.chain(*blocks)), device=key.device)
        rows = slice(i * block_size, (i + 1) * block_size)
        scores = query[..., rows, :] @ key.index_select(-2, columns).mT / query.shape[-1] ** 0.5
        output[..., rows, :] = scores.softmax(-1) @ value.index_select(-2, columns)
    return output


@right("block_sparse_attention")
def sums_of_exponentials(query, key, value, block_mask, block_size):
    """Row maxima from the allowed tiles first; then sums of exponentials, in float64."""
    fits(query, key, block_mask, block_size)
    q, k, v = ((x.double()).split(block_size, -2) for x in (query, key, value))
    outputs = []
    for i, row in enumerate(block_mask):
        tiles = [(q[i] @ k[j].mT / query.shape[-1] ** 0.5, v[j]) for j in range(len(k)) if row[j]]
        if not tiles:
            outputs.append(q[i].new_zeros(*q[i].shape[:-1], value.shape[-1]))
            continue
        m = torch.stack([s.amax(-1, keepdim=True) for s, _ in tiles]).amax(0)
        above = sum((s - m).exp() @ values for s, values in tiles)
        outputs.append(above / sum((s - m).exp().sum(-1, keepdim=True) for s, _ in tiles))
    return torch.cat(outputs, -2).to(query.dtype)


@right("alibi_bias")
def as_the_authors_write_it(num_heads, length_q, length_k):
    def slopes(n):
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    def every(n):
        if math.log2(n).is_integer():
            return slopes(n)
        closest = 2 ** math.floor(math.log2(n))
        return slopes(closest) + every(2 * closest)[0::2][: n - closest]

    i, j = torch.meshgrid(torch.arange(length_q), torch.arange(length_k), indexing="ij")
    return torch.einsum("h,qk->hqk", torch.tensor(every(num_heads), dtype=torch.float32), (j - i).float())


@right("alibi_bias")
def number_by_number(num_heads, length_q, length_k):
    power = 1 << (num_heads.bit_length() - 1)
    exponents = [-8 * (h + 1) / power for h in range(power)]
    exponents += [-8 * (2 * h + 1) / (2 * power) for h in range(num_heads - power)]
    table = [[[2**e * (j - i) for j in range(length_k)] for i in range(length_q)] for e in exponents]
    return torch.tensor(table, dtype=torch.float32)


@right("sliding_window_mask")
def by_where(batch, head, query_index, key_index):
    behind = query_index - key_index
    return torch.where(behind < 0, False, behind <= 15)


@right("sliding_window_mask")
def one_of_sixteen(batch, head, query_index, key_index):
    return torch.stack([query_index - key_index == back for back in range(16)]).any(0)


@right("alibi_score")
def by_exp(score, batch, head, query_index, key_index):
    slope = torch.exp(-(head.to(score.dtype) + 1) * math.log(2.0))
    return torch.addcmul(score, slope, (key_index - query_index).to(score.dtype))


@right("alibi_score")
def by_halving(score, batch, head, query_index, key_index):
    distance = (query_index - key_index).to(score.dtype)
    return score - distance / (2 ** (head + 1))


@right("linear_attention")
def under_vmap(query, key, value):
    def phi(x):
        return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))

    def one(q, k, v):
        weights = phi(k).mT @ torch.cat([v, torch.ones_like(v[:, :1])], -1)
        both = phi(q) @ weights
        return both[:, :-1] / both[:, -1:]

    for _ in range(query.dim() - 2):
        one = torch.vmap(one)
    return one(query, key, value)


@right("linear_attention")
def key_after_key(query, key, value):
    q, k = (F.elu(x.double()) + 1 for x in (query, key))
    kv, z = 0.0, 0.0
    for j in range(key.shape[-2]):
        kv = kv + k[..., j, :, None] * value[..., j, None, :].double()
        z = z + k[..., j, :]
    return (torch.matmul(q, kv) / (q * z.unsqueeze(-2)).sum(-1, keepdim=True)).to(query.dtype)


@right("causal_linear_attention")
def a_column_of_ones(query, key, value, state=None):
    """Numerator and denominator as one, the state joined, in float64."""
    q, k = (F.elu(x.double()) + 1 for x in (query, key))
    v = F.pad(value.double(), (0, 1), value=1.0)
    sums = torch.cumsum(torch.einsum("...sd,...sv->...sdv", k, v), dim=-3)
    if state is not None:
        sums = sums + torch.cat([state[0], state[1].unsqueeze(-1)], -1).double().unsqueeze(-3)
    both = torch.einsum("...sd,...sdv->...sv", q, sums)
    last = sums[..., -1, :, :].to(query.dtype)
    return (both[..., :-1] / both[..., -1:]).to(query.dtype), (last[..., :-1], last[..., -1])


@right("causal_linear_attention")
def the_state_as_a_first_position(query, key, value, state=None):
    """The given state stands before the outer products of the positions."""
    q, k = F.elu(query) + 1, F.elu(key) + 1
    products, norms = k.unsqueeze(-1) * value.unsqueeze(-2), k
    if state is not None:
        products = torch.cat([state[0].unsqueeze(-3), products], -3)
        norms = torch.cat([state[1].unsqueeze(-2), norms], -2)
    kv, z = products.cumsum(-3), norms.cumsum(-2)
    S = query.shape[-2]
    above = torch.einsum("...sd,...sdv->...sv", q, kv[..., -S:, :, :])
    return above / (q * z[..., -S:, :]).sum(-1, keepdim=True), (kv[..., -1, :, :], z[..., -1, :])


@right("low_rank_attention")
def by_tensordot_and_baddbmm(query, key, value, E, F):
    if E.shape != F.shape or E.size(1) != key.size(-2):
        raise ValueError("E and F must be (k, S_k)")
    keys, values = torch.tensordot(E, key, ([1], [-2])), torch.tensordot(F, value, ([1], [-2]))
    keys, values = keys.movedim(0, -2), values.movedim(0, -2)
    scores = torch.baddbmm(
        torch.zeros((), dtype=query.dtype),
        query.reshape(-1, *query.shape[-2:]),
        keys.reshape(-1, *keys.shape[-2:]).mT,
        alpha=query.shape[-1] ** -0.5,
    )
    output = torch.bmm(scores.log_softmax(-1).exp(), values.reshape(-1, *values.shape[-2:]))
    return output.reshape(*query.shape[:-1], value.shape[-1])


@right("low_rank_attention")
def query_by_query(query, key, value, E, F):
    if E.dim() != 2 or tuple(F.shape) != tuple(E.shape) or len(E[0]) != key.shape[-2]:
        raise ValueError("E and F must be (k, S_k)")
    keys, values = (E @ key).double(), (F @ value).double()
    rows = []
    for q in query.double().unbind(-2):
        weights = ((keys * q.unsqueeze(-2)).sum(-1) / math.sqrt(query.shape[-1])).softmax(-1)
        rows.append((weights.unsqueeze(-1) * values).sum(-2))
    return torch.stack(rows, -2).to(query.dtype)


@right("recurrent_attention")
def by_einsum_and_positions(x, memory, W_q, W_k, W_v, memory_length):
    old = x.new_empty(*x.shape[:-2], 0, x.shape[-1]) if memory is None else memory.clone().detach()
    S, M = x.shape[-2], old.shape[-2]
    context = torch.cat([old, x], -2)
    query = torch.einsum("...sd,de->...se", x, W_q)
    key, value = (torch.einsum("...sd,de->...se", context, W) for W in (W_k, W_v))
    scores = torch.einsum("...qe,...ke->...qk", query, key) * W_q.shape[1] ** -0.5
    place = torch.arange(M + S, device=x.device)
    bias = torch.zeros(S, M + S, dtype=x.dtype, device=x.device)
    weights = (scores + bias.masked_fill(place > place[M:].unsqueeze(-1), -INF)).softmax(-1)
    rows = place[max(M + S - memory_length, 0) :]
    return torch.einsum("...qk,...kv->...qv", weights, value), context.data.index_select(-2, rows)


@right("recurrent_attention")
def one_softmax_for_each_length(x, memory, W_q, W_k, W_v, memory_length):
    past = [] if memory is None else [row.detach() for row in memory.unbind(-2)]
    held, rows = list(past), []
    for row in x.unbind(-2):
        held.append(row)
        seen = torch.stack(held, -2).double()
        key, value = seen @ W_k.double(), seen @ W_v.double()
        scores = (key @ (row.double() @ W_q.double()).unsqueeze(-1)).squeeze(-1) / W_k.shape[-1] ** 0.5
        rows.append((scores.softmax(-1).unsqueeze(-2) @ value).squeeze(-2).to(x.dtype))
    kept = [row.detach() for row in held[len(held) - min(memory_length, len(held)) :]]
    return torch.stack(rows, -2), torch.stack(kept, -2) if kept else x[..., :0, :].detach()


@right("AttentionFusion")
class NormalisedFirst(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.W = nn.Parameter(torch.empty(d_model, d_model))
        self.mix = nn.Parameter(torch.ones(3) / 3)
        nn.init.xavier_uniform_(self.W)

    def forward(self, query, key, value):
        a, b, c = (self.mix - self.mix.max()).exp() / (self.mix - self.mix.max()).exp().sum()
        unit_q, unit_k = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        scores = a * (query / math.sqrt(query.size(-1))) @ key.mT + b * unit_q @ unit_k.mT
        scores = scores + c * (query @ (self.W @ key.mT))
        weights = F.softmax(scores, dim=-1)
        return torch.matmul(weights, value), weights


@right("AttentionFusion")
class InDouble(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.W = nn.Parameter(torch.eye(d_model))
        self.mix = nn.Parameter(torch.zeros(3))

    def forward(self, query, key, value):
        q, k, W = query.double(), key.double(), self.W.double()
        kinds = torch.stack([
            (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1) / q.shape[-1] ** 0.5,
            F.cosine_similarity(q.unsqueeze(-2), k.unsqueeze(-3), dim=-1),
            torch.einsum("...qd,de,...ke->...qk", q, W, k),
        ])  # fmt: skip
        weights = torch.einsum("t,t...->...", self.mix.double().softmax(0), kinds).softmax(-1)
        return (weights @ value.double()).to(query.dtype), weights.to(query.dtype)


@right("adaptive_span_attention")
def difference_kept_below_zero(query, key, value, span, ramp):
    """The maximum of what is seen; differences above it are hidden ones, and are cut."""
    S = query.shape[-2]
    place = torch.arange(S, device=query.device)
    back = place.view(-1, 1) - place.view(1, -1)
    mask = torch.clamp((ramp + span.view(-1, 1, 1) - back) / ramp, min=0, max=1).tril()
    scores = query @ key.mT / query.shape[-1] ** 0.5
    top = scores.masked_fill(mask == 0, -INF).amax(-1, keepdim=True)
    seen = mask * (scores - top).clamp(max=0).exp()
    weights = seen / seen.sum(-1, keepdim=True)
    return weights @ value, weights, span.mean()


@right("adaptive_span_attention")
def with_relus_in_double(query, key, value, span, ramp):
    q, k, v, z = (x.double() for x in (query, key, value, span))
    S = q.shape[-2]
    place = torch.arange(S, device=query.device)
    back = (place[:, None] - place).double()
    mask = F.hardtanh((ramp + z[:, None, None] - back) / ramp, 0.0, 1.0).tril()
    log = torch.where(mask > 0, mask, 1.0).log() + torch.where(mask > 0, 0.0, -INF)
    weights = F.softmax(torch.einsum("...hqd,...hkd->...hqk", q, k) / math.sqrt(q.shape[-1]) + log, dim=-1)
    return (weights @ v).to(query.dtype), weights.to(query.dtype), z.mean().to(query.dtype)


class Layers(nn.Module):
    def __init__(self, d_model, num_heads, d_latent):
        super().__init__()
        self.H, self.D = num_heads, d_model // num_heads
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.kv_down = nn.Linear(d_model, d_latent, bias=False)
        self.k_up, self.v_up = (nn.Linear(d_latent, d_model, bias=False) for _ in range(2))
        self.out_proj = nn.Linear(d_model, d_model, bias=False)


@right("LatentAttention")
class Absorbed(Layers):
    """Queries are compared with the latents themselves, and mixed latents go up."""

    def forward(self, x, cache=None):
        latent = self.kv_down(x)
        if cache is not None:
            latent = torch.cat([cache, latent], dim=-2)
        S, T = x.shape[-2], latent.shape[-2]
        query = self.q_proj(x).unflatten(-1, (self.H, self.D)).double()
        up_k, up_v = (
            layer.weight.unflatten(0, (self.H, self.D)).double() for layer in (self.k_up, self.v_up)
        )
        scores = torch.einsum("...shd,hdl,...tl->...hst", query, up_k, latent.double()) * self.D**-0.5
        future = torch.ones(S, T, dtype=torch.bool, device=x.device).triu(T - S + 1)
        weights = scores.masked_fill(future, -INF).softmax(-1)
        mixed = torch.einsum("...hst,...tl,hdl->...shd", weights, latent.double(), up_v)
        return self.out_proj(mixed.flatten(-2).to(x.dtype)), latent


@right("LatentAttention")
class HeadByHead(Layers):
    def forward(self, x, cache=None):
        latent = self.kv_down(x) if cache is None else torch.cat((cache, self.kv_down(x)), -2)
        P = latent.shape[-2] - x.shape[-2]
        parts = (t.split(self.D, -1) for t in (self.q_proj(x), self.k_up(latent), self.v_up(latent)))
        outputs = []
        for q, k, v in zip(*parts, strict=True):
            rows = []
            for i in range(x.shape[-2]):
                seen = slice(0, P + i + 1)
                scores = q[..., i : i + 1, :] @ k[..., seen, :].mT / math.sqrt(self.D)
                rows.append(scores.softmax(-1) @ v[..., seen, :])
            outputs.append(torch.cat(rows, -2))
        return self.out_proj(torch.cat(outputs, -1)), latent


@right("latent_cache_elements")
def token_by_token(batch, length, layers, d_latent, d_rope):
    per_token = sum((d_latent, d_rope)) * layers
    return per_token * length * batch


@right("latent_cache_elements")
def by_math(batch, length, layers, d_latent, d_rope):
    return math.prod([batch, length, layers, d_latent]) + math.prod([batch, length, layers, d_rope])


@right("linear_attention")
def by_hand_throughout(query, key, value):
    """A key after the other, then a query after the other, multiplied and summed in float32 at least."""
    kept = torch.promote_types(query.dtype, torch.float32)
    q, k = ((torch.where(x > 0, x, x.clamp(max=0).expm1()) + 1).to(kept) for x in (query, key))
    kv, z = torch.zeros_like(k[..., 0, :, None] * value[..., 0, None, :]), torch.zeros_like(k[..., 0, :])
    for j in range(key.shape[-2]):
        kv, z = kv + k[..., j, :, None] * value[..., j, None, :], z + k[..., j, :]
    rows = [(one.unsqueeze(-1) * kv).sum(-2) / (one * z).sum(-1, keepdim=True) for one in q.unbind(-2)]
    return torch.stack(rows, -2).to(query.dtype)
