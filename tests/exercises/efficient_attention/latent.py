"""`LatentAttention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.catalogue import OTHERWISE, mutant, right
from tests.exercises.shared_attention.lazy import register

NAME = "LatentAttention"


class Steps(nn.Module):
    """Each step on its own."""

    def __init__(self, d_model, num_heads, d_latent):
        super().__init__()
        self.num_heads, self.d_model, self.d_latent = num_heads, d_model, d_latent
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.kv_down = nn.Linear(d_model, d_latent, bias=False)
        self.k_up = nn.Linear(d_latent, d_model, bias=False)
        self.v_up = nn.Linear(d_latent, d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def down(self, x):
        return self.kv_down(x)

    def join(self, cache, new):
        return torch.cat([cache, new], -2)

    def keys(self, latent):
        return self.k_up(latent)

    def values(self, latent):
        return self.v_up(latent)

    def queries(self, x):
        return self.q_proj(x)

    def split(self, x):
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)

    def merge(self, x):
        return x.transpose(-3, -2).flatten(-2)

    def triangle(self, ones, P):
        return ones.tril(P)

    def scale(self):
        return (self.d_model // self.num_heads) ** -0.5

    def weigh(self, scores, allowed):
        return scores.masked_fill(~allowed, -torch.inf).softmax(-1)

    def finish(self, mixed):
        return self.out_proj(mixed)

    def kept(self, latent, new, cache):
        return latent

    def forward(self, x, cache=None):
        new = self.down(x)
        latent = new if cache is None else self.join(cache, new)
        q, k, v = self.split(self.queries(x)), self.split(self.keys(latent)), self.split(self.values(latent))
        scores = q @ k.mT * self.scale()
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device)
        weights = self.weigh(scores, self.triangle(ones, latent.shape[-2] - x.shape[-2]))
        return self.finish(self.merge(weights @ v)), self.kept(latent, new, cache)


@right(NAME)
class ByTheBook(Steps):
    pass


@right(NAME)
class Absorbed(Steps):
    """Scores of the latents themselves: neither keys nor values are made."""

    def forward(self, x, cache=None):
        latent = self.kv_down(x)
        if cache is not None:
            latent = torch.cat([cache, latent], dim=-2)
        k_up, v_up = (layer.weight.unflatten(0, (self.num_heads, -1)) for layer in (self.k_up, self.v_up))
        query = self.split(self.q_proj(x)) @ k_up  # (..., H, S, d_latent)
        scores = query @ latent.unsqueeze(-3).mT * self.scale()
        P, S = latent.shape[-2] - x.shape[-2], x.shape[-2]
        place = torch.arange(P + S, device=x.device)
        future = place > place[P:, None]
        weights = scores.masked_fill(future, torch.finfo(x.dtype).min).softmax(-1)
        mixed = (weights @ latent.unsqueeze(-3)) @ v_up.mT  # (..., H, S, D)
        return self.out_proj(self.merge(mixed)), latent


@right(NAME)
class HeadByHead(Steps):
    def forward(self, x, cache=None):
        empty = x.new_zeros(*x.shape[:-2], 0, self.d_latent)
        latent = torch.cat([empty if cache is None else cache, self.kv_down(x)], -2)
        P, outputs = latent.shape[-2] - x.shape[-2], []
        bias = x.new_full((x.shape[-2], latent.shape[-2]), -torch.inf).triu(P + 1)
        parts = (self.q_proj(x), self.k_up(latent), self.v_up(latent))
        for q, k, v in zip(*(part.chunk(self.num_heads, -1) for part in parts), strict=True):
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 + bias
            outputs.append(F.softmax(scores, dim=-1) @ v)
        return self.out_proj(torch.cat(outputs, -1)), latent


@right(NAME)
class CacheDetached(Steps):
    """What is handed on needs no gradient; what is handed in does."""

    def kept(self, latent, new, cache):
        return latent.detach()


@mutant(NAME, "gradient is cut off")
class GivenCacheDetached(Steps):
    def join(self, cache, new):
        return torch.cat([cache.detach(), new], -2)


@right(NAME)
class BareParameters(nn.Module):
    def __init__(self, d_model, num_heads, d_latent):
        super().__init__()
        self.heads = num_heads
        sizes = {
            "q_proj": (d_model, d_model),
            "kv_down": (d_latent, d_model),
            "k_up": (d_model, d_latent),
            "v_up": (d_model, d_latent),
            "out_proj": (d_model, d_model),
        }
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(size) / size[1] ** 0.5))

    def forward(self, x, cache=None):
        latent = x @ self.kv_down.mT
        latent = torch.cat((cache, latent), -2) if cache is not None else latent

        def cut(rows):
            return rows.reshape(*rows.shape[:-1], self.heads, -1)

        q, k, v = cut(x @ self.q_proj.mT), cut(latent @ self.k_up.mT), cut(latent @ self.v_up.mT)
        scores = torch.einsum("...qhd,...khd->...hqk", q, k) / q.shape[-1] ** 0.5
        allowed = torch.ones_like(scores, dtype=torch.bool).tril(latent.shape[-2] - x.shape[-2])
        weights = scores.where(allowed, -torch.inf).softmax(-1)
        mixed = torch.einsum("...hqk,...khd->...qhd", weights, v)
        return mixed.flatten(-2) @ self.out_proj.mT, latent


def variant(name, named, *, only=None, **steps):
    """A mutant with some steps exchanged."""
    register(NAME, name, named, type(name, (Steps,), steps), only)


variant(
    "OneHead",
    "one head",
    split=lambda self, x: x.unsqueeze(-3),
    merge=lambda self, x: x.squeeze(-3),
    scale=lambda self: self.d_model**-0.5,
)
variant(
    "CachedKeys",
    "cache of up-projected keys",
    kept=lambda self, latent, new, cache: self.k_up(latent),
)
variant(
    "PaddedCache",
    "cache has the wrong shape",
    kept=lambda self, latent, new, cache: F.pad(latent, (0, 1 + self.d_model)),
)
variant(
    "NoMaximum",
    None,
    weigh=lambda self, s, a: (e := s.double().exp() * a, (e / e.sum(-1, keepdim=True)).to(s.dtype))[1],
)


@mutant(NAME)
class LastTwelveSeen(Steps):
    def join(self, cache, new):
        return torch.cat([cache, new], -2)[..., -12:, :]

    def kept(self, latent, new, cache):
        return new if cache is None else torch.cat([cache, new], -2)


@mutant(NAME, "goes on from an earlier call, not from what it is handed", only="decoding")
class RemembersItsOwnCache(Steps):
    """As long as the lengths fit."""

    def join(self, cache, new):
        own = getattr(self, "own", None)
        return super().join(own if own is not None and own.shape == cache.shape else cache, new)

    def kept(self, latent, new, cache):
        self.own = latent
        return latent


@mutant(NAME, "x has no effect")
class NothingButTheCache(Steps):
    def finish(self, mixed):
        return torch.zeros_like(mixed)


@mutant(NAME)
class NeedsTwoHeads(Steps):
    def split(self, x):
        return super().split(x) if self.num_heads > 1 else x.unsqueeze(-3) * 0.5


@mutant(NAME, "a bias where the formula has none")
class Biased(Steps):
    def __init__(self, d_model, num_heads, d_latent):
        super().__init__(d_model, num_heads, d_latent)
        self.kv_down = nn.Linear(d_model, d_latent)


@mutant(NAME, "parameter of the wrong shape")
class UpAndDownExchanged(Steps):
    def __init__(self, d_model, num_heads, d_latent):
        super().__init__(d_model, num_heads, d_latent)
        self.kv_down = nn.Linear(d_latent, d_model, bias=False)


@mutant(NAME, "uses a forbidden function", only="own work")
class Fused(Steps):
    def forward(self, x, cache=None):
        latent = self.kv_down(x) if cache is None else torch.cat([cache, self.kv_down(x)], -2)
        q, k, v = (self.split(t) for t in (self.q_proj(x), self.k_up(latent), self.v_up(latent)))
        allowed = torch.ones(x.shape[-2], latent.shape[-2], dtype=torch.bool, device=x.device)
        allowed = allowed.tril(latent.shape[-2] - x.shape[-2])
        return self.out_proj(self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=allowed))), latent


@mutant(NAME, "a parameter that the formula does not have")
class ATemperature(Steps):
    def __init__(self, d_model, num_heads, d_latent):
        super().__init__(d_model, num_heads, d_latent)
        self.temperature = nn.Parameter(torch.ones(1))

    def finish(self, mixed):
        return super().finish(mixed * self.temperature.to(mixed.dtype))


variant(
    "ProjectedInTrainingOnly",
    "depends on train() or eval()",
    queries=lambda self, x: self.q_proj(x) if self.training else x,
)


@mutant(NAME, "writes into the cache that it has handed out", only="decoding")
class OneGrowingBuffer(Steps):
    """Without a gradient the cache is a view of a buffer with room for more."""

    room = None

    def forward(self, x, cache=None):
        output, latent = super().forward(x, cache)
        if torch.is_grad_enabled():
            return output, latent
        P, S = latent.shape[-2] - x.shape[-2], x.shape[-2]
        goes_on = cache is not None and self.room is not None and cache.data_ptr() == self.room.data_ptr()
        if not goes_on or self.room.shape[-2] < P + S:
            self.room = latent.new_zeros(*latent.shape[:-2], 2 * (P + S), latent.shape[-1])
            self.room[..., :P, :] = latent[..., :P, :]
        self.room[..., P : P + S, :] = latent[..., P:, :]
        return output, self.room[..., : P + S, :]


@mutant(NAME, "unusable start values", only="parameters")
class AllLayersStartAtZero(Steps):
    def __init__(self, d_model, num_heads, d_latent):
        super().__init__(d_model, num_heads, d_latent)
        for one in self.parameters():
            nn.init.zeros_(one)


OTHERWISE.add((NAME, "mask value is not low enough"))  # -65504 and -1e5 show in two situations only
