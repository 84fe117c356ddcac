"""`CachedSelfAttention`: right writings and mutants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant, right
from tests.exercises.text_generation.cache import Joined, ResetOfTheLengthOnly

NAME = "CachedSelfAttention"


def aligned(S_q, S_k, x):
    return torch.ones(S_q, S_k, dtype=torch.bool, device=x.device).tril(S_k - S_q)


@right(NAME)
class InMethods(nn.Module):
    """Right; its methods are what mutants change."""

    def __init__(self, d_model, num_heads, max_length):
        super().__init__()
        self.refuse_heads(d_model, num_heads)
        self.num_heads, self.d_model, self.max_length = num_heads, d_model, max_length
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.cache = Joined(max_length)

    def refuse_heads(self, d_model, num_heads):
        if d_model % num_heads:
            raise ValueError("heads do not fit")

    def begin(self, start):
        if start == 0:
            self.cache.reset()
        if start != len(self.cache):
            raise ValueError("start does not fit")

    def split(self, x):
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)

    def mask(self, S_q, S_k, x):
        return aligned(S_q, S_k, x)

    def remember(self, key, value):
        return self.cache.append(key, value)

    def attend(self, query, keys, values):
        scores = query @ keys.mT / math.sqrt(query.shape[-1])
        allowed = self.mask(*scores.shape[-2:], query)
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        return self.finish((weights @ values).transpose(-3, -2).flatten(-2))

    def finish(self, x):
        return self.out_proj(x)

    def forward(self, x, start=0):
        self.begin(start)
        query, key, value = (self.split(layer(x)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        return self.attend(query, *self.remember(key, value))


@right(NAME)
class KeepsLists(nn.Module):
    """Keys and values as plain tensors on self; SDPA; a fused projection."""

    def __init__(self, d_model: int, num_heads: int, max_length: int):
        super().__init__()
        if d_model % num_heads != 0:
            raise ValueError(f"{d_model} % {num_heads}")
        self.H, self.room, self.past = num_heads, max_length, None
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(d_model, d_model))

    def forward(self, x, start=0):
        *lead, S, E = x.shape
        past = None if start == 0 else self.past
        if (0 if past is None else past[0].size(-2)) != start or start + S > self.room:
            raise ValueError("does not fit")
        layers = (self.q_proj, self.k_proj, self.v_proj)
        weight, bias = torch.cat([one.weight for one in layers]), torch.cat([one.bias for one in layers])
        q, k, v = (
            part.reshape(*lead, S, self.H, E // self.H).transpose(-3, -2)
            for part in F.linear(x, weight, bias).chunk(3, -1)
        )
        if past is not None:
            k, v = torch.cat((past[0], k), -2), torch.cat((past[1], v), -2)
        self.past = k, v
        out = self.weighted(q, k, v)
        return self.out_proj(out.transpose(-3, -2).reshape(*lead, S, E))

    def weighted(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=aligned(q.size(-2), k.size(-2), q))


@right(NAME)
class HeadByHead(InMethods):
    """A loop over heads, keys kept before they are split."""

    def forward(self, x, start=0):
        self.begin(start)
        keys, values = self.cache.append(self.k_proj(x), self.v_proj(x))
        query, D = self.q_proj(x), self.d_model // self.num_heads
        places = torch.arange(keys.size(-2), device=x.device)
        outputs = []
        for h in range(self.num_heads):
            part = slice(h * D, (h + 1) * D)
            scores = torch.einsum("...qd,...kd->...qk", query[..., part], keys[..., part]) / math.sqrt(D)
            lowest = torch.finfo(scores.dtype).min
            weights = torch.where(places <= places[start:, None], scores, lowest).softmax(-1)
            outputs.append(weights @ values[..., part])
        return self.out_proj(torch.cat(outputs, -1))


@mutant(NAME, "only a full pass is masked")
class MasksTheFullPass(InMethods):
    def mask(self, S_q, S_k, x):
        return aligned(S_q, S_k, x) | (S_q != S_k)


@mutant(NAME)
class TopLeftInEval(KeepsLists):
    """SDPA's own triangle begins at the top left."""

    def weighted(self, q, k, v):
        if self.training:
            return super().weighted(q, k, v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=q.size(-2) > 1)


@mutant(NAME, "remembers in a registered buffer")
class CacheInBuffers(InMethods):
    """Right where it runs in one process, but the cache goes into state_dict and travels with the weights."""

    def __init__(self, d_model, num_heads, max_length):
        super().__init__(d_model, num_heads, max_length)
        self.register_buffer("past_keys", torch.zeros(1, num_heads, max_length, d_model // num_heads))
        self.register_buffer("past_values", torch.zeros(1, num_heads, max_length, d_model // num_heads))

    def remember(self, key, value):
        start = len(self.cache)
        self.cache.append(key, value)
        if not start:
            self.past_keys, self.past_values = key, value
        else:
            self.past_keys = torch.cat([self.past_keys, key], -2)
            self.past_values = torch.cat([self.past_values, value], -2)
        return self.past_keys, self.past_values


@mutant(NAME, "computes earlier positions again", only="cost")
class KeepsTheInputs(InMethods):
    """Remembers x, and projects all of it at every step."""

    def forward(self, x, start=0):
        self.begin(start)
        seen, _ = self.cache.append(x, x)
        output = self.attend(*(self.split(f(seen)) for f in (self.q_proj, self.k_proj, self.v_proj)))
        return output[..., start:, :]


@mutant(NAME, "start=0 does not forget")
class KeepsTheBatchSize(InMethods):
    """A buffer that is made once for each number of axes; a smaller batch is broadcast into it."""

    def __init__(self, d_model, num_heads, max_length):
        super().__init__(d_model, num_heads, max_length)
        self.cache = ResetOfTheLengthOnly(max_length)

    def remember(self, key, value):
        buffers = self.cache.buffers
        if buffers is not None and buffers[0].dim() == key.dim():
            self.cache.buffers = [one.detach().clone() for one in buffers]
        else:
            self.cache.buffers = None
        return super().remember(key, value)


@mutant(NAME, "layers share what they remember")
class OneStore(KeepsLists):
    store = [None]
    past = property(lambda self: self.store[0], lambda self, past: self.store.__setitem__(0, past))


@mutant(NAME, "start is not compared with what is remembered", only="refuses")
class AnyStart(InMethods):
    def begin(self, start):
        if start == 0:
            self.cache.reset()


@mutant(NAME, "d_model need not be divisible by num_heads", only="refuses")
class AnyHeads(InMethods):
    def refuse_heads(self, d_model, num_heads):
        pass


@mutant(NAME, "grows beyond max_length", only="refuses")
class NoLimit(InMethods):
    def __init__(self, d_model, num_heads, max_length):
        super().__init__(d_model, num_heads, max_length)
        self.cache.max_length = 10**9


@mutant(NAME, "fixed number of leading axes")
class ThreeAxes(InMethods):
    def split(self, x):
        B, S, _ = x.shape
        return x.view(B, S, self.num_heads, -1).transpose(1, 2)

    def forward(self, x, start=0):
        return super().forward(x if x.dim() != 2 else x.unsqueeze(0), start).reshape(x.shape)


@mutant(NAME, "a parameter that the formula does not have", only="parameters")
class OneLayerTooMany(InMethods):
    def __init__(self, d_model, num_heads, max_length):
        super().__init__(d_model, num_heads, max_length)
        self.gate = nn.Parameter(torch.zeros(1))

    def finish(self, x):
        return self.out_proj(x) + self.gate.to(x.dtype)


@mutant(NAME)
class DetachedKeys(InMethods):
    """The cached keys carry no gradient; k_proj gets one of zero from its bias."""

    def remember(self, key, value):
        keys, values = super().remember(key, value)
        return keys.detach() + 0 * key.sum(), values


@mutant(NAME, "x has no effect")
class Constant(InMethods):
    def forward(self, x, start=0):
        return self.out_proj(torch.ones_like(x))
