"""Reference solutions of `multi_head_attention`: plain PyTorch, corrected, one screen each.

Shapes: B batch, H heads, S_q and S_k lengths, D key width, D_v value width; `...` any
        leading axes.
A bool mask is True where attention is allowed.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def split_heads(x: Float[Tensor, "... S D"], num_heads: int) -> Float[Tensor, "... H S D_head"]:
    """Cut the feature axis into equal pieces, one for each head; every head keeps every position.

    Shapes: x (..., S, D) -> heads (..., num_heads, S, D / num_heads), in x's dtype and
            device.
    Head h gets the features h * D / num_heads up to (h + 1) * D / num_heads, in order.
    Raises: ValueError if num_heads does not divide D; the message names both numbers.
    """
    D = x.shape[-1]
    if D % num_heads != 0:
        raise ValueError(f"width {D} is not divisible by num_heads {num_heads}: heads are equally wide")
    return x.unflatten(-1, (num_heads, D // num_heads)).transpose(-3, -2)  # (..., H, S, D / H)


def merge_heads(heads: Float[Tensor, "... H S D_head"]) -> Float[Tensor, "... S D"]:
    """Put the heads' features side by side again: what undoes `split_heads`.

    Shapes: heads (..., H, S, D_head) -> merged (..., S, H * D_head), in heads' dtype and
            device.
    """
    return heads.transpose(-3, -2).flatten(-2)  # (..., S, H * D_head)


def multi_head_attention(
    query: Float[Tensor, "... S_q D"],
    key: Float[Tensor, "... S_k D"],
    value: Float[Tensor, "... S_k D_v"],
    num_heads: int,
    attn_mask: Bool[Tensor, "... H S_q S_k"] | None = None,
) -> tuple[Float[Tensor, "... S_q D_v"], Float[Tensor, "... H S_q S_k"]]:
    """Attend once in each head, to the head's own piece of the features; no projections.

    Shapes: query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v), attn_mask
            broadcastable to (..., num_heads, S_q, S_k), bool, True where allowed
            -> output (..., S_q, D_v), weights (..., num_heads, S_q, S_k), in query's
            dtype and device.
    Units:  scores are dimensionless: dot products divided by sqrt(D / num_heads).
    Head h compares piece h of query and key, averages piece h of value, and fills piece
    h of the output. A row that allows no key gives that head zero weights and zeros.
    Write it out: torch's fused attention functions are not allowed here.
    Raises: ValueError if num_heads does not divide D or D_v (the message names both
            numbers), if query and key differ in D, or key and value in S_k.
    Source: Vaswani et al. 2017, section 3.2.2, without its projections.
    """
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"query and key differ in width D: {query.shape[-1]}, {key.shape[-1]}")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"key and value differ in length: {key.shape[-2]}, {value.shape[-2]}")
    queries, keys, values = (split_heads(x, num_heads) for x in (query, key, value))
    scores = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])  # (..., H, S_q, S_k)
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    if attn_mask is not None:
        allowed = allowed & attn_mask
    hidden = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    weights = torch.softmax(hidden, -1).masked_fill(~allowed, 0.0)
    return merge_heads(weights @ values), weights


class MultiHeadAttention(nn.Module):
    """Multi-head attention with learned projections, of a sequence to itself or to another.

    Parameters: q_proj, k_proj, v_proj, out_proj, each nn.Linear(d_model, d_model), with a
            bias if `bias`. The number of heads changes no parameter.
    Shapes: query (..., S_q, d_model), key and value (..., S_k, d_model), attn_mask
            broadcastable to (..., num_heads, S_q, S_k), bool, True where allowed
            -> output (..., S_q, d_model), weights (..., num_heads, S_q, S_k) or None, in
            query's dtype and device.
    Without key, query is the key; without value, key is the value. is_causal lets query i
    see keys 0..i only (aligned at the top left); with both masks, a key must be allowed
    by both. A row that allows no key gives its head zero weights; where no head is
    allowed any key, out_proj's bias comes out.
    Always returns a pair. With need_weights the second is each head's weights, not their
    mean; without, it is None.
    Dropout acts on the weights, after the softmax, in train mode only: each weight of
    each head becomes zero with probability `dropout`, the rest are divided by
    1 - dropout. The weights that come back are those, the ones that made the output.
    nn.MultiheadAttention's own forward is not allowed inside.
    Raises: ValueError, when it is made, if num_heads does not divide d_model; the message
            names both numbers.
    Source: Vaswani et al. 2017, section 3.2.2. nn.MultiheadAttention with the same weights
            gives the same; its bool mask is the other way round, True where forbidden.
    """

    def __init__(self, d_model: int, num_heads: int, bias: bool = True, dropout: float = 0.0):
        super().__init__()
        if d_model % num_heads != 0:
            raise ValueError(f"d_model {d_model} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(d_model, d_model, bias=bias)
        self.k_proj = nn.Linear(d_model, d_model, bias=bias)
        self.v_proj = nn.Linear(d_model, d_model, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        key = query if key is None else key
        value = key if value is None else value
        projected = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        queries, keys, values = (split_heads(x, self.num_heads) for x in projected)
        scores = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])  # (..., H, S_q, S_k)
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        if is_causal:
            allowed = allowed.tril()
        if attn_mask is not None:
            allowed = allowed & attn_mask
        hidden = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        weights = torch.softmax(hidden, -1).masked_fill(~allowed, 0.0)
        weights = self.dropout(weights)
        output = self.out_proj(merge_heads(weights @ values))  # (..., S_q, d_model)
        return output, weights if need_weights else None


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward network, each with a residual and a layer norm.

    Parameters: attention, a MultiHeadAttention(d_model, num_heads); linear1 and linear2,
            nn.Linear(d_model, d_ff) and nn.Linear(d_ff, d_model); norm1 and norm2,
            nn.LayerNorm(d_model).
    Shapes: x (..., S, d_model), attn_mask broadcastable to (..., num_heads, S, S), bool,
            True where allowed -> output (..., S, d_model), in x's dtype and device.
    With f(x) = linear2(relu(linear1(x))), the block computes, norm_first:
            x = x + attention(norm1(x));  x = x + f(norm2(x))
    and otherwise (post-norm, the order of the first paper):
            x = norm1(x + attention(x));  x = norm2(x + f(x))
    Nothing else: one order throughout, each x added once, no dropout.
    Raises: ValueError, when it is made, if num_heads does not divide d_model; the message
            names both numbers.
    Source: Vaswani et al. 2017, section 3.1 (post-norm); Xiong et al. 2020 (pre-norm).
            nn.TransformerEncoderLayer without dropout and with the same weights gives the
            same.
    """

    def __init__(self, d_model: int, num_heads: int, d_ff: int, norm_first: bool = True):
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadAttention(d_model, num_heads)
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        source = self.norm1(x) if self.norm_first else x
        x = x + self.attention(source, attn_mask=attn_mask, is_causal=is_causal)[0]
        x = x if self.norm_first else self.norm1(x)
        source = self.norm2(x) if self.norm_first else x
        x = x + self.linear2(torch.relu(self.linear1(source)))  # (..., S, d_model)
        return x if self.norm_first else self.norm2(x)


heads_split = "c"

multi_head_parameters = 4 * (512 * 512 + 512)

when_heads_help = "a"

attention_saves_work = "b"

stored_weights = 8 * 12 * 1024 * 1024 * 2

norm_order = "d"
