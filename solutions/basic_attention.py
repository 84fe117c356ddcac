"""Reference solutions of `basic_attention`: plain PyTorch, corrected, one screen each.

Shapes: B batch, H heads, S_q and S_k lengths, D key width, D_v value width; `...` any
        leading axes.
A bool mask is True where attention is allowed.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def softmax(scores: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """Turn scores into weights: positive, and summing to one along `dim`.

    Shapes: scores (...) -> weights (...), in scores' dtype and device.
    Units:  dimensionless; only differences between scores matter.
    Write it out: torch.softmax and its relatives are not allowed here.
    Source: Bridle 1990; the shift by the maximum keeps exp from overflowing.
    """
    shifted = scores - scores.amax(dim, keepdim=True).detach()
    numerator = shifted.exp()
    return numerator / numerator.sum(dim, keepdim=True)


def masked_softmax(
    scores: Float[Tensor, "... S_q S_k"], attn_mask: Bool[Tensor, "... S_q S_k"]
) -> Float[Tensor, "... S_q S_k"]:
    """Softmax over the keys that the mask allows; forbidden keys weigh exactly zero.

    Shapes: scores (..., S_q, S_k), attn_mask broadcastable to it, True where allowed
            -> weights (..., S_q, S_k), in scores' dtype and device.
    A row that allows no key at all (a dead row) gets weights of exactly zero, with
    finite gradients.
    """
    lowest = torch.finfo(scores.dtype).min  # (not -inf, which makes a dead row nan, and its gradients)
    hidden = scores.masked_fill(~attn_mask, lowest)
    weights = torch.softmax(hidden, -1)  # (..., S_q, S_k)
    return weights.masked_fill(~attn_mask, 0.0)  # exactly zero, in dead rows as well


def dot_scores(
    query: Float[Tensor, "... S_q D"], key: Float[Tensor, "... S_k D"]
) -> Float[Tensor, "... S_q S_k"]:
    """Score every key against every query by their dot product.

    Shapes: query (..., S_q, D), key (..., S_k, D) -> scores (..., S_q, S_k), in query's
            dtype and device.
    Units:  products of the inputs' units.
    Source: Luong et al. 2015, score "dot".
    """
    return query @ key.transpose(-2, -1)  # (..., S_q, S_k)


def scaled_dot_scores(
    query: Float[Tensor, "... S_q D"], key: Float[Tensor, "... S_k D"]
) -> Float[Tensor, "... S_q S_k"]:
    """Dot products divided by the square root of the width D.

    Shapes: query (..., S_q, D), key (..., S_k, D) -> scores (..., S_q, S_k), in query's
            dtype and device.
    Units:  products of the inputs' units.
    Source: Vaswani et al. 2017, section 3.2.1.
    """
    return query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (..., S_q, S_k)


def cosine_scores(
    query: Float[Tensor, "... S_q D"], key: Float[Tensor, "... S_k D"], eps: float = 1e-8
) -> Float[Tensor, "... S_q S_k"]:
    """Score by the cosine of the angle between query and key; lengths do not matter.

    Shapes: query (..., S_q, D), key (..., S_k, D) -> scores (..., S_q, S_k), in query's
            dtype and device.
    Units:  dimensionless, in [-1, 1].
    Each norm is raised to at least `eps`, so that a zero vector scores 0 and not nan. (float16
    takes 1e-8 for zero: there, `eps` must be larger.)
    Source: Graves et al. 2014, eq. 6.
    """
    unit_query = query / query.norm(dim=-1, keepdim=True).clamp_min(eps)
    unit_key = key / key.norm(dim=-1, keepdim=True).clamp_min(eps)
    return unit_query @ unit_key.transpose(-2, -1)  # (..., S_q, S_k)


class AdditiveScores(nn.Module):
    """Score by a small network: v . tanh(W_q q + W_k k).

    Parameters: W_q, W_k and v are nn.Linear without bias, of widths d_query ->
            d_hidden, d_key -> d_hidden, d_hidden -> 1.
    Shapes: query (..., S_q, d_query), key (..., S_k, d_key) -> scores (..., S_q, S_k),
            in query's dtype and device.
    Source: Bahdanau et al. 2015, appendix A.1.2.
    """

    def __init__(self, d_query: int, d_key: int, d_hidden: int):
        super().__init__()
        self.W_q = nn.Linear(d_query, d_hidden, bias=False)
        self.W_k = nn.Linear(d_key, d_hidden, bias=False)
        self.v = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        queries = self.W_q(query).unsqueeze(-2)  # (..., S_q, 1, d_hidden)
        keys = self.W_k(key).unsqueeze(-3)  # (..., 1, S_k, d_hidden)
        return self.v(torch.tanh(queries + keys)).squeeze(-1)  # (..., S_q, S_k)


class MultiplicativeScores(nn.Module):
    """Score by a bilinear form: q W k. Query and key may differ in width.

    Parameters: W, an nn.Parameter of shape (d_query, d_key).
    Shapes: query (..., S_q, d_query), key (..., S_k, d_key) -> scores (..., S_q, S_k),
            in query's dtype and device.
    Source: Luong et al. 2015, score "general".
    """

    def __init__(self, d_query: int, d_key: int):
        super().__init__()
        # q W k is a sum of d_query * d_key terms; so its variance is 1 for inputs of variance 1.
        self.W = nn.Parameter(torch.randn(d_query, d_key) / math.sqrt(d_query * d_key))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return query @ self.W @ key.transpose(-2, -1)  # (..., S_q, S_k)


def attention(
    query: Float[Tensor, "... S_q D"],
    key: Float[Tensor, "... S_k D"],
    value: Float[Tensor, "... S_k D_v"],
    attn_mask: Bool[Tensor, "... S_q S_k"] | None = None,
    is_causal: bool = False,
) -> tuple[Float[Tensor, "... S_q D_v"], Float[Tensor, "... S_q S_k"]]:
    """Average the values, weighted by how well each query matches each key.

    Shapes: query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v), attn_mask
            broadcastable to (..., S_q, S_k), bool
            -> output (..., S_q, D_v), weights (..., S_q, S_k), in query's dtype and
            device.
    Units:  scores are dimensionless: dot products divided by sqrt(D).
    attn_mask is True where attention is allowed. is_causal lets query i see keys 0..i
    only (aligned at the top left); with both, a key must be allowed by both.
    A row that allows no key gives an output and weights of exactly zero.
    Raises: ValueError if query and key differ in D, or key and value in S_k.
    Source: Vaswani et al. 2017, eq. 1.
    """
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"query and key differ in width D: {query.shape[-1]}, {key.shape[-1]}")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"key and value differ in length: {key.shape[-2]}, {value.shape[-2]}")
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (..., S_q, S_k)
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    if is_causal:
        allowed = allowed.tril()
    if attn_mask is not None:
        allowed = allowed & attn_mask  # (..., S_q, S_k)
    hidden = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    weights = torch.softmax(hidden, -1).masked_fill(~allowed, 0.0)
    return weights @ value, weights


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, with learned projections.

    Parameters: q_proj, k_proj, v_proj, out_proj, each nn.Linear(d_model, d_model).
    Shapes: x (..., S, d_model), attn_mask broadcastable to (..., S, S), bool, True
            where allowed
            -> output (..., S, d_model), weights (..., S, S), in x's dtype and device.
    The output is out_proj of the weighted values, so a dead row comes out as out_proj's
    bias.
    Source: Vaswani et al. 2017, section 3.2, one head.
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> tuple[Tensor, Tensor]:
        query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        output, weights = attention(query, key, value, attn_mask, is_causal)
        return self.out_proj(output), weights  # (..., S, d_model), (..., S, S)


class CrossAttention(nn.Module):
    """Attention of one sequence to another: queries from x, keys and values from context.

    Parameters: q_proj and out_proj, each nn.Linear(d_model, d_model); k_proj and
            v_proj, each nn.Linear(d_context, d_model).
    Shapes: x (..., S_q, d_model), context (..., S_k, d_context), attn_mask
            broadcastable to (..., S_q, S_k), bool, True where allowed
            -> output (..., S_q, d_model), weights (..., S_q, S_k), in x's dtype and
            device.
    Source: Vaswani et al. 2017, section 3.2.3, "encoder-decoder attention", one head.
    """

    def __init__(self, d_model: int, d_context: int):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_context, d_model)
        self.v_proj = nn.Linear(d_context, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, context: Tensor, attn_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        query, key, value = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        output, weights = attention(query, key, value, attn_mask)
        return self.out_proj(output), weights  # (..., S_q, d_model), (..., S_q, S_k)


mask_placement = "b"

multiplicative_kind = "d"

additive_kind = "a"

score_variance = 64

why_scale = "c"

attention_flops = 2 * 128 * 512 * (64 + 48)

dot_product_cost = "d"

distant_positions = "b"

weights_explain = "a"
