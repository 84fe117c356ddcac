"""`CachedSelfAttention`: right writings and mutants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import mutant, right
from tests.exercises.text_generation.cache import Joined, ResetOfTheLengthOnly


def aligned(S_q, S_k):
    return torch.ones(S_q, S_k, dtype=torch.bool).tril(S_k - S_q)


class Right(nn.Module):
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

    def merge(self, x):
        return x.transpose(-3, -2).flatten(-2)

    def mask(self, S_q, S_k):
        return aligned(S_q, S_k)

    def scale(self, width):
        return width**-0.5

    def softmax(self, scores):
        return scores.softmax(-1)

    def project(self, x):
        return self.split(self.q_proj(x)), self.split(self.k_proj(x)), self.split(self.v_proj(x))

    def remember(self, key, value):
        return self.cache.append(key, value)

    def finish(self, x):
        return self.out_proj(x)

    def forward(self, x, start=0):
        self.begin(start)
        query, key, value = self.project(x)
        keys, values = self.remember(key, value)
        scores = query @ keys.mT * self.scale(query.shape[-1])
        allowed = self.mask(*scores.shape[-2:])
        weights = self.softmax(scores.masked_fill(~allowed, -torch.inf))
        return self.finish(self.merge(weights @ values))


@right("CachedSelfAttention")
class InMethods(Right):
    pass


@right("CachedSelfAttention")
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
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=aligned(S, k.size(-2)))
        return self.out_proj(out.transpose(-3, -2).reshape(*lead, S, E))


@right("CachedSelfAttention")
class HeadByHead(Right):
    """A loop over heads, keys kept before they are split."""

    def forward(self, x, start=0):
        self.begin(start)
        keys, values = self.cache.append(self.k_proj(x), self.v_proj(x))
        query, D = self.q_proj(x), self.d_model // self.num_heads
        allowed = torch.arange(keys.size(-2)) <= torch.arange(start, start + x.size(-2)).unsqueeze(-1)
        outputs = []
        for h in range(self.num_heads):
            part = slice(h * D, (h + 1) * D)
            scores = torch.einsum("...qd,...kd->...qk", query[..., part], keys[..., part]) / math.sqrt(D)
            lowest = torch.finfo(scores.dtype).min
            weights = torch.where(allowed, scores, lowest).softmax(-1)
            outputs.append(weights @ values[..., part])
        return self.out_proj(torch.cat(outputs, -1))


@mutant("CachedSelfAttention", "mask aligned at the top left")
class TopLeft(Right):
    def mask(self, S_q, S_k):
        return torch.ones(S_q, S_k, dtype=torch.bool).tril()


@mutant("CachedSelfAttention", "nothing is masked")
class Unmasked(Right):
    def mask(self, S_q, S_k):
        return torch.ones(S_q, S_k, dtype=torch.bool)


@mutant("CachedSelfAttention", "only a full pass is masked", only="pieces")
class MasksTheFullPass(Right):
    def mask(self, S_q, S_k):
        return aligned(S_q, S_k) if S_q == S_k else torch.ones(S_q, S_k, dtype=torch.bool)


@mutant("CachedSelfAttention", "a position does not see itself")
class BlindToItself(Right):
    def mask(self, S_q, S_k):
        return torch.ones(S_q, S_k, dtype=torch.bool).tril(S_k - S_q - 1)

    def softmax(self, scores):
        return scores.softmax(-1).nan_to_num()


@mutant("CachedSelfAttention", "earlier pieces are forgotten", only="single steps")
class Forgets(Right):
    def remember(self, key, value):
        super().remember(key, value)
        return key, value


@mutant("CachedSelfAttention", "remembers in a registered buffer", only="single steps")
class CacheInBuffers(Right):
    """Right where it runs in one process, but the cache goes into state_dict and travels with the weights."""

    def __init__(self, d_model, num_heads, max_length):
        super().__init__(d_model, num_heads, max_length)
        self.register_buffer("past_keys", torch.zeros(1, num_heads, max_length, d_model // num_heads))
        self.register_buffer("past_values", torch.zeros(1, num_heads, max_length, d_model // num_heads))
        self.length = 0

    def begin(self, start):
        if start not in (0, self.length):
            raise ValueError("start does not fit")
        self.length = start

    def remember(self, key, value):
        begin, end = self.length, self.length + key.shape[-2]
        if end > self.max_length:
            raise ValueError("full")
        self.length = end
        if begin == 0 and end == self.max_length:
            return key, value
        rows = key.reshape(-1, *key.shape[-3:]).shape[0]
        if self.past_keys.shape[0] != rows:
            self.past_keys = key.new_zeros(rows, key.shape[-3], self.max_length, key.shape[-1])
            self.past_values = torch.zeros_like(self.past_keys)
        self.past_keys[:, :, begin:end] = key.reshape(rows, *key.shape[-3:]).detach()
        self.past_values[:, :, begin:end] = value.reshape(rows, *value.shape[-3:]).detach()
        kept = (self.past_keys[:, :, :end], self.past_values[:, :, :end])
        return tuple(part.reshape(*key.shape[:-3], *part.shape[1:]) for part in kept)


@mutant("CachedSelfAttention", "not scaled")
class Unscaled(Right):
    def scale(self, width):
        return 1.0


@mutant("CachedSelfAttention", "scaled by sqrt(d_model)")
class ScaledByTheModel(Right):
    def scale(self, width):
        return self.d_model**-0.5


@mutant("CachedSelfAttention", "softmax over the queries")
class OverQueries(Right):
    def softmax(self, scores):
        return scores.softmax(-2).nan_to_num()


@mutant("CachedSelfAttention", "one head")
class OneHead(Right):
    def split(self, x):
        return x.unsqueeze(-3)


@mutant("CachedSelfAttention", "heads interleaved")
class Interleaved(Right):
    def split(self, x):
        return x.unflatten(-1, (-1, self.num_heads)).movedim(-1, -3)


@mutant("CachedSelfAttention", "heads merged without a transpose")
class MergedWrongly(Right):
    def merge(self, x):
        return x.reshape(*x.shape[:-3], x.shape[-2], -1)


@mutant("CachedSelfAttention", "heads split without a transpose")
class SplitWrongly(Right):
    def split(self, x):
        return x.reshape(*x.shape[:-2], self.num_heads, x.shape[-2], -1)


@mutant("CachedSelfAttention", "out_proj is not applied", only="full pass")
class NotProjected(Right):
    def finish(self, x):
        return x


@mutant("CachedSelfAttention", "values are keys")
class ValuesAreKeys(Right):
    def project(self, x):
        query, key, _ = super().project(x)
        return query, key, key


@mutant("CachedSelfAttention", "biases left out")
class NoBiases(Right):
    def project(self, x):
        return tuple(self.split(x @ one.weight.mT) for one in (self.q_proj, self.k_proj, self.v_proj))

    def finish(self, x):
        return x @ self.out_proj.weight.mT


@mutant("CachedSelfAttention", "computes earlier positions again", only="cost")
class KeepsTheInputs(Right):
    """Remembers x, and projects all of it at every step."""

    def forward(self, x, start=0):
        self.begin(start)
        seen, _ = self.cache.append(x, x)
        query, key, value = self.project(seen)
        scores = query @ key.mT * self.scale(query.shape[-1])
        weights = scores.masked_fill(~aligned(*scores.shape[-2:]), -torch.inf).softmax(-1)
        return self.finish(self.merge(weights @ value))[..., start:, :]


@mutant("CachedSelfAttention", "start=0 does not forget", only="new text")
class KeepsTheBatchSize(Right):
    """A buffer that is made once for each number of axes; a smaller batch is broadcast into it."""

    def __init__(self, d_model, num_heads, max_length):
        super().__init__(d_model, num_heads, max_length)
        self.cache = ResetOfTheLengthOnly(max_length)

    def remember(self, key, value):
        if self.cache.buffers is not None and self.cache.buffers[0].dim() != key.dim():
            self.cache.buffers = None
        return super().remember(key, value) if self.cache.buffers is None else self.written(key, value)

    def written(self, key, value):
        new, end = self.cache.n, self.cache.n + key.shape[-2]
        if end > self.max_length:
            raise ValueError("full")
        buffers = [buffer.detach().clone() for buffer in self.cache.buffers]
        for buffer, piece in zip(buffers, (key, value), strict=True):
            buffer[..., new:end, :] = piece
        self.cache.buffers, self.cache.n = buffers, end
        return tuple(buffer[..., :end, :] for buffer in buffers)


@mutant("CachedSelfAttention", "start is not compared with what is remembered", only="refuses")
class AnyStart(Right):
    def begin(self, start):
        if start == 0:
            self.cache.reset()


@mutant("CachedSelfAttention", "d_model need not be divisible by num_heads", only="refuses")
class AnyHeads(Right):
    def refuse_heads(self, d_model, num_heads):
        pass


@mutant("CachedSelfAttention", "grows beyond max_length", only="refuses")
class NoLimit(Right):
    def __init__(self, d_model, num_heads, max_length):
        super().__init__(d_model, num_heads, max_length)
        self.cache.max_length = 10**9


@mutant("CachedSelfAttention", "fixed number of leading axes", only="leading axes")
class ThreeAxes(Right):
    def split(self, x):
        B, S, _ = x.shape
        return x.view(B, S, self.num_heads, -1).transpose(1, 2)

    def forward(self, x, start=0):
        return super().forward(x if x.dim() != 2 else x.unsqueeze(0), start).reshape(x.shape)


@mutant("CachedSelfAttention", "a parameter that the formula does not have", only="parameters")
class OneLayerTooMany(Right):
    def __init__(self, d_model, num_heads, max_length):
        super().__init__(d_model, num_heads, max_length)
        self.gate = nn.Parameter(torch.zeros(1))

    def finish(self, x):
        return self.out_proj(x) + self.gate.to(x.dtype)


@mutant("CachedSelfAttention", "wrong gradient", only="gradient")
class DetachedKeys(Right):
    """The cached keys carry no gradient; k_proj gets one of zero from its bias."""

    def remember(self, key, value):
        keys, values = super().remember(key, value)
        return keys.detach() + 0 * key.sum(), values


@mutant("CachedSelfAttention", "does not keep the dtype", only="dtype")
class InFloat32(Right):
    def finish(self, x):
        return self.out_proj(x) if x.dtype != torch.bfloat16 else self.out_proj(x).float()


@mutant("CachedSelfAttention", "changes its inputs in place", only="inputs untouched")
class WritesIntoX(Right):
    def forward(self, x, start=0):
        output = super().forward(x, start)
        if not output.requires_grad:
            x.zero_()
        return output


@mutant("CachedSelfAttention", "x has no effect", only="every input counts")
class Constant(Right):
    def forward(self, x, start=0):
        return self.out_proj(torch.ones_like(x))
